"""Keep what a project has on disk: its catalog of features and events, versions of definitions, and the lock.

Begin with ``catalog.py``. May import ``sdk`` and what lies below. Where the files lie is ``rules_engine/folders.py``.
"""
