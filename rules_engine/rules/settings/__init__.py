"""The settings of a project: the instant that counts as now, the consents, and the sinks that actions go to.

Begin with ``nodes.py`` and ``parse.py``.
"""
