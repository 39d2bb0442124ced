"""The feature view ``segment_lists``: who is on which list, a Bool for each segment that is one.

Its definition is a file of the Feast repository like any other, so that ``feast apply`` and whoever reads features from
Feast knows it. A row holds from its instant until the entity's next one; who left a list has a row without a value.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa

from rules_engine.errors import ProjectError
from rules_engine.features.feast.repo import FeastRepo
from rules_engine.files import write_atomically
from rules_engine.folders import Project
from rules_engine.rules.segments.lists import VIEW

#: The column of instants, and its type.
STAMP = "event_timestamp"
INSTANT = pa.timestamp("us", "UTC")

_MARK = "# Written by `segments apply` from the segments with `list:`, anew when these change."


def definition_file(project: Project) -> Path:
    """Return the path of the definition."""
    return project.feature_repo / f"{VIEW}.py"


def data_file(project: Project) -> Path:
    """Return the path of the rows."""
    return project.feature_repo / "data" / f"{VIEW}.parquet"


def defined_lists(repo: FeastRepo) -> tuple[str, ...] | None:
    """Return the lists that the view has columns for; None if there is no such view.

    Raises
    ------
    ProjectError
        if somebody else defined something of that name, or a file has its name.
    """
    path = definition_file(repo.project)
    is_ours = path.is_file() and path.read_text(encoding="utf-8", errors="replace").startswith(_MARK)
    views = [view for view in repo.contents.feature_views if str(view.name) == VIEW]
    if (views or path.exists()) and not is_ours:
        hint = f"rename it: `segments apply` keeps who is on a list in a feature view `{VIEW}`"
        raise ProjectError(f"feature_repo/ has something of the name `{VIEW}` that it did not write", hint=hint)
    return tuple(str(field.name) for field in views[0].features) if views else None


def write_definition(repo: FeastRepo, names: Sequence[str]) -> None:
    """Write the definition for some lists.

    Raises
    ------
    ProjectError
        if it cannot be written.
    """
    key = repo.entity()
    fields = "".join(
        f'        Field(name="{name}", dtype=Bool, description="Is on the list {name}"),\n' for name in names
    )
    text = f'''\
{_MARK}
"""Who is on which list. A row holds from its instant until the entity's next one."""

from datetime import timedelta
from pathlib import Path

from feast import Entity, FeatureView, Field, FileSource, ValueType
from feast.types import Bool

{VIEW} = FeatureView(
    name="{VIEW}",
    description="Who is on which list, as of the last `segments apply`",
    entities=[Entity(name={key.name!r}, join_keys=[{key.join_key!r}], value_type=ValueType.STRING)],
    ttl=timedelta(0),
    source=FileSource(
        name="{VIEW}_source",
        path=str(Path(__file__).resolve().parent / "data" / "{VIEW}.parquet"),
        timestamp_field="{STAMP}",
    ),
    schema=[
{fields}    ],
)
'''
    write_atomically(definition_file(repo.project), text.encode())
    definition_file(repo.project).chmod(0o644)
