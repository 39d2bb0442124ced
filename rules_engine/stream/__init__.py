"""Events as they come, from a file, a client or Kafka, to transitions and fired triggers.

Begin with ``worker.py``: it takes events in (``intake.py``), takes entities through their steps (``entity_steps.py``),
looks at all entities when that is requested (``sweeper.py``), and publishes (``publishing.py``). Files are read in
``files/``. What all of it rests on: leases, timers, the compare-and-set of ``commit.py``, and the ledger. May import
``delivery`` and what lies below.
"""
