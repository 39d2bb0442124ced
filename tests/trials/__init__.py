"""Random projects, driven as users drive them, whose answers must agree wherever they are asked.

``python -m tests.trials --projects 20`` draws projects: feature views over columns of many types, events in files of
one row to many thousands, in any order and in several batches, definitions that are applied before, between and after
them. Each is applied, materialized and filled by the commands. Then these are compared, entity by entity and segment by
segment: lookups, batch evaluation, the plain evaluator over all that the project was made of, the SQL target, the sizes
that a backtest counts, and ``changes_at`` just before, at, and at instants before the change.

``tests/e2e/test_trials.py`` runs two small projects; a long run is for whoever changes how answers come about.
"""
