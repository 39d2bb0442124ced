"""Find who is in which segment, of all entities, as of an instant: `segments evaluate`."""

from __future__ import annotations

from pathlib import Path

from rules_engine.batch import membership_files
from rules_engine.batch.engine import BatchRules, Progress, Sizes


def evaluate(
    rules: BatchRules,
    as_of: int,
    out: Path | None = None,
    *,
    as_matrix: bool = False,
    csv_formulas: bool = False,
    progress: Progress = lambda _users, _done: None,
) -> Sizes:
    """Evaluate all users, in bounded memory, and count them.

    Parameters
    ----------
    rules
        the segments; to write a matrix, made with ``unknown``.
    as_of
        the instant, in microseconds.
    out
        a file to write the answers to; its ending is its format.
    as_matrix
        write a row for each user with a column for each segment; else a row for each user and segment of theirs.
    csv_formulas
        write keys into CSV as they are, even if a spreadsheet would take them for formulas.

    Raises
    ------
    ProjectError, DataError
        if the offline store cannot be read, or the file cannot be written.
    """
    if out is None:
        return rules.sizes(as_of, progress)
    sizes = Sizes.none(rules.names, unknown=rules.unknown)
    rows = membership_files.matrix if as_matrix else membership_files.pairs
    schema = (
        membership_files.matrix_schema(rules.key, rules.names)
        if as_matrix
        else membership_files.pairs_schema(rules.key)
    )
    with membership_files.TableFile(out, schema, csv_formulas=csv_formulas) as file:
        for answered in rules.answers(as_of):
            sizes.add(answered.sizes())
            progress(sizes.users, answered.done)
            file.write(rows(answered, rules.names, schema))
    return sizes
