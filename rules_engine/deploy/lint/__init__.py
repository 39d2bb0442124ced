"""Warnings of `segments validate`: definitions that are accepted and work, but hardly as somebody meant them.

One module for each kind of document, listed in :mod:`rules_engine.deploy.lint.warnings`.
"""
