"""Propensity models: how likely a user is to do something within a horizon, learned from the past, point in time.

Begin with ``definition.py``, which is what ``models.yaml`` in a Feast repository says, and ``fit.py``, which searches
and validates. ``training.py`` builds training sets out of Feast, ``model.py`` is what is stored, ``batch.py`` scores
all entities as ``targets/scorer.py`` scores one, ``attach.py`` brings the scores into both stores.
"""
