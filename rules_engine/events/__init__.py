"""Events: declarations and validation, the state that the online store keeps, and the offline log.

``declarations/`` is ``events.yaml``, ``state/`` what is kept of an entity's events so that every rule is answered as
over the whole log, ``log/`` the log on disk. Begin with ``declarations/events_yaml.py`` and ``state/entity_state.py``.
May import ``redis`` and what lies below.
"""
