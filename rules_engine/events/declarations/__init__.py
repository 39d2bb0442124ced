"""``events.yaml``: which events there are, what they carry, and how one is checked.

Begin with ``events_yaml.py`` and ``validation.py``.
"""
