"""Compares the lists of a project with what was imported of them, and imports what changed.

Who is on a list is a feature (:mod:`rules_engine.features.feast.list_view`), so that lookups read it in their one round
trip, batch and training sets read it as of any instant, and SQL joins it. Keys go through files, and are compared by
DuckDB, which moves what does not fit into memory to disk.
"""

# ruff: noqa: S608  # whatever stands in the SQL is a quoted name or text, or a number

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from rules_engine.clock import format_instant
from rules_engine.deploy.lists.changes import ListChange
from rules_engine.deploy.lists.reading import read_keys
from rules_engine.diagnostics import Diagnostic
from rules_engine.errors import DataError, DefinitionError, MissingExtraError
from rules_engine.features.feast.list_view import STAMP, data_file
from rules_engine.features.feast.repo import FeastRepo
from rules_engine.features.offline.newest import database, has_duckdb
from rules_engine.features.offline.source_file import text
from rules_engine.rules.nodes import Segment

#: How much memory the comparison takes; what is more goes to disk.
_MEMORY = "256MB"


def list_segments(segments: Mapping[str, Segment]) -> dict[str, Segment]:
    """Return the segments that are lists, by name."""
    return {name: segments[name] for name in sorted(segments) if segments[name].list is not None}


def compare(
    project_root: Path, repo: FeastRepo, lists: Mapping[str, Segment], instant: int, *, write: bool = False
) -> tuple[ListChange, ...]:
    """Return how the lists differ from what was imported; with ``write``, import them as of an instant.

    Importing replaces the file of rows in one step. Every key is checked before.

    Raises
    ------
    DefinitionError
        with every list that cannot be read, or has a key that is none.
    DataError
        if lists were imported as of a later instant, or of the same one and others.
    MissingExtraError
        if DuckDB is not installed.
    """
    with _opened(repo) as connection, tempfile.TemporaryDirectory(prefix="lists-", dir=repo.project.state_dir) as spool:
        rows = _spool(project_root, lists, repo.entity().join_key, Path(spool))
        comparison = _Comparison(connection, data_file(repo.project), tuple(lists), repo.entity().join_key)
        comparison.read(Path(spool))
        changes = comparison.changes(lists, rows)
        if write:
            comparison.write(instant, any(change.joins or change.leaves for change in changes))
    return changes


def shape(repo: FeastRepo, names: Sequence[str]) -> None:
    """Give the file of rows a column for each of some lists, and no other; nobody joins or leaves.

    Raises
    ------
    MissingExtraError
        if DuckDB is not installed.
    """
    with _opened(repo) as connection:
        _Comparison(connection, data_file(repo.project), tuple(names), repo.entity().join_key).shape()


@contextmanager
def _opened(repo: FeastRepo) -> Iterator[Any]:
    if not has_duckdb():
        raise MissingExtraError("duckdb", "duckdb", "importing lists")
    with database(repo.project.state_dir, _MEMORY) as connection:
        yield connection


def _spool(project_root: Path, lists: Mapping[str, Segment], join_key: str, folder: Path) -> list[int]:
    """Write the checked keys of each list to a file, and return how many rows each has."""
    problems: list[Diagnostic] = []
    rows = []
    schema = pa.schema([("key", pa.large_string())])
    for number, segment in enumerate(lists.values()):
        assert segment.list is not None
        count = 0
        with pq.ParquetWriter(folder / f"{number}.parquet", schema) as writer:
            try:
                for keys in read_keys(project_root, segment.list, join_key):
                    writer.write_batch(pa.record_batch([keys], schema=schema))
                    count += len(keys)
            except DefinitionError as error:
                problems += error.diagnostics
        rows.append(count)
    if problems:
        raise DefinitionError(problems)
    return rows


class _Comparison:
    """The rows that were imported, beside the keys that the files have now."""

    def __init__(self, connection: Any, path: Path, names: tuple[str, ...], join_key: str) -> None:
        self._connection = connection
        self._path = path
        self._names = names
        self._key = _name(join_key)
        self._imported = _imported_names(path)

    def read(self, folder: Path) -> None:
        """Make the table ``compared``: by key, whether it was on each list, and whether it is now; null is no."""
        run = self._connection.execute
        keys = " UNION ALL ".join(
            f"SELECT key, {number} AS list FROM read_parquet({text(str(folder / f'{number}.parquet'))})"
            for number in range(len(self._names))
        )
        now = ", ".join(
            f"CASE WHEN bool_or(list = {number}) THEN true END AS is_{number}" for number in range(len(self._names))
        )
        run(f"CREATE VIEW imported AS {self._rows()}")
        before = ", ".join(f"{self._column(name)} AS was_{number}" for number, name in enumerate(self._names))
        newest = f"row_number() OVER (PARTITION BY {self._key} ORDER BY {STAMP} DESC) = 1"
        run(f"CREATE TABLE old AS SELECT {self._key} AS key, {before} FROM imported QUALIFY {newest}")
        run(f"CREATE TABLE new AS SELECT key, {now} FROM ({keys}) GROUP BY key")
        run("CREATE TABLE compared AS SELECT * FROM old FULL JOIN new USING (key)")
        run("DROP TABLE old; DROP TABLE new")

    def changes(self, lists: Mapping[str, Segment], rows: list[int]) -> tuple[ListChange, ...]:
        """Count the members of each list, those that join, and those that leave."""
        counts = ", ".join(
            f"count(is_{n}), count(*) FILTER (is_{n} AND was_{n} IS NULL), count(*) FILTER (was_{n} AND is_{n} IS NULL)"
            for n in range(len(self._names))
        )
        counted = self._connection.execute(f"SELECT {counts} FROM compared").fetchone()
        result = []
        for number, (name, segment) in enumerate(lists.items()):
            size, joins, leaves = counted[3 * number : 3 * number + 3]
            assert segment.list is not None
            result.append(ListChange(name, segment.list.file, size, joins, leaves, rows[number] - size))
        return tuple(result)

    def write(self, instant: int, changed: bool) -> None:
        """Write the file of rows anew: with the present lists as columns, and a row for whoever joins or leaves one."""
        at = f"make_timestamptz({instant})"
        latest = self._connection.execute(f"SELECT epoch_us(max({STAMP})) FROM imported").fetchone()[0]
        if changed and latest is not None and latest >= instant:
            raise DataError(
                f"lists were imported as of {format_instant(latest)}, and this is {format_instant(instant)}",
                hint="set a later `now:` in the `project:` document: a list that changes needs a later instant",
            )
        added = ", ".join(f"is_{number} AS {_name(name)}" for number, name in enumerate(self._names))
        differs = " OR ".join(f"is_{number} IS DISTINCT FROM was_{number}" for number in range(len(self._names)))
        self._replace(f"{self._kept()} UNION ALL SELECT key, {at}, {added} FROM compared WHERE {differs}")

    def shape(self) -> None:
        """Write the file of rows anew, with the present lists as columns and no further row."""
        self._connection.execute(f"CREATE VIEW imported AS {self._rows()}")
        self._replace(self._kept())

    def _kept(self) -> str:
        columns = ", ".join(f"{self._column(name)} AS {_name(name)}" for name in self._names)
        return f"SELECT {self._key}, {STAMP}, {columns} FROM imported"

    def _replace(self, rows: str) -> None:
        partial = self._path.with_suffix(".partial")
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._connection.execute(f"COPY ({rows}) TO {text(str(partial))} (FORMAT parquet, COMPRESSION zstd)")
        partial.replace(self._path)

    def _rows(self) -> str:
        if self._path.is_file():
            return f"SELECT * FROM read_parquet({text(str(self._path))})"
        return f"SELECT NULL::VARCHAR AS {self._key}, NULL::TIMESTAMPTZ AS {STAMP} WHERE false"

    def _column(self, name: str) -> str:
        return _name(name) if name in self._imported else "NULL::BOOLEAN"


def _imported_names(path: Path) -> set[str]:
    return set(pq.read_schema(path).names) if path.is_file() else set()


def _name(name: str) -> str:
    """Return a column's name as SQL has it."""
    return '"' + name.replace('"', '""') + '"'
