"""Rules for everybody on Spark: the SQL target's query, over the feature views' sources and the event log.

Spark reads what Feast's sources name: Parquet files, and with Feast's Spark offline store tables, queries and paths.
The answers are those of :mod:`rules_engine.batch.engine`.
"""

# ruff: noqa: S608  # whatever stands in the SQL is a quoted name or text, a number, or what the SQL target wrote

from __future__ import annotations

import importlib
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rules_engine.batch.engine import BatchProject, Sizes
from rules_engine.batch.entities import features_read
from rules_engine.batch.events import sources_of
from rules_engine.batch.spark.columns import property_columns, property_fields, quoted, text
from rules_engine.batch.spark.conversions import as_declared, family, nothing, whole_key
from rules_engine.clock import DAY
from rules_engine.errors import (
    FeatureColumnError,
    MissingExtraError,
    ProjectError,
    SegmentsError,
    UnsupportedError,
    pass_interrupt,
)
from rules_engine.events.log.offline import spans
from rules_engine.features.column_types import Family, refused_instants, refused_key
from rules_engine.features.feast.repo import FeastRepo
from rules_engine.features.offline.newest import BEGINNING
from rules_engine.features.offline.point_in_time import OfflineUsers
from rules_engine.features.offline.view_columns import ViewColumns
from rules_engine.rules.types import ValueType
from rules_engine.stream.event_sink import event_log
from rules_engine.targets.sql import tables_of, to_sql

_FEATURES, _EVENTS = "segments_features", "segments_events"

_EVENT_COLUMNS = "entity STRING, event STRING, `at` BIGINT, event_id STRING, stored BIGINT"

#: Feast's Spark store reads names in backquotes as patterns, which ours are not.
_PATTERNS = "spark.sql.parser.quotedRegexColumnNames"
_ZONE = "spark.sql.session.timeZone"

#: Where a row of a file lies.
_FILE, _ROW = "@file", "@row"


class SparkBatch:
    """Segments of a program for all users of a project, on Spark.

    Parameters
    ----------
    opened
        the project.
    segments
        those to answer; None for all.
    context
        what a request would bring, the same for everyone.

    Attributes
    ----------
    names
        the segments that are answered, sorted.
    key
        Feast's join key.

    Raises
    ------
    UnknownNameError
        if there is no such segment.
    MissingExtraError
        if PySpark is not installed.
    UnsupportedError
        if ids were joined to persons.
    """

    def __init__(
        self, opened: BatchProject, segments: Collection[str] | None = None, context: Mapping[str, Any] | None = None
    ) -> None:
        self.names = tuple(sorted(opened.program.names if segments is None else set(segments)))
        self._opened = opened
        self._context = dict(context or {})
        self._sources = sources_of(opened.program, self.names)
        self._users = OfflineUsers(opened.repo, features_read(opened.program, self.names))
        if event_log(opened.repo.project).joins():
            raise UnsupportedError(
                "ids were joined to persons, and evaluation on Spark does not know of joins",
                hint="evaluate without `--engine spark`",
            )
        self.key = self._users.key
        self._session = _session(opened.repo)

    def evaluate(self, as_of: int, out: str | None = None, *, as_matrix: bool = False) -> Sizes:
        """Evaluate all users and count them.

        Parameters
        ----------
        as_of
            the instant, in microseconds.
        out
            where Spark writes the answers: a path that ends in ``.parquet``, ``.csv`` or ``.jsonl``, which becomes a
            folder, or else the name of a table.
        as_matrix
            write a row for each user with a column for each segment; else a row for each user and segment of theirs.

        Raises
        ------
        ProjectError, DataError
            if Spark cannot read a source, or write.
        UnsupportedError
            if a rule, or a source, is one that this cannot read.
        """
        with self._settings():
            try:
                answers = self.answers(as_of)
                if out is not None:
                    answers = answers.persist()
                    self._write(answers, out, as_matrix)
                return self._sizes(answers)
            except SegmentsError:
                raise
            except Exception as error:  # Spark raises what Java did
                pass_interrupt(error)
                raise ProjectError(
                    f"Spark cannot answer: {str(error).partition('JVM stacktrace')[0].strip()[:600]}",
                    hint="can Spark read the sources of the feature views, and write where it should?",
                ) from error

    def answers(self, as_of: int) -> Any:
        """Return the query's data frame: ``entity``, and for each segment true, false, or null for unknown."""
        catalog = self._opened.catalog
        self._make_events(as_of)
        self._make_features(as_of)
        tables = tables_of(catalog, features=_FEATURES, events=_EVENTS, unique_events=True)
        query = to_sql(self._opened.program, self.names, catalog, as_of, "spark", tables=tables, context=self._context)
        return self._session.sql(query)

    @contextmanager
    def _settings(self) -> Iterator[None]:
        settings = {_PATTERNS: "false", _ZONE: "UTC"}
        before = {name: self._session.conf.get(name, None) for name in settings}
        for name, value in settings.items():
            self._session.conf.set(name, value)
        try:
            yield
        finally:
            for name, value in before.items():
                if value is None:
                    self._session.conf.unset(name)
                else:
                    self._session.conf.set(name, value)

    # --- what is read -----------------------------------------------------------------------------------------------

    def _make_features(self, as_of: int) -> None:
        """Join the newest rows of all views, with a row for each entity."""
        views = []
        for number, (view, columns) in enumerate(self._users.sources):
            source = self._source(view, number)
            types = dict(self._session.sql(f"SELECT * FROM {source}").dtypes)
            views.append(f"v{number} AS ({self._newest(source, columns, types, as_of)})")
        tables = [f"v{number}" for number in range(len(views))]
        if self._sources:
            views.append(f"e AS (SELECT DISTINCT entity FROM {_EVENTS}_ever)")
            tables.append("e")
        joined = " ".join([tables[0], *(f"FULL OUTER JOIN {table} USING (entity)" for table in tables[1:])])
        query = f"WITH {', '.join(views)} SELECT * FROM {joined}"
        self._session.sql(query).createOrReplaceTempView(_FEATURES)

    def _source(self, view: Any, number: int) -> str:
        from feast import FileSource

        source = view.batch_source
        if isinstance(source, FileSource):
            path, name = _absolute(source.path, self._opened.repo.project.feature_repo), f"segments_source_{number}"
            rows = self._session.read.parquet(path)
            numbered = rows.selectExpr(
                "*", f"_metadata.file_path AS {quoted(_FILE)}", f"_metadata.row_index AS {quoted(_ROW)}"
            )
            numbered.createOrReplaceTempView(name)
            return name
        if type(source).__name__ == "SparkSource":
            return str(source.get_table_query_string())
        raise UnsupportedError(
            f"the source of feature view `{view.name}` is a {type(source).__name__}, which is not read on Spark",
            hint="Spark reads FileSource and SparkSource; `segments sql` writes the query for other engines",
        )

    def _newest(self, source: str, columns: ViewColumns, types: Mapping[str, str], as_of: int) -> str:
        """Write the query for each entity's newest row.

        Of rows with the same timestamp and created timestamp the last of the file counts, where the source is a file;
        of those of a table, whose rows have no order, the one with the greatest values, column after column.
        """
        instant = f"CAST({quoted(columns.timestamp)} AS TIMESTAMP)"
        order = [f"{instant} DESC"]
        if columns.created is not None:
            order.append(f"{quoted(columns.created)} DESC NULLS LAST")
        if _ROW in types:
            order.append(f"{quoted(_FILE)} DESC, {quoted(_ROW)} DESC")
        else:
            order += [f"{quoted(name)} DESC NULLS LAST" for name in sorted(set(columns.features.values()))]
        key = self._key(columns, types)
        number = f"row_number() OVER (PARTITION BY {key} ORDER BY {', '.join(order)})"
        which = f"{key} IS NOT NULL AND {instant} BETWEEN timestamp_micros({BEGINNING}) AND timestamp_micros({as_of})"
        rows = f"SELECT *, {number} AS `@number` FROM {source} WHERE {which}"
        read = [f"{key} AS entity"]
        if columns.view in self._users.ttl:
            read.append(f"unix_micros({instant}) AS {quoted(f'{columns.view}:__updated_at')}")
        for name, column in columns.features.items():
            read.append(f"{self._feature(source, column, types, name)} AS {quoted(name)}")
        return f"SELECT {', '.join(read)} FROM ({rows}) WHERE `@number` = 1"

    def _key(self, columns: ViewColumns, types: Mapping[str, str]) -> str:
        key, key_family = quoted(columns.key), family(types.get(columns.key, "void"))
        if family(types.get(columns.timestamp, "void")) not in (Family.TIMESTAMP, Family.DATE):
            raise refused_instants(types.get(columns.timestamp, "nothing"), columns.timestamp)
        if key_family in (Family.TEXT, Family.INTEGER):
            return f"CAST({key} AS STRING)"
        if key_family in (Family.FLOAT, Family.DECIMAL):  # a gap in pandas makes whole numbers floats
            return f"CAST({whole_key(key, key_family, columns.key)} AS STRING)"
        raise refused_key(types.get(columns.key, "nothing"), columns.key)

    def _feature(self, source: str, column: str, types: Mapping[str, str], name: str) -> str:
        declared = self._users.types[name]
        if column not in types:
            hint = f"its columns are {', '.join(types)}"
            raise FeatureColumnError(f"its source has no column `{column}`, which is feature `{name}`", name, hint)
        try:
            return as_declared(column, types[column], name, declared)
        except FeatureColumnError:
            value = quoted(column)
            has_value = f"{value} IS NOT NULL" + (
                f" AND NOT isnan({value})" if family(types[column]) is Family.FLOAT else ""
            )
            if self._session.sql(f"SELECT 1 FROM {source} WHERE {has_value} LIMIT 1").first() is not None:
                raise
            return nothing(declared)  # a column that nobody has may be of any type

    def _make_events(self, as_of: int) -> None:
        """Make a table of the events that the segments read, each once, and of everyone who did one of them."""
        log = event_log(self._opened.repo.project)
        tables: list[Any] = []
        ever: list[str] = []
        for name, span in spans(self._sources).items():
            files = log.files(name, None, as_of // DAY)
            if files:
                folders = sorted({str(file.parent) for file in files})
                view = f"segments_log_{len(tables)}"
                self._session.read.parquet(*folders).createOrReplaceTempView(view)
                until = f"unix_micros(`at`) <= {as_of}"
                ever.append(f"SELECT entity FROM {view} WHERE {until}")
                after = "" if span is None else f" AND unix_micros(`at`) > {as_of - span}"
                tables.append(self._session.sql(self._events_of(name, view, until + after)))
        fields = [field for name in spans(self._sources) for field in property_fields(name, self._properties(name))]
        events = self._session.createDataFrame([], ", ".join([_EVENT_COLUMNS, *fields]))
        for table in tables:
            events = events.unionByName(table, allowMissingColumns=True)
        events.createOrReplaceTempView(f"{_EVENTS}_all")
        number = "row_number() OVER (PARTITION BY entity, event_id ORDER BY stored, `at`)"
        once = f"SELECT * FROM (SELECT *, {number} AS `@number` FROM {_EVENTS}_all) WHERE `@number` = 1"
        self._session.sql(once).createOrReplaceTempView(_EVENTS)
        entities = " UNION ALL ".join(ever) or f"SELECT entity FROM {_EVENTS}_all"
        self._session.sql(entities).createOrReplaceTempView(f"{_EVENTS}_ever")

    def _events_of(self, name: str, view: str, which: str) -> str:
        parsed, values = property_columns(name, self._properties(name))
        rows = ", ".join(["*", *parsed])
        common = f"entity, {text(name)} AS event, unix_micros(`at`) AS `at`, event_id, unix_micros(stored_at) AS stored"
        columns = ", ".join([common, *values])
        return f"SELECT {columns} FROM (SELECT {rows} FROM {view} WHERE {which})"

    def _properties(self, name: str) -> list[tuple[str, ValueType]]:
        return sorted(self._opened.catalog.events[name].properties.items())

    # --- what is written --------------------------------------------------------------------------------------------

    def _sizes(self, answers: Any) -> Sizes:
        counts = [f"count_if({quoted(name)}) AS {quoted(name)}" for name in self.names]
        unknown = [f"count_if({quoted(name)} IS NULL) AS {quoted(f'? {name}')}" for name in self.names]
        row = answers.selectExpr("count(*) AS `@users`", *counts, *unknown).first()
        members = {name: row[name] for name in self.names}
        return Sizes(row["@users"], members, {name: row[f"? {name}"] for name in self.names})

    def _write(self, answers: Any, out: str, as_matrix: bool) -> None:
        key = f"entity AS {quoted(self.key)}"
        if as_matrix:
            rows = answers.selectExpr(key, *map(quoted, self.names))
        else:
            names = ", ".join(f"CASE WHEN {quoted(name)} THEN {text(name)} END" for name in self.names)
            rows = answers.selectExpr(key, f"explode(array_compact(array({names}))) AS segment")
        writer = rows.write.mode("overwrite")
        write = {".parquet": writer.parquet, ".csv": writer.option("header", True).csv, ".jsonl": writer.json}
        write.get(Path(out).suffix, writer.saveAsTable)(out)


def _absolute(path: str, folder: Path) -> str:
    """Return a source's path: with a scheme as it is, else relative to the feature repository."""
    return path if "://" in path or Path(path).is_absolute() else str(folder / path)


def _session(repo: FeastRepo) -> Any:
    """Return the session that runs, or that of Feast's Spark offline store, or a new one."""
    try:
        sessions = importlib.import_module("pyspark.sql").SparkSession
    except ImportError as error:
        raise MissingExtraError("pyspark", "spark", "evaluating on Spark") from error
    running = sessions.getActiveSession()
    if running is not None:
        return running
    builder = sessions.builder.appName("segments")
    for name, value in (getattr(repo.store.config.offline_store, "spark_conf", None) or {}).items():
        builder = builder.config(name, value)
    return builder.getOrCreate()
