"""Options and output that several commands share.

Begin with ``output.py``: tables, colours, errors and progress.
"""
