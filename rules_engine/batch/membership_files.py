"""Files of users and their segments: Parquet, CSV or JSON lines, written as answers come, put in place whole."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq

from rules_engine.batch.engine import Answered
from rules_engine.errors import DataError

#: What makes a spreadsheet compute a cell instead of showing it.
_FORMULA = r"^[=+\-@\t\r]"

#: What a file's name may end in.
ENDINGS = (".parquet", ".csv", ".jsonl")


class TableFile:
    """A file that rows are added to. It appears, complete, when the ``with`` block ends without an error.

    Parameters
    ----------
    path
        the file; its ending is the format.
    schema
        the columns.
    csv_formulas
        write texts into CSV as they are. By default one that a spreadsheet would take for a formula (it begins with
        ``=``, ``+``, ``-``, ``@``, a tab or a carriage return) gets a ``'`` in front, which spreadsheets do not show.

    Raises
    ------
    DataError
        if the name has another ending than one of ``ENDINGS``, or the file cannot be written.
    """

    def __init__(self, path: Path, schema: pa.Schema, *, csv_formulas: bool = False) -> None:
        if path.suffix not in ENDINGS:
            raise DataError(
                f"{path} has the ending `{path.suffix}`, which names no format",
                hint=f"use one of {', '.join(ENDINGS)}",
            )
        self._path = path
        self._disarms = path.suffix == ".csv" and not csv_formulas
        self.schema = schema
        self.rows = 0

    def __enter__(self) -> Self:
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.NamedTemporaryFile(
                prefix=f".{self._path.name}.", dir=self._path.parent, delete=False
            ) as file:
                self._partial = Path(file.name)
            self._partial.chmod(0o644)
            self._writer = _WRITERS[self._path.suffix](self._partial, self.schema)
        except OSError as error:
            raise self._refused(error) from error
        return self

    def write(self, batch: pa.RecordBatch) -> None:
        """Add rows, with the columns of the schema."""
        try:
            self._writer.write_batch(_disarmed(batch) if self._disarms else batch)
        except OSError as error:
            raise self._refused(error) from error
        self.rows += batch.num_rows

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._writer.close()
            if kind is None:
                self._partial.replace(self._path)
        except OSError as failed:
            raise self._refused(failed) from failed
        finally:
            self._partial.unlink(missing_ok=True)

    def _refused(self, error: OSError) -> DataError:
        return DataError(f"cannot write {self._path}: {error.strerror or error}", hint="is the folder writable?")


def _disarmed(batch: pa.RecordBatch) -> pa.RecordBatch:
    def safe(column: pa.Array) -> pa.Array:
        if not pa.types.is_string(column.type):
            return column
        quoted = pc.binary_join_element_wise(pa.scalar("'"), column, pa.scalar(""))
        return pc.if_else(pc.match_substring_regex(column, _FORMULA), quoted, column)

    return pa.record_batch([safe(column) for column in batch.columns], schema=batch.schema)


class _JsonLines:
    def __init__(self, path: Path, schema: pa.Schema) -> None:  # noqa: ARG002  # as Arrow's writers
        self._file = path.open("wb")

    def write_batch(self, batch: pa.RecordBatch) -> None:
        self._file.writelines(orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE) for row in batch.to_pylist())

    def close(self) -> None:
        self._file.close()


_WRITERS: dict[str, Any] = {
    ".parquet": lambda path, schema: pq.ParquetWriter(path, schema, compression="zstd"),
    ".csv": pa.csv.CSVWriter,
    ".jsonl": _JsonLines,
}


def pairs_schema(key: str) -> pa.Schema:
    """Return a row for each user and segment that the user is in."""
    return pa.schema([(key, pa.string()), ("segment", pa.string())])


def pairs(answered: Answered, names: Sequence[str], schema: pa.Schema) -> pa.RecordBatch:
    """Return the rows of :func:`pairs_schema` for some users."""
    flags = np.zeros((len(answered.entities), len(names)), dtype=np.bool_)
    for position, name in enumerate(names):
        flags[:, position] = answered.members(name)
    rows, positions = np.nonzero(flags)
    entities = answered.entities.take(pa.array(rows)).cast(pa.string())
    return pa.record_batch([entities, pa.array(names, pa.string()).take(pa.array(positions))], schema=schema)


def matrix_schema(key: str, names: Iterable[str]) -> pa.Schema:
    """Make a row for each entity, with a column for each segment: true, false, or null for unknown."""
    return pa.schema([(key, pa.string()), *((name, pa.bool_()) for name in names)])


def matrix(answered: Answered, names: Sequence[str], schema: pa.Schema) -> pa.RecordBatch:
    """Return the rows of :func:`matrix_schema` for some users."""
    truths = [answered.truths(name) for name in names]
    return pa.record_batch([answered.entities.cast(pa.string()), *truths], schema=schema)
