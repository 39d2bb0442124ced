"""Clusters: groups of entities that are alike, found by an algorithm and named for people.

``definition.py`` is what clusters.yaml says, ``preparation/`` makes features comparable, ``algorithms/`` find groups,
``fitting.py`` chooses among them, ``refit.py`` keeps numbers and names, ``labelling/`` gives everyone a label,
``reporting/`` draws. Begin with ``project.py``, which does what the commands ask for.
"""
