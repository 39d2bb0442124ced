"""The compiled rule index over columns: answers for a whole record batch at once.

Begin with ``column_index.py``.
"""
