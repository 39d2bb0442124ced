"""Looks at the rows of views' files while they are materialized: whether some are odd, or came late."""

from __future__ import annotations

import contextlib
import json
from datetime import datetime
from typing import Any

from rules_engine.clock import to_micros
from rules_engine.features.feast.repo import FeastRepo
from rules_engine.features.offline.newest import Reach, read_errors, rows_until, survey
from rules_engine.features.offline.source_file import SourceFile, unreadable
from rules_engine.files import write_atomically
from rules_engine.project.catalog import project_sources


class SourceRows:
    """The files behind the views of a project, with the number of rows when each view was last materialized.

    For views whose rows are not in files, no odd and no late rows are reported.

    Parameters
    ----------
    repo
        the project's open Feast repository.
    """

    def __init__(self, repo: FeastRepo) -> None:
        self._folder = repo.project.state_dir
        self._path = self._folder / "source_rows.json"
        self._sources = {source.columns.view: source for source in project_sources(repo.project, repo)}
        self._counts: dict[str, dict[str, int]] = {}
        with contextlib.suppress(OSError, ValueError):
            content = json.loads(self._path.read_bytes())
            self._counts = content if isinstance(content, dict) else {}

    def notes(self, view: Any, start: datetime | None, end: int) -> tuple[str, ...]:
        """Return sentences about the rows between two instants that are left out, and those that share an instant.

        Raises
        ------
        ProjectError, DataError
            if the file cannot be read.
        """
        source = self._opened(view)
        if source is None:
            return ()
        reach = Reach(end) if start is None else Reach(end, to_micros(start))
        try:
            return tuple(survey(source, reach, self._folder).lines(source.columns))
        except read_errors() as error:
            raise unreadable(source.columns.view, source.path, str(error)) from error

    def came_late(self, view: Any) -> bool:
        """Say whether the file now has more rows up to the end of the last run: late ones, or corrections."""
        counts, source = self._counts.get(str(view.name)), self._opened(view)
        return counts is not None and source is not None and rows_until(source, counts["end"]) > counts["rows"]

    def done(self, view: Any, end: int) -> None:
        """Note how many rows a view has up to the end of a run."""
        source = self._opened(view)
        if source is not None:
            self._counts[str(view.name)] = {"end": end, "rows": rows_until(source, end)}
            write_atomically(self._path, json.dumps(self._counts, indent=1, sort_keys=True).encode() + b"\n")

    def _opened(self, view: Any) -> SourceFile | None:
        source = self._sources.get(str(view.name))
        return SourceFile.open(source.path, source.columns) if source and source.path.is_file() else None
