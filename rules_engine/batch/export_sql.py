"""Write the members of one segment to a table of a SQL database, in one transaction: `segments export --to URL`.

What the last export held is kept in the database too, and changes with the rows: an export that failed leaves nothing
behind and is simply done again, from any machine.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC
from typing import Any

import pyarrow as pa
from sqlalchemy import (
    Column,
    Connection,
    DateTime,
    Engine,
    Integer,
    MetaData,
    String,
    Table,
    create_engine,
    delete,
    insert,
    inspect,
    select,
    update,
)
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, IntegrityError, NoSuchModuleError, SQLAlchemyError

from rules_engine.batch.engine import BatchRules
from rules_engine.batch.export import ENTERED, LEFT, Exported, Progress, members_of, without
from rules_engine.clock import format_instant, from_micros, to_micros
from rules_engine.errors import DataError

#: Rows in one statement.
_CHUNK = 5_000

#: The longest key; MySQL has no index over longer ones.
_KEY_LENGTH = 512

_URLS = "e.g. sqlite:///audiences.db or postgresql+psycopg://user:password@host/database"

#: The tables with what was exported last; one row, and one row for each member, for a table and segment.
STATE, MEMBERS = "feast_segments_exports", "feast_segments_members"


class SqlExports:
    """The exports of a segment to a table. The table may hold several segments.

    Parameters
    ----------
    url
        of the database, as SQLAlchemy has it.
    table
        its name, ``SCHEMA.NAME`` outside the default schema. It is made if it is not there.

    Raises
    ------
    DataError
        if the URL is none, or the driver for it is not installed.
    """

    def __init__(self, segment: str, url: str, table: str) -> None:
        self._segment = segment
        self._url = _parsed(url)
        self._name = table
        self._engine = _engine(self._url)
        self._metadata = MetaData()
        self._state = Table(
            STATE,
            self._metadata,
            Column("table_name", String(128), primary_key=True),
            Column("segment", String(64), primary_key=True),
            Column("export", Integer, nullable=False),
            Column("as_of", DateTime(timezone=True)),
            Column("members", Integer, nullable=False),
        )
        self._members = Table(
            MEMBERS,
            self._metadata,
            Column("table_name", String(128), primary_key=True),
            Column("segment", String(64), primary_key=True),
            Column("entity", String(_KEY_LENGTH), primary_key=True),
        )

    @property
    def shown(self) -> str:
        """Return the table and the database, without a password."""
        return f"{self._name} in {self._url.render_as_string(hide_password=True)}"

    def full(self, rules: BatchRules, as_of: int, progress: Progress = lambda _users, _done: None) -> Exported:
        """Replace the segment's rows by everyone who is in it.

        Readers see the old rows until all new ones are there.

        Raises
        ------
        ProjectError, DataError
            if the offline store cannot be read, the table has other columns, or the database cannot be written.
        """
        table = self._table(rules.key, with_change=False)
        now = pa.concat_arrays([_no_keys(), *members_of(rules, self._segment, as_of, progress)])
        with self._transaction(table) as connection:
            _, number = self._hold(connection)
            connection.execute(delete(table).where(table.c.segment == self._segment))
            self._add(connection, table, now, {rules.key: None, **self._fixed(as_of, number)})
            self._note(connection, as_of, number, len(now))
        return Exported(len(now))

    def changes(self, rules: BatchRules, as_of: int, progress: Progress = lambda _users, _done: None) -> Exported:
        """Add a row for each user who entered or left since the last export to this table; first, everyone enters.

        The members of the last export and of this one are held in memory.

        Raises
        ------
        ProjectError, DataError
            as :meth:`full`; or if the last export is of a later instant.
        """
        table = self._table(rules.key, with_change=True)
        now = pa.concat_arrays([_no_keys(), *members_of(rules, self._segment, as_of, progress)])
        with self._transaction(table) as connection:
            previous, number = self._hold(connection)
            if previous is not None and previous > as_of:
                last = f"the last export of `{self._segment}` to {self.shown} is as of {format_instant(previous)}"
                raise DataError(f"{last}, which is later", hint="name a later instant with --as-of")
            before = self._last(connection)
            entered, left = without(now, before), without(before, now)
            for keys, change in ((entered, ENTERED), (left, LEFT)):
                self._add(connection, table, keys, {rules.key: None, "change": change, **self._fixed(as_of, number)})
            self._follow(connection, entered, left)
            self._note(connection, as_of, number, len(now))
        return Exported(len(now), previous, len(entered), len(left))

    def close(self) -> None:
        """Close the connections."""
        self._engine.dispose()

    # --- steps ------------------------------------------------------------------------------------------------------

    def _table(self, key: str, *, with_change: bool) -> Table:
        schema, _, name = self._name.rpartition(".")
        columns: list[Column[Any]] = [
            Column("segment", String(64), primary_key=True),
            Column(key, String(_KEY_LENGTH), primary_key=True),
            Column("export", Integer, primary_key=with_change, nullable=False),
            Column("as_of", DateTime(timezone=True), nullable=False),
        ]
        if with_change:
            columns.append(Column("change", String(8), nullable=False))
        return Table(name, self._metadata, *columns, schema=schema or None)

    @contextmanager
    def _transaction(self, table: Table) -> Iterator[Connection]:
        try:
            self._check(table)
            self._metadata.create_all(self._engine)
            with self._engine.begin() as connection:
                yield connection
        except IntegrityError as error:
            raise DataError(
                f"cannot write {self.shown}: {error.orig}", hint="does another export write to it at the same time?"
            ) from error
        except SQLAlchemyError as error:
            reason = getattr(error, "orig", None) or error
            hint = "nothing was changed; mend it and export again"
            raise DataError(f"cannot write {self.shown}: {reason}", hint=hint) from error

    def _check(self, table: Table) -> None:
        """Refuse a table that is there already and is another one."""
        inspector = inspect(self._engine)
        if not inspector.has_table(table.name, schema=table.schema):
            return
        existing = {column["name"] for column in inspector.get_columns(table.name, schema=table.schema)}
        expected = {column.name for column in table.columns}
        if existing != expected:
            there, ours = (", ".join(sorted(names)) for names in (existing, expected))
            raise DataError(
                f"{self.shown} has the columns {there}, and the export writes {ours}",
                hint="name another table; full exports and --changes-since-last need one each",
            )

    def _hold(self, connection: Connection) -> tuple[int | None, int]:
        """Keep other exports of the segment out until this one is done; gives the last one's instant, and a number."""
        state, row = self._state, self._row(self._state)
        if not connection.execute(update(state).where(*row).values(members=state.c.members)).rowcount:
            names = {"table_name": self._name, "segment": self._segment}
            connection.execute(insert(state).values(**names, export=0, as_of=None, members=0))
            return None, 1
        at, number = connection.execute(select(state.c.as_of, state.c.export).where(*row)).one()
        # SQLite has no times with a zone, and gives UTC as it was given.
        return (None if at is None else to_micros(at if at.tzinfo else at.replace(tzinfo=UTC))), number + 1

    def _row(self, table: Table) -> tuple[Any, Any]:
        return table.c.table_name == self._name, table.c.segment == self._segment

    def _last(self, connection: Connection) -> pa.Array:
        query = select(self._members.c.entity).where(*self._row(self._members)).execution_options(yield_per=_CHUNK)
        parts = connection.execute(query).scalars().partitions()
        return pa.concat_arrays([_no_keys(), *(pa.array(rows, pa.string()) for rows in parts)])

    def _add(self, connection: Connection, table: Table, keys: pa.Array, row: Mapping[str, Any]) -> None:
        """Insert a row for each key; it stands where the row has none."""
        key = next(name for name, value in row.items() if value is None)
        for some in _chunks(keys):
            connection.execute(insert(table), [{**row, key: entity} for entity in some])

    def _fixed(self, as_of: int, number: int) -> dict[str, Any]:
        return {"segment": self._segment, "as_of": from_micros(as_of), "export": number}

    def _follow(self, connection: Connection, entered: pa.Array, left: pa.Array) -> None:
        """Bring what is remembered of the members up to date."""
        members, fixed = self._members, {"table_name": self._name, "segment": self._segment}
        for some in _chunks(left, _CHUNK // 10):
            connection.execute(delete(members).where(*self._row(members), members.c.entity.in_(some)))
        self._add(connection, members, entered, {**fixed, "entity": None})

    def _note(self, connection: Connection, as_of: int, number: int, members: int) -> None:
        values = {"as_of": from_micros(as_of), "export": number, "members": members}
        connection.execute(update(self._state).where(*self._row(self._state)).values(**values))


def _parsed(url: str) -> URL:
    try:
        return make_url(url)
    except ArgumentError as error:
        raise DataError("what is given with --to is no URL of a database", hint=_URLS) from error


def _engine(url: URL) -> Engine:
    try:
        return create_engine(url)
    except (NoSuchModuleError, ImportError) as error:
        raise DataError(
            f"there is no driver for `{url.drivername}`: {error}", hint="install the driver, e.g. `pip install psycopg`"
        ) from error
    except ArgumentError as error:
        shown = url.render_as_string(hide_password=True)
        raise DataError(f"{shown} is no URL of a database", hint=_URLS) from error


def _chunks(keys: pa.Array, size: int = _CHUNK) -> Iterator[Sequence[str]]:
    for start in range(0, len(keys), size):
        yield keys.slice(start, size).to_pylist()


def _no_keys() -> pa.Array:
    return pa.array([], pa.string())


__all__ = ["MEMBERS", "STATE", "SqlExports"]
