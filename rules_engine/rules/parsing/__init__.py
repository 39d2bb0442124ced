"""Conditions from YAML to their tree: every name resolved, every literal checked.

Begin with ``conditions.py``.
"""
