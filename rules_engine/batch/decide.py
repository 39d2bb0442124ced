"""Find which variant of a decision everybody gets, as of an instant: `segments evaluate --decision`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from rules_engine.batch.engine import Answered, BatchRules, Progress
from rules_engine.batch.membership_files import TableFile
from rules_engine.features.feast.repo import FeastRepo
from rules_engine.rules.decisions.cells import Cell, cells_of, with_cells
from rules_engine.rules.decisions.choosing import Chooser
from rules_engine.rules.program import Program


class BatchDecision:
    """Decides for all entities of a project as of an instant, from the offline store and the event log.

    Parameters
    ----------
    repo
        the project's open Feast repository.
    program
        the segments.
    chooser
        the decision.
    as_of
        the instant, in microseconds.
    context
        what a request would bring, the same for every entity.

    Raises
    ------
    UnsupportedError
        if an experiment that runs divides by version 1 of the hash.
    UnknownNameError
        if a rule reads a feature that the Feast repository does not have.
    """

    def __init__(
        self,
        repo: FeastRepo,
        program: Program,
        chooser: Chooser,
        as_of: int,
        context: Mapping[str, Any] | None = None,
    ) -> None:
        self._cells = cells_of(chooser, as_of)
        self._decision = chooser.decision
        self._as_of = as_of
        names = [cell.name for cell in self._cells]
        self._rules = BatchRules(repo, with_cells(program, self._cells), names, context)

    def variants(self, progress: Progress = lambda _users, _done: None) -> Iterator[pa.RecordBatch]:
        """Yield the keys and variants of entities, some at a time.

        Raises
        ------
        ProjectError, DataError
            if the offline store or the event log cannot be read.
        """
        users = 0
        for answered in self._rules.answers(self._as_of):
            users += len(answered.entities)
            progress(users, answered.done)
            variants = variants_of(self._cells, self._decision.default, answered)
            columns = [answered.entities.cast(pa.string()), pa.array(variants, pa.string())]
            yield pa.record_batch(columns, schema=self.schema)

    @property
    def schema(self) -> pa.Schema:
        """Return the columns: the key, and the decision's name."""
        return pa.schema([(self._rules.key, pa.string()), (self._decision.name, pa.string())])

    def count(
        self, out: Path | None = None, *, csv_formulas: bool = False, progress: Progress = lambda _users, _done: None
    ) -> dict[str, int]:
        """Count who gets which variant, and write a row for each entity into a file.

        Raises
        ------
        ProjectError, DataError
            if the offline store or the event log cannot be read, or the file cannot be written.
        """
        counts = Counter({variant.name: 0 for variant in self._decision.variants})
        if out is None:
            for batch in self.variants(progress):
                _add(counts, batch)
            return dict(counts)
        with TableFile(out, self.schema, csv_formulas=csv_formulas) as file:
            for batch in self.variants(progress):
                _add(counts, batch)
                file.write(batch)
        return dict(counts)


def variants_of(cells: Sequence[Cell], default: str, answered: Answered) -> Any:
    """Return the variant of each entity that was answered for, as an array: that of the first cell that holds."""
    names = np.array([*(cell.variant for cell in cells), default], dtype=object)
    first = np.full(len(answered.entities), len(cells))
    for position in reversed(range(len(cells))):
        first[answered.members(cells[position].name)] = position
    return names[first]


def _add(counts: Counter[str], batch: pa.RecordBatch) -> None:
    for row in batch.column(1).value_counts().to_pylist():
        counts[row["values"]] += row["counts"]
