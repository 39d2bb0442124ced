"""From the files of a project to what is in effect.

Checks and lints definitions, plans the stages of an ``apply`` and walks them, rebuilds event states, materializes
features and memberships. Begin with ``stages.py`` and ``apply.py``. May import everything below, down from ``ml``.
"""
