"""The metric document: what is measured of the entities in an experiment. Begin with ``kind.py``."""
