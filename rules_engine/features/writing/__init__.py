"""Features from Arrow columns to the online store, many rows at a time, in Feast's own bytes.

Begin with ``writer.py``; ``arrow_values.py`` makes the bytes of values, ``rows.py`` those of commands.
"""
