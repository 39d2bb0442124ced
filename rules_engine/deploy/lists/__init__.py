"""Lists of members: files are read and checked, compared with what was imported, and imported by `segments apply`.

Begin with ``importing.py``.
"""
