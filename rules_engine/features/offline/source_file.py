"""Open the Parquet file behind a feature view, and check that it holds what the view declares.

Everything that reads such a file begins here: batch commands, materialize, training sets, and the checks of `validate`
and `apply`. So a column that is missing, or of a type that cannot be used, has one message everywhere.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from rules_engine.diagnostics import nearest
from rules_engine.errors import FeatureColumnError, ProjectError
from rules_engine.features.column_types import (
    Family,
    family,
    is_accepted,
    refused_instants,
    refused_key,
)
from rules_engine.features.column_values import as_declared, entity_keys
from rules_engine.features.offline.view_columns import ViewColumns

_KEYS = (Family.TEXT, Family.INTEGER, Family.FLOAT, Family.DECIMAL)
_INSTANTS = (Family.TIMESTAMP, Family.DATE)

#: Rows that are looked at together.
_ROWS = 65_536

#: A row group is read a piece at a time, in so many bytes; its columns as a whole can take hundreds of megabytes.
BUFFER = 65_536


@dataclass(frozen=True, eq=False, slots=True)
class SourceFile:
    """Reads one Parquet file on this machine, whose columns of keys and timestamps are usable.

    Attributes
    ----------
    path
        the file.
    columns
        where in it a view's columns lie.
    schema
        the types of its columns.
    rows
        how many rows it has.
    """

    path: Path
    columns: ViewColumns
    schema: pa.Schema
    rows: int

    @classmethod
    def open(cls, path: Path, columns: ViewColumns) -> SourceFile:
        """Open a file.

        Raises
        ------
        ProjectError
            if it is no Parquet file, or has not the columns that make a row: key, timestamp, and the created timestamp
            if the view's source names one.
        DataError
            if these columns cannot be used.
        """
        try:
            with pq.ParquetFile(path) as file:
                schema, rows = file.schema_arrow, file.metadata.num_rows
        except FileNotFoundError as error:
            raise unreadable(columns.view, path, "there is no such file") from error
        except (OSError, pa.ArrowException) as error:
            raise unreadable(columns.view, path, str(error)) from error
        opened = cls(path, columns, schema, rows)
        for name in (columns.key, columns.timestamp, columns.created):
            if name is not None and name not in schema.names:
                raise opened._lacks(name)
        opened._check_rows()
        return opened

    def check_features(self, types: dict[str, str]) -> Iterator[FeatureColumnError]:
        """Give an error for each feature whose column is missing, or of a type that cannot give its values.

        Parameters
        ----------
        types
            by ``"view:name"`` the declared type.
        """
        for feature, column in self.columns.features.items():
            if column not in self.schema.names:
                yield self._lacks_feature(feature, column)
            elif not is_accepted(self.schema.field(column).type, types[feature]):
                try:  # a column that nobody has may be of any type
                    for values in self.values(column):
                        as_declared(values, feature, types[feature])
                except FeatureColumnError as error:
                    yield error

    def require(self, features: dict[str, str]) -> None:
        """Refuse features whose columns the file does not have.

        Raises
        ------
        FeatureColumnError
            for the first of them.
        """
        for feature, column in features.items():
            if column not in self.schema.names:
                raise self._lacks_feature(feature, column)

    def values(self, column: str) -> Iterator[pa.Array]:
        """Read one column, some rows at a time."""
        with pq.ParquetFile(self.path, buffer_size=BUFFER) as file:
            for batch in file.iter_batches(_ROWS, columns=[column]):
                yield batch.column(0)

    # --- in SQL -----------------------------------------------------------------------------------------------------

    @property
    def sql(self) -> str:
        """Return the file as a table in DuckDB's SQL, with the number of each row as ``file_row_number``."""
        return f"read_parquet({text(str(self.path))}, file_row_number = true, hive_partitioning = false)"

    @property
    def entity_sql(self) -> str:
        """Return the SQL of a row's key as a text, as :func:`entity_keys` gives it."""
        kind, name = family(self.schema.field(self.columns.key).type), quoted(self.columns.key)
        if kind is Family.FLOAT:
            return f"CASE WHEN isfinite({name}) THEN CAST(CAST({name} AS BIGINT) AS VARCHAR) END"
        if kind is Family.DECIMAL:
            return f"CAST(CAST({name} AS BIGINT) AS VARCHAR)"
        return f"CAST({name} AS VARCHAR)"

    @property
    def instant_sql(self) -> str:
        """Return the SQL of a row's event timestamp, in microseconds."""
        return self._instant_sql(self.columns.timestamp)

    @property
    def created_sql(self) -> str | None:
        """Return the SQL of a row's creation timestamp, in microseconds; None if the source has no such column."""
        return None if self.columns.created is None else self._instant_sql(self.columns.created)

    def _instant_sql(self, name: str) -> str:
        return f"epoch_us(CAST({quoted(name)} AS TIMESTAMP))"

    # --- checks -----------------------------------------------------------------------------------------------------

    def _check_rows(self) -> None:
        columns = self.columns
        key = self.schema.field(columns.key).type
        if family(key) not in _KEYS:
            raise refused_key(key, columns.key)
        if family(key) in (Family.FLOAT, Family.DECIMAL):
            for values in self.values(columns.key):
                entity_keys(values, columns.key)
        for name in (columns.timestamp, columns.created):
            if name is not None and family(self.schema.field(name).type) not in _INSTANTS:
                raise refused_instants(self.schema.field(name).type, name)

    def _lacks(self, column: str) -> ProjectError:
        hint = nearest(column, self.schema.names) or f"its columns are {', '.join(self.schema.names)}"
        reader = f"which feature view `{self.columns.view}` reads"
        return ProjectError(f"{self.path} has no column `{column}`, {reader}", hint=hint)

    def _lacks_feature(self, feature: str, column: str) -> FeatureColumnError:
        hint = nearest(column, self.schema.names) or f"its columns are {', '.join(self.schema.names)}"
        return FeatureColumnError(f"{self.path} has no column `{column}`, which is feature `{feature}`", feature, hint)


def unreadable(view: str, path: object, reason: str) -> ProjectError:
    """Make the error for a source that cannot be read at all; of a reason of several lines the first is told."""
    return ProjectError(
        f"the source of feature view `{view}` cannot be read: {path}: {reason.strip().splitlines()[0]}",
        hint="is it a whole Parquet file? write it anew",
    )


def quoted(name: str) -> str:
    """Write a name in SQL.

    >>> quoted('a"b')
    '"a""b"'
    """
    return '"' + name.replace('"', '""') + '"'


def text(value: str) -> str:
    """Write a text in SQL.

    >>> text("it's")
    "'it''s'"
    """
    return "'" + value.replace("'", "''") + "'"


__all__ = ["BUFFER", "SourceFile", "quoted", "text", "unreadable"]
