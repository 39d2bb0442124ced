"""Propensity models: how likely a user is to do something within a horizon, learned from the past, point in time.

:mod:`definition` is what ``feature_repo/models.yaml`` says, :mod:`training` builds training sets out of Feast,
:mod:`fit` searches and judges, :mod:`model` is what is stored, :mod:`scorer` scores one user without any heavy library,
:mod:`batch` everyone, :mod:`attach` brings the scores into both stores.
"""
