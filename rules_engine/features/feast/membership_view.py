"""The feature view ``user_segments``: everyone's memberships, a column for each segment and one for since when.

Its definition is a file of the Feast repository like any other, so that ``feast apply``, and whoever reads features
from Feast, knows it. It is written here, from the segments that are applied, wherever rows can be kept in a file.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from rules_engine.errors import DataError, ProjectError
from rules_engine.features.feast.repo import FeastRepo
from rules_engine.files import write_atomically
from rules_engine.folders import Project
from rules_engine.rules.program import Program

VIEW = "user_segments"

#: What the name of the column ends in that says since when.
SINCE = "_since"

#: The column of instants, and its type.
STAMP = "event_timestamp"
INSTANT = pa.timestamp("us", "UTC")

_MARK = "# Written by `segments materialize --memberships`, anew when segments change."

#: The offline stores of Feast that read Parquet files.
_OF_FILES = ("duckdb", "file", "dask")


@dataclass(frozen=True, slots=True)
class MembershipView:
    """The columns that the view has for some segments.

    >>> MembershipView(("vip",)).columns
    {'vip': 'Bool', 'vip_since': 'UnixTimestamp'}
    """

    segments: tuple[str, ...]

    @property
    def columns(self) -> dict[str, str]:
        """Return by column Feast's name of its type."""
        return {
            column: kind
            for name in self.segments
            for column, kind in ((name, "Bool"), (f"{name}{SINCE}", "UnixTimestamp"))
        }

    def check(self) -> None:
        """Refuse segments whose columns would have one name.

        Raises
        ------
        ProjectError
            with their names.
        """
        doubled = sorted(name for name in self.segments if f"{name}{SINCE}" in self.segments)
        if doubled:
            name = doubled[0]
            raise ProjectError(
                f"the segment `{name}{SINCE}` and since when one is in `{name}` would be one column of `{VIEW}`",
                hint=f"rename the segment `{name}{SINCE}`",
            )


def definition_file(project: Project) -> Path:
    """Return the path of the definition."""
    return project.feature_repo / f"{VIEW}.py"


def data_file(project: Project) -> Path:
    """Return the path of the rows."""
    return project.feature_repo / "data" / f"{VIEW}.parquet"


def is_written_here(project: Project) -> bool:
    """Tell whether the definition is one of ours, which may be written anew."""
    try:
        return definition_file(project).read_text(encoding="utf-8").startswith(_MARK)
    except (OSError, UnicodeDecodeError):
        return False


def has_view(repo: FeastRepo, view: MembershipView) -> bool:
    """Tell whether the Feast repository defines the view for exactly these segments.

    Raises
    ------
    ProjectError
        if it defines something else of that name.
    """
    views = {str(each.name): each for each in (*repo.contents.feature_views, *repo.contents.stream_feature_views)}
    existing = views.get(VIEW)
    if existing is None:
        _refuse_taken(repo)
        return False
    columns = {field.name: str(field.dtype) for field in existing.features}
    if columns == view.columns:
        return True
    if is_written_here(repo.project):
        return False
    lacking = ", ".join(f"{name} ({kind})" for name, kind in view.columns.items() if columns.get(name) != kind)
    surplus = ", ".join(sorted(columns.keys() - view.columns.keys()))
    wrong = "; ".join(part for part in (lacking and f"it lacks {lacking}", surplus and f"it has {surplus}") if part)
    raise ProjectError(
        f"feature_repo/ defines a feature view `{VIEW}` that cannot hold memberships: {wrong}",
        hint="rename that view, or give it these features",
    )


def _refuse_taken(repo: FeastRepo) -> None:
    """Refuse a name that something else has, and a file that is not ours."""
    others = (*repo.contents.on_demand_feature_views, *repo.contents.label_views, *repo.contents.feature_services)
    if any(str(other.name) == VIEW for other in others):
        raise ProjectError(f"feature_repo/ defines something else named `{VIEW}`", hint="rename it")
    for path in (definition_file(repo.project), data_file(repo.project)):
        if path.exists() and not is_written_here(repo.project):
            raise ProjectError(f"{path} is there already, and `--memberships` did not write it", hint="rename it")


def restore_rows(repo: FeastRepo) -> None:
    """Make an empty file of rows where the definition is there and its rows are not, as in a clone.

    Otherwise nothing could be read from the offline store, as every view that is served is looked into.
    """
    views = {str(view.name): view for view in repo.contents.feature_views}
    if VIEW in views and is_written_here(repo.project) and not data_file(repo.project).is_file():
        names = tuple(str(feature.name) for feature in views[VIEW].features if str(feature.dtype) == "Bool")
        replace_rows(data_file(repo.project), iter(()), rows_schema(repo, MembershipView(names)))


def rows_schema(repo: FeastRepo, view: MembershipView) -> pa.Schema:
    """Return the columns of the file of rows."""
    kinds = {"Bool": pa.bool_(), "UnixTimestamp": INSTANT}
    columns = [(name, kinds[kind]) for name, kind in view.columns.items()]
    return pa.schema([(repo.entity().join_key, pa.string()), (STAMP, INSTANT), *columns])


def replace_rows(path: Path, batches: Iterator[pa.RecordBatch], schema: pa.Schema) -> None:
    """Write a file anew, in one step.

    Raises
    ------
    DataError
        if it cannot be written.
    """
    partial = path.with_suffix(".partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with pq.ParquetWriter(partial, schema, compression="zstd") as writer:
            for batch in batches:
                writer.write_batch(batch)
        partial.replace(path)
    except OSError as error:
        raise DataError(f"cannot write {path}: {error.strerror or error}", hint="is the folder writable?") from error
    finally:
        partial.unlink(missing_ok=True)


def check_offline_store(repo: FeastRepo) -> None:
    """Refuse to define a view of files where the offline store reads none.

    Raises
    ------
    ProjectError
        with what to do.
    """
    kind = str(repo.store.config.offline_store.type)
    if kind not in _OF_FILES:
        raise ProjectError(
            f"the offline store ({kind}) keeps no files, so `{VIEW}` cannot be defined by itself",
            hint=f"define a FeatureView `{VIEW}` on a source of your own: a Bool for each segment, and since when as "
            f"UnixTimestamp in NAME{SINCE}",
        )


def write_definition(repo: FeastRepo, view: MembershipView, program: Program) -> None:
    """Write the definition for some segments.

    Raises
    ------
    ProjectError
        if it cannot be written.
    """
    write_atomically(definition_file(repo.project), _definition(repo, view, program).encode())
    definition_file(repo.project).chmod(0o644)


def _definition(repo: FeastRepo, view: MembershipView, program: Program) -> str:
    key = repo.entity()
    return f'''\
{_MARK}
"""Who is in which segment, and since when. A row holds from its instant until the user's next one."""

from datetime import timedelta
from pathlib import Path

from feast import Entity, FeatureView, Field, FileSource, ValueType
from feast.types import Bool, UnixTimestamp

{VIEW} = FeatureView(
    name="{VIEW}",
    description="Who is in which segment, and since when, as of the last `segments materialize --memberships`",
    entities=[Entity(name={_text(key.name)}, join_keys=[{_text(key.join_key)}], value_type=ValueType.STRING)],
    ttl=timedelta(0),
    source=FileSource(
        name="{VIEW}_source",
        path=str(Path(__file__).resolve().parent / "data" / "{VIEW}.parquet"),
        timestamp_field="event_timestamp",
    ),
    schema=[
{"".join(_fields(view, program))}    ],
)
'''


def _fields(view: MembershipView, program: Program) -> Iterable[str]:
    for name in view.segments:
        text = " ".join(program.segment(name).description.split()) or f"Is in the segment {name}"
        yield f"        Field(name={_text(name)}, dtype=Bool, description={_text(text)}),\n"
        since_text = f"Since when; missing for who is not in {name}"
        yield f"        Field(name={_text(name + SINCE)}, dtype=UnixTimestamp, description={_text(since_text)}),\n"


def _text(text: str) -> str:
    """Return a Python literal in double quotes."""
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
