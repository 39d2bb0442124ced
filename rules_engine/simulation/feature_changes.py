"""Reads how the features of entities changed from one instant to another, from the offline store."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import TYPE_CHECKING, Any

from rules_engine.errors import UnsupportedError
from rules_engine.features.column_values import as_declared
from rules_engine.features.offline import newest
from rules_engine.features.offline.history import Instants, OfflineHistory, newest_by_step, read_table
from rules_engine.features.offline.parquet import unreadable
from rules_engine.features.online.selection import EntityFeatures
from rules_engine.rules.types import Value
from rules_engine.targets.columns.arrays import micros, python_value

if TYPE_CHECKING:
    from rules_engine.features.feast.repo import FeastRepo

_MEMORY_LIMIT = "500MB"


@dataclass(frozen=True, slots=True)
class FeatureChange:
    """Holds the features of an entity from an instant on.

    Attributes
    ----------
    at
        the instant, in microseconds: that of a row, or the start.
    views
        the feature views that changed.
    """

    at: int
    features: EntityFeatures
    views: frozenset[str]


#: A row of a view: its instant, the view, and the values by feature.
_Row = tuple[int, str, dict[str, Value]]


class FeatureChanges(OfflineHistory):
    """Reads the features of entities over time: a row counts from its event timestamp on, until its view's ttl ends.

    Parameters
    ----------
    repo
        the project's open Feast repository.
    features
        what is read, ``"view:name"``.

    Raises
    ------
    UnsupportedError
        if the rows of a view lie elsewhere than in a file on this machine, or DuckDB is not installed.
    """

    def __init__(self, repo: FeastRepo, features: Collection[str]) -> None:
        super().__init__(repo, features)
        if not self.is_available:
            raise UnsupportedError(
                "features as they were at each instant are read from Parquet files on this machine, by DuckDB",
                hint="pip install 'feast-segments[duckdb]' if the sources are files; or give --no-features",
            )

    def entities(self, as_of: int) -> Iterator[str]:
        """Yield the keys of all entities that have a row in any view by an instant."""
        for part in OfflineHistory(self._repo, ()).batches(as_of):
            yield from part.batch.column(self.key).to_pylist()

    def read(self, entities: Collection[str], start: int, end: int) -> dict[str, list[FeatureChange]]:
        """Return by entity its features at the start, and each change until the end; without a row it is absent.

        Raises
        ------
        ProjectError
            if the offline store cannot be read.
        DataError
            if a column is not of the type that the feature declares.
        """
        import pyarrow as pa

        instants = Instants(start, 1, end - start + 1)
        sources = [source for source in self._opened() if source is not None]
        rows: dict[str, list[_Row]] = {}
        try:
            with newest.database(self._repo.project.state_dir, _MEMORY_LIMIT) as connection:
                connection.register("wanted", pa.table({"entity": pa.array(list(entities), pa.large_string())}))
                which = "entity IN (SELECT entity FROM wanted)"
                for source in sources:
                    table = read_table(connection, newest_by_step(source, instants, which))
                    for entity, row in self._rows(table, source.columns):
                        rows.setdefault(entity, []).append(row)
        except newest.read_errors() as error:
            raise unreadable(sources, error) from error
        return {entity: list(self._changes(entity, some, start)) for entity, some in rows.items()}

    def _rows(self, table: Any, columns: Any) -> Iterator[tuple[str, _Row]]:
        declared = {
            name: as_declared(table[f"c{number}"].combine_chunks(), name, self.types[name])
            for number, name in enumerate(columns.features)
        }
        instants = micros(table["instant"].combine_chunks())
        for place, entity in enumerate(table["entity"].to_pylist()):
            plain = {name: python_value(column[place]) for name, column in declared.items()}
            values = {
                name: tuple(value) if isinstance(value, list) else value
                for name, value in plain.items()
                if value is not None
            }
            yield entity, (int(instants[place]), columns.view, values)

    def _changes(self, entity: str, rows: Sequence[_Row], start: int) -> Iterator[FeatureChange]:
        """Put the rows of all views together: each instant has the newest row of every view."""
        newest: dict[str, tuple[int, Mapping[str, Value]]] = {}
        by_instant: dict[int, list[_Row]] = {}
        for row in sorted(rows, key=itemgetter(0)):
            by_instant.setdefault(max(start, row[0]), []).append(row)
        for at, some in by_instant.items():
            newest.update({view: (instant, values) for instant, view, values in some})
            features = EntityFeatures(
                entity,
                {name: value for _, values in newest.values() for name, value in values.items()},
                {view: instant for view, (instant, _) in newest.items()},
                {view: instant + self.ttl[view] + 1 for view, (instant, _) in newest.items() if view in self.ttl},
            )
            yield FeatureChange(at, features, frozenset(view for _, view, _ in some))
