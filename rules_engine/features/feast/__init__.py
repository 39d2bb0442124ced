"""A project's Feast repository: loaded, checked, applied, and written through Feast.

Begin with ``repo.py``.
"""
