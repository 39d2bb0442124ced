"""The document ``group:``, of whose segments everybody is in the first that holds. Begin with ``kind.py``."""
