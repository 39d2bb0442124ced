"""Keep versions of what was fitted: clusters and models alike, in one store with one way to promote and roll back.

Begin with ``store.py``. ``kinds.py`` says what a kept thing has to offer, ``history.py`` remembers what was promoted,
``layout.py`` takes over what earlier releases wrote. May import ``project`` and what lies below.
"""
