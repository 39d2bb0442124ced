"""The JSON Schema for editors, written where the definition files look for it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson

from rules_engine.definitions.source import Mapping, Scalar
from rules_engine.files import write_atomically
from rules_engine.folders import Project
from rules_engine.project.catalog import project_catalog
from rules_engine.rules.catalog import Catalog
from rules_engine.rules.json_schema import build_schema
from rules_engine.rules.kinds import KINDS
from rules_engine.rules.load import definition_files, read_file
from rules_engine.rules.schema_parts import Names
from rules_engine.rules.settings.sinks import sink_kind


def schema_file(project: Project) -> Path:
    """Return the file that the first line of a definition file names: ``# yaml-language-server: $schema=...``."""
    return project.state_dir / "schema.json"


def project_schema(project: Project, catalog: Catalog | None = None) -> dict[str, Any]:
    """Return the schema with the names of the project's features, events and segments.

    Definitions need not be valid, as the schema helps to make them so.
    """
    if catalog is None:
        catalog = project_catalog(project)
    return build_schema(catalog, names=defined_names(project))


def write_schema(project: Project, catalog: Catalog | None = None, to: Path | None = None) -> Path:
    """Write the schema, by default where definition files look for it. Return its path.

    Raises
    ------
    ProjectError
        if it cannot be written, or the Feast repository cannot be used.
    """
    path = schema_file(project) if to is None else to
    write_atomically(path, orjson.dumps(project_schema(project, catalog), option=orjson.OPT_INDENT_2) + b"\n")
    return path


def defined_names(project: Project) -> Names:
    """Return the names of all definitions, sinks and consents in the files, even if the rest of a file is refused."""
    documents = _documents(project)
    settings = next((document for document in documents if "project" in document), None)
    sinks, consent = (settings.get(key) if settings else None for key in ("sinks", "consent"))
    return Names(
        {kind: _named(documents, kind) for kind in KINDS},
        {entry.key: sink_kind(entry.value) for entry in sinks} if isinstance(sinks, Mapping) else {},
        [entry.key for entry in consent] if isinstance(consent, Mapping) else (),
    )


def _documents(project: Project) -> list[Mapping]:
    return [
        document
        for path in definition_files(project.segments_dir)
        for document in read_file(path, path.name)[0]
        if isinstance(document, Mapping)
    ]


def _named(documents: list[Mapping], kind: str) -> set[str]:
    names = (document.get(kind) for document in documents)
    return {name.value for name in names if isinstance(name, Scalar) and isinstance(name.value, str)}
