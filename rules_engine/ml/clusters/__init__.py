"""Clusters: groups of entities that are alike, found by an algorithm and named for people.

Begin with ``definition.py`` (what ``clusters.yaml`` says), ``fitting.py`` and ``refit.py``.
"""
