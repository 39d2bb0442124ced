"""Features of one entity or of many, read in one round trip to the online store.

Begin with ``reader.py`` and ``selection.py``.
"""
