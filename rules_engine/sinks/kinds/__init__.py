"""The kinds of sinks, a module each, named like the kind.

Begin with ``file.py``, the shortest. A new module is found without being listed anywhere.
"""
