"""Every way to answer all rules at once; each gives the answers of ``rules/evaluate.py``, or refuses.

``index/`` answers for one entity, ``columns/`` for record batches, ``stepwise/`` answers with the next instant at which
each changes, ``sql/`` writes a query. ``scorer.py`` computes propensity scores at request time. Begin with
``index/rule_index.py``. May import ``features`` and what lies below.
"""
