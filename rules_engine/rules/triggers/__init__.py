"""The trigger document. Begin with ``nodes.py`` and ``parse.py``."""
