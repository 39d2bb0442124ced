"""Materialize: bring the newest row of every entity from the offline store to the online store, view by view.

A view is materialized from where its last run ended, and the end is recorded only when all its rows are written. So
a run that was killed is completed by the next one, which covers the same time again. Feast's own command marks a
view as being materialized while it runs, which makes Feast refuse reads; this one does not, and takes back such a
mark that a killed run of Feast's left.

A view starts over from its first row if the store may not hold it completely. Redis, Valkey and the embedded store have
a mark that says what they hold, and that is written last: in a store that was emptied, replaced, or restored from an
older copy the mark says less, and the run goes on from there. For other stores, a file in the project's state folder
records what was materialized with which features.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from rules_engine.clock import format_instant, from_micros, now_micros, to_micros
from rules_engine.deploy.source_rows import SourceRows
from rules_engine.diagnostics import nearest
from rules_engine.errors import (
    DataError,
    NotAppliedError,
    ProjectError,
    SegmentsError,
    UnknownNameError,
    pass_interrupt,
)
from rules_engine.features.feast.repo import FeastRepo
from rules_engine.features.feast.writes import DirectWrites, features_digest, watched_writes
from rules_engine.features.feast_import import quiet
from rules_engine.files import write_atomically
from rules_engine.folders import Project
from rules_engine.project.lock import project_lock
from rules_engine.read_plan import ReadPlan
from rules_engine.redis import client as redis_client
from rules_engine.redis.eviction import check_eviction
from rules_engine.redis.server import is_direct, server_of
from rules_engine.stream.reevaluation import look_again

#: Where a view without an earlier run starts.
_BEGINNING = datetime(1900, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class ViewProgress:
    """Report the rows of a view that are written so far, and in how long. The last call for a view has ``done``."""

    view: str
    number: int
    views: int
    rows: int
    done: bool = False
    seconds: float = field(default=0.0, compare=False)


@dataclass(frozen=True, slots=True)
class ViewReport:
    """Report what was done for one view.

    Attributes
    ----------
    view
        its name.
    start
        the instant from which on rows were read, in microseconds; None: from the first row.
    end
        the instant up to which rows were read, in microseconds.
    reason
        why it started there.
    rows
        the number of rows sent to the store.
    seconds
        the duration.
    notes
        sentences about rows of its source that were left out, or that share an instant.
    """

    view: str
    start: int | None
    end: int
    reason: str
    rows: int
    seconds: float
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class MaterializeReport:
    """Report what a run did, by view in the order of the run."""

    views: tuple[ViewReport, ...]

    @property
    def rows(self) -> int:
        """Return the number of rows of all views together."""
        return sum(view.rows for view in self.views)

    @property
    def seconds(self) -> float:
        """Return the seconds of all views together."""
        return sum(view.seconds for view in self.views)


def materialize(
    project: Project,
    *,
    end: int | None = None,
    views: Sequence[str] | None = None,
    full: bool = False,
    progress: Callable[[ViewProgress], None] | None = None,
    repo: FeastRepo | None = None,
) -> MaterializeReport:
    """Materialize the feature views of a project that are served online.

    Parameters
    ----------
    project
        an applied project.
    end
        rows after this instant are left out, in microseconds; by default the project's ``now``, else the wall clock.
    views
        names of feature views; by default all.
    full
        start from the first row, to take up rows that came late or were corrected.
    progress
        called when rows were written, and at the end of each view.
    repo
        the project's open repository, if the caller has one.

    Raises
    ------
    NotAppliedError
        if there is nothing in Feast's registry.
    UnknownNameError
        if a view does not exist, or is not served online.
    DataError
        if a view's source cannot be read; the other views are materialized all the same.
    ProjectError
        if the online store evicts keys when its memory is full.
    StoreError
        if the online store cannot be written.
    """
    repo = FeastRepo(project) if repo is None else repo
    server = server_of(repo.connection(), project.root)
    if server is not None:
        check_eviction(server)
    with project_lock(project):
        run = _ViewWriter(repo, _end(project, end), full=full, progress=progress)
        try:
            chosen = _chosen(repo, views)
            reports, refused = run.views(chosen)
        finally:
            run.close()
    changed = [report.view for report in reports if report.rows]
    if changed:
        look_again(project, "materialize", changed)
    if len(refused) == 1:
        raise refused[0]
    if refused:
        hint = "mend them one by one; the other views are materialized"
        raise DataError("several feature views cannot be materialized:\n" + "\n".join(map(str, refused)), hint=hint)
    return MaterializeReport(tuple(reports))


def materialize_view(repo: FeastRepo, name: str, end: int) -> None:
    """Materialize one view up to an instant, for a caller that holds the project's lock."""
    run = _ViewWriter(repo, end, full=False, progress=None)
    try:
        run.view(repo.registered_view(name), 1, 1)
    finally:
        run.close()


def _end(project: Project, end: int | None) -> int:
    if end is not None:
        return end
    with contextlib.suppress(NotAppliedError):  # no plan yet: Feast's registry alone will do
        now = ReadPlan.load(project.read_plan).now
        if now is not None:
            return now
    return now_micros()


def _chosen(repo: FeastRepo, names: Sequence[str] | None) -> list[Any]:
    registered = repo.registered_views()
    if not registered:
        raise NotAppliedError("Feast's registry has no feature view that is served online", hint="run `segments apply`")
    for name in names or ():
        if name not in registered:
            raise UnknownNameError(
                f"there is no feature view `{name}` that is served online",
                hint=nearest(name, registered) or f"there are: {', '.join(sorted(registered))}",
            )
    return [registered[name] for name in sorted(set(names) if names else registered)]


class _ViewWriter:
    """One run over several views."""

    def __init__(
        self, repo: FeastRepo, end: int, *, full: bool, progress: Callable[[ViewProgress], None] | None
    ) -> None:
        self._repo = repo
        self._end = end
        self._full = full
        self._progress = progress or (lambda _: None)
        self._sources = SourceRows(repo)
        self._direct = DirectWrites(repo) if is_direct(repo.connection()) else None
        self._record = _Record(repo) if self._direct is None else _Mark(repo, self._direct)

    def close(self) -> None:
        if self._direct is not None:
            self._direct.close()

    def views(self, views: Sequence[Any]) -> tuple[list[ViewReport], list[SegmentsError]]:
        """Materialize views. If the source of one cannot be read, the others are materialized all the same."""
        reports: list[ViewReport] = []
        refused: list[SegmentsError] = []
        for number, view in enumerate(views, 1):
            try:
                reports.append(self.view(view, number, len(views)))
            except (DataError, ProjectError) as error:
                refused.append(error)
        return reports, refused

    def view(self, view: Any, number: int, count: int) -> ViewReport:
        """Materialize one view."""
        name = str(view.name)
        start, reason = self._start(view)
        notes = self._sources.notes(view, start, self._end)
        began = time.perf_counter()
        rows = 0

        def on_rows(written: int) -> None:
            nonlocal rows
            rows += written
            self._progress(ViewProgress(name, number, count, rows, seconds=time.perf_counter() - began))

        if start is None or to_micros(start) <= self._end:
            # Bulk writes keep the newest row by themselves.
            with watched_writes(self._repo, None if self._repo.writes_in_bulk else self._direct, on_rows):
                self._write(view, start or _BEGINNING, on_rows)
            self._record.done(view, self._end)
            self._sources.done(view, self._end)
        else:
            reason = f"already materialized up to {format_instant(to_micros(start))}"
        self._progress(ViewProgress(name, number, count, rows, done=True, seconds=time.perf_counter() - began))
        begin = None if start is None else to_micros(start)
        return ViewReport(name, begin, self._end, reason, rows, time.perf_counter() - began, notes)

    def _start(self, view: Any) -> tuple[datetime | None, str]:
        """Return the start of a run, and the reason. Runs include both ends, so rows at the last end are read twice."""
        if view.most_recent_end_time is None:
            return None, "first run"
        if self._full:
            return None, "asked for in full"
        start, reason = self._record.last(view)
        if start is not None and self._sources.came_late(view):
            return None, "rows came late, or were corrected"
        return start, reason

    def _write(self, view: Any, start: datetime, on_rows: Callable[[int], None]) -> None:
        """Run Feast's engine. ``FeatureStore.materialize`` does the same, but prints and marks the view."""
        store = self._repo.store
        end = from_micros(self._end)
        errors = contextlib.nullcontext() if self._direct is None else redis_client.store_errors(self._direct.address)
        try:
            with quiet(), errors:
                store.provider.materialize_single_feature_view(
                    config=store.config,
                    feature_view=view,
                    start_date=start,
                    end_date=end,
                    registry=store.registry,
                    project=store.project,
                    tqdm_builder=lambda _length: _Bar(on_rows),
                )
                store.registry.apply_materialization(view, store.project, start, end)
        except SegmentsError:
            raise
        except Exception as error:  # engines and sources raise many kinds
            pass_interrupt(error)
            source = getattr(view.batch_source, "path", "") or getattr(view.batch_source, "name", "its source")
            raise DataError(
                f"cannot materialize the feature view `{view.name}` from {source}: {error}",
                hint="does the source exist, and has it the columns and types that the view declares?",
            ) from error


@dataclass(frozen=True, slots=True)
class _Bar:
    """Stands in for a progress bar, to count the rows that our compute engine reports. Feast's engines report none."""

    update: Callable[[int], None]

    def close(self) -> None:
        """Do nothing, as nothing is shown."""


class _Mark:
    """Reads from the store itself what was materialized, and writes it there."""

    def __init__(self, repo: FeastRepo, direct: DirectWrites) -> None:
        self._repo = repo
        self._direct = direct

    def last(self, view: Any) -> tuple[datetime | None, str]:
        """Tell up to when the store holds a view, None if that is not sure; and why."""
        mark = self._direct.materialized(view)
        if mark is None:
            return None, "the online store does not hold it"
        if mark.features != features_digest(self._repo, view):
            return None, "the view's features changed"
        return from_micros(mark.end), "since the last run"

    def done(self, view: Any, end: int) -> None:
        """Note a completed view."""
        self._direct.note(view, end)


class _Record:
    """Remembers what was materialized with which features into which store, in the project's state folder.

    Feast's registry only has the end of the last run. If there is no record (after Feast's own command), the registry
    is trusted.
    """

    def __init__(self, repo: FeastRepo) -> None:
        self._repo = repo
        self._path = repo.project.state_dir / "materialized.json"
        self._store = hashlib.sha256(repr(repo.connection()).encode()).hexdigest()[:16]
        self._views: dict[str, dict[str, Any]] = {}
        with contextlib.suppress(OSError, ValueError):
            content = json.loads(self._path.read_bytes())
            self._views = content if isinstance(content, dict) else {}

    def last(self, view: Any) -> tuple[datetime | None, str]:
        """Tell up to when the store holds a view, None if that is not sure; and why."""
        record = self._views.get(str(view.name))
        if record is not None and record.get("store") != self._store:
            return None, "the online store is another one than last time"
        if record is not None and record.get("features") != features_digest(self._repo, view):
            return None, "the view's features changed"
        last: datetime = view.most_recent_end_time
        return last.astimezone(UTC), "since the last run"

    def done(self, view: Any, end: int) -> None:
        """Note a completed view."""
        self._views[str(view.name)] = {
            "end": format_instant(end),
            "store": self._store,
            "features": features_digest(self._repo, view),
        }
        write_atomically(self._path, json.dumps(self._views, indent=1, sort_keys=True).encode() + b"\n")
