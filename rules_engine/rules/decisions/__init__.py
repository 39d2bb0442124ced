"""The decision document: which variant an entity gets. Begin with ``kind.py``; ``choosing.py`` says what it means."""
