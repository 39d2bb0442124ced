"""Rules for all entities, as of any instant.

Begin with ``engine.py``, which runs the compiled index over record batches; ``entities.py`` reads features and events.
The other modules are uses of it: evaluate, export, overlap, backtest, parity, training sets. May import ``stream`` and
what lies below.
"""
