"""Warnings of `segments validate`: definitions that are accepted and work, but hardly as somebody meant them.

Begin with ``warnings.py``, which lists the modules: one for each kind of document.
"""
