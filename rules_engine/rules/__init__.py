"""The language: types, operators, the syntax tree, its checks, and its meaning.

Begin with ``operators.py`` and ``nodes.py``; ``evaluate.py`` defines what every target has to answer, ``parsing/``
makes trees from YAML, ``triggers/`` is the trigger document. Knows no store and no library of data.
"""
