"""Features that are learned: clusters of entities and propensity scores.

``clusters/`` and ``propensity/`` fit, judge and attach; ``versions/`` keeps what was fitted; ``transforms/`` holds
formulas such as RFM classes; ``report/`` draws pages. Begin with ``clusters/definition.py`` and
``clusters/fitting.py``. May import ``batch`` and what lies below. Only batch code runs here: what scores a request is
``targets/scorer.py``.
"""
