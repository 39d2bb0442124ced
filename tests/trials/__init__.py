"""Random projects, driven as users drive them, whose answers must agree wherever they are asked.

``python -m tests.trials --projects 20`` draws projects: feature views over columns of every type that the table of
types takes, with rows that tie, rows without a key, and corrections; one event to 200,000 in files of every kind, in
any order and in several batches, with many thousands of one entity; segments and triggers that are applied before,
between and after them. Each project is applied, materialized and filled by the commands. Then these are compared,
entity by entity and segment by segment: lookups, batch evaluation, the plain evaluator over all that the project was
made of, the SQL target, the sizes that a backtest counts, ``changes_at`` just before, at, and at instants before the
change, and what ``simulate`` says of memberships and, against brute force, of triggers.

Where more events came than are kept for a condition, lookups may say unknown; such answers are counted apart.
``tests/e2e/test_trials.py`` runs two small projects; a long run is for whoever changes how answers come about.
"""
