"""YAML text to data with source positions, and the shapes of the documents that files hold.

Begin with ``source.py``.
"""
