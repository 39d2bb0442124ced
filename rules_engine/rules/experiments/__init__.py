"""The experiment document. Begin with ``kind.py``; how its arms are chosen is in ``rules/decisions/choosing.py``."""
