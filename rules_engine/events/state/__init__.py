"""The event state of an entity: the least that answers every loaded definition as the whole log would.

Begin with ``entity_state.py`` and ``requirements.py``; ``reading.py`` answers from it, ``encoding.py`` makes its bytes.
"""
