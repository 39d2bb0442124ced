"""The same rules, run as SQL by Spark. Begin with ``engine.py``."""
