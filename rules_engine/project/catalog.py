"""Know the names and types that definitions may mention: those of Feast, and those of events.yaml.

Opening the Feast repository takes seconds, reading what it said last time takes none. The copy in the project's state
folder is taken only if every file that Feast would load is as it was. What Feast infers from data files can change
without that; `segments apply` always asks Feast.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson

from rules_engine.diagnostics import Diagnostic, listing, nearest
from rules_engine.errors import DefinitionError, ProjectError
from rules_engine.events.declarations.events_yaml import EventDeclarations, read_events
from rules_engine.features.offline.view_columns import ViewColumns
from rules_engine.files import files_below, write_atomically
from rules_engine.folders import Project
from rules_engine.installed import own_version
from rules_engine.rules.catalog import Catalog, EventType, Feature
from rules_engine.rules.codec import decode, encode

if TYPE_CHECKING:
    from rules_engine.features.feast.repo import FeastRepo

#: Raised by one whenever an older copy could be misread.
_FORMAT = 3

_LOADED = (".py", ".yaml", ".yml", ".feastignore")


@dataclass(frozen=True, slots=True)
class ViewSource:
    """A feature view whose rows lie in one Parquet file on this machine, and where in it its columns are."""

    path: Path
    columns: ViewColumns


def project_catalog(project: Project, repo: FeastRepo | None = None) -> Catalog:
    """Return the catalog of a project.

    Parameters
    ----------
    project
        the project.
    repo
        its open Feast repository, if the caller has one; it is then asked, and the copy is renewed.

    Raises
    ------
    ProjectError, UnsupportedError
        if the Feast repository cannot be used.
    DefinitionError
        with every problem of events.yaml.
    """
    return _catalog_and_sources(project, repo)[0]


def project_sources(project: Project, repo: FeastRepo | None = None) -> list[ViewSource]:
    """Return the files of a project's feature views, as :func:`project_catalog` returns their features."""
    return _catalog_and_sources(project, repo)[1]


def local_sources(project: Project) -> list[ViewSource] | None:
    """Return the files of all feature views, if that is known without Feast, and all of them are on this machine."""
    cached = _read(project.state_dir / "catalog.json", feature_files(project.feature_repo))
    if cached is None:
        return None
    catalog, sources = cached
    views = {feature.view for feature in catalog.features.values()}
    return sources if views == {source.columns.view for source in sources} else None


def _catalog_and_sources(project: Project, repo: FeastRepo | None) -> tuple[Catalog, list[ViewSource]]:
    path = project.state_dir / "catalog.json"
    fingerprint = feature_files(project.feature_repo)
    cached = _read(path, fingerprint) if repo is None else None
    if cached is not None:
        return cached
    catalog, sources = _from_feast(project, repo)
    with contextlib.suppress(ProjectError):  # a folder that cannot be written is no reason not to answer
        _write(path, fingerprint, catalog, sources)
    return catalog, sources


def _from_feast(project: Project, repo: FeastRepo | None) -> tuple[Catalog, list[ViewSource]]:
    """Ask Feast, after making the files that its views read and that the project makes itself."""
    from rules_engine.features.feast.membership_view import restore_rows
    from rules_engine.features.feast.repo import FeastRepo
    from rules_engine.features.offline import point_in_time
    from rules_engine.features.offline.learned_views import make_missing_files

    repo = FeastRepo(project) if repo is None else repo
    restore_rows(repo)
    make_missing_files(repo)
    declared = read_events(project.events_yaml)
    features = repo.catalog()
    _check_traits(declared, features)
    catalog = replace(features, events=declared.types, event_features=declared.features)
    return catalog, [ViewSource(file, columns) for file, columns in point_in_time.local_sources(repo)]


def _write(path: Path, fingerprint: str, catalog: Catalog, sources: Sequence[ViewSource]) -> None:
    content = {"format": _FORMAT, "fingerprint": fingerprint, **_encode(catalog)}
    content["sources"] = [{"path": str(source.path), "columns": asdict(source.columns)} for source in sources]
    write_atomically(path, orjson.dumps(content, option=orjson.OPT_INDENT_2) + b"\n")


def _check_traits(declared: EventDeclarations, features: Catalog) -> None:
    """Check that there is the feature view that traits are written to.

    Raises
    ------
    DefinitionError
        if there is none of that name.
    """
    views = {feature.view for feature in features.features.values()}
    if declared.traits is None or declared.traits in views or declared.traits_span is None:
        return
    message = f"there is no feature view `{declared.traits}` to write traits to"
    hint = nearest(declared.traits, views) or f"the feature views are {listing(views)}"
    raise DefinitionError([Diagnostic("unknown-view", declared.traits_span, message, hint)])


def _read(path: Path, fingerprint: str) -> tuple[Catalog, list[ViewSource]] | None:
    try:
        content = orjson.loads(path.read_bytes())
        if content["format"] != _FORMAT or content["fingerprint"] != fingerprint:
            return None
        sources = [ViewSource(Path(each["path"]), ViewColumns(**each["columns"])) for each in content["sources"]]
        return _decode(content), sources
    except (OSError, ValueError, KeyError, TypeError):
        return None


def feature_files(folder: Path) -> str:
    """Return a hash that changes with every file that Feast would load, with their place, and with Feast's version."""
    digest = hashlib.sha256(f"{own_version()} {version('feast')} {folder}".encode())
    for path in _loaded_files(folder):
        content = path.read_bytes()
        digest.update(f"{path.relative_to(folder).as_posix()} {len(content)}\n".encode() + content)
    return digest.hexdigest()


def _loaded_files(folder: Path) -> Iterator[Path]:
    for path in files_below(folder):
        if path.name.endswith(_LOADED) and "__pycache__" not in path.parts:
            yield path


def _encode(catalog: Catalog) -> dict[str, Any]:
    return {
        "features": [asdict(feature) | {"type": encode(feature.type)} for feature in catalog.features.values()],
        "ttl": dict(catalog.ttl),
        "events": [
            {
                "name": event.name,
                "properties": {name: encode(value_type) for name, value_type in event.properties.items()},
                "retention": event.retention,
                "description": event.description,
            }
            for event in catalog.events.values()
        ],
        "event_features": {name: encode(aggregate) for name, aggregate in catalog.event_features.items()},
    }


def _decode(content: dict[str, Any]) -> Catalog:
    features = [Feature(**(feature | {"type": decode(feature["type"])})) for feature in content["features"]]
    events = [
        EventType(**(event | {"properties": {name: decode(encoded) for name, encoded in event["properties"].items()}}))
        for event in content["events"]
    ]
    return Catalog(
        features={feature.key: feature for feature in features},
        ttl=content["ttl"],
        events={event.name: event for event in events},
        event_features={name: decode(aggregate) for name, aggregate in content["event_features"].items()},
    )
