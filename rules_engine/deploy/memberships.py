"""Write all memberships as rows of the feature view user_segments: `segments materialize --memberships`.

Memberships are a history like any feature: a row holds from its instant on, so that training sets get the memberships
of their time. Only entities whose memberships changed get a new row.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from rules_engine.batch.engine import BatchRules
from rules_engine.batch.entities import Crowd, EntityReader
from rules_engine.clock import SECOND, format_instant, now_micros
from rules_engine.deploy.apply import apply
from rules_engine.deploy.member_since import LedgerSince
from rules_engine.errors import DataError, ProjectError
from rules_engine.features.feast.membership_view import (
    INSTANT,
    SINCE,
    STAMP,
    VIEW,
    MembershipView,
    check_offline_store,
    data_file,
    has_view,
    replace_rows,
    restore_rows,
    rows_schema,
    write_definition,
)
from rules_engine.features.feast.repo import FeastRepo
from rules_engine.folders import Project
from rules_engine.project.lock import project_lock
from rules_engine.read_plan import ReadPlan
from rules_engine.rules.nodes import AnyOf, FeatureRef, Predicate, Segment
from rules_engine.rules.program import Program
from rules_engine.rules.segments.codec import decode_program
from rules_engine.rules.types import BOOLEAN, TIME, ValueType

Progress = Callable[[int, float], None]

_ROW_GROUP = 100_000


@dataclass(slots=True)
class Memberships:
    """The number of entities, of those that got a new row, and of the members of each segment.

    ``is_new`` says whether the feature view was defined, or defined anew for other segments.
    """

    as_of: int
    users: int = 0
    changed: int = 0
    members: dict[str, int] = field(default_factory=dict)
    is_new: bool = False


def write_memberships(
    project: Project, as_of: int | None = None, progress: Progress = lambda _users, _done: None
) -> Memberships:
    """Evaluate all entities by the applied definitions, and add a row for each whose memberships changed.

    The feature view is first defined and registered, if it does not exist for these segments. Its rows get into the
    online store like those of any other view.

    Parameters
    ----------
    as_of
        the instant, in microseconds; by default the project's ``now``, else the clock.

    Raises
    ------
    NotAppliedError
        if nothing was applied yet.
    ProjectError
        if another view has the name, or files in feature_repo/ are not applied yet.
    DataError
        if there are memberships of a later instant, or the offline store holds other types than are declared.
    """
    plan = ReadPlan.load(project.read_plan)
    program = decode_program(plan.definitions.get("segments", {}))
    at = next(instant for instant in (as_of, plan.now, now_micros()) if instant is not None)
    view = MembershipView(program.names)
    view.check()
    if not program.names:
        raise ProjectError("no segment is applied", hint="define one in segments/, and run `segments apply`")
    repo = FeastRepo(project)
    report = Memberships(at, members=dict.fromkeys(program.names, 0), is_new=not has_view(repo, view))
    if report.is_new:
        repo = _define(project, repo, view, program, plan)
    else:
        restore_rows(repo)
    _MembershipWriter(project, repo, program, view, report, progress).write()
    return report


def _define(project: Project, repo: FeastRepo, view: MembershipView, program: Program, plan: ReadPlan) -> FeastRepo:
    """Define the view and register it, and nothing else."""
    check_offline_store(repo)
    if repo.pending():
        raise ProjectError(
            "feature_repo/ differs from what is applied",
            hint="run `segments apply` first: only the view is registered here",
        )
    schema, path = rows_schema(repo, view), data_file(project)
    replace_rows(path, _old_rows(path, schema) if path.is_file() else iter(()), schema)
    write_definition(repo, view, program)
    reopened = FeastRepo(project)
    apply(project, plan.definitions, now=plan.now, repo=reopened)
    return reopened


# --- files ----------------------------------------------------------------------------------------------------------


def _old_rows(path: Path, schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    """Yield the existing rows, which may be of other segments; new segments are null, as their members are unknown."""
    with pq.ParquetFile(path) as file:
        for batch in file.iter_batches(_ROW_GROUP):
            columns = [
                batch[name.name].cast(name.type) if name.name in batch.schema.names else pa.nulls(len(batch), name.type)
                for name in schema
            ]
            yield pa.record_batch(columns, schema=schema)


# --- rows -----------------------------------------------------------------------------------------------------------


class _MembershipWriter:
    """Evaluates all entities, and compares the result with their newest rows."""

    def __init__(
        self,
        project: Project,
        repo: FeastRepo,
        program: Program,
        view: MembershipView,
        report: Memberships,
        progress: Progress,
    ) -> None:
        self._path = data_file(project)
        self._project = project
        self._view = view
        self._schema = rows_schema(repo, view)
        self._key = repo.entity().join_key
        self._report = report
        self._progress = progress
        self._entities = EntityReader(repo, (program, program.names), (_reader(view), ("memberships",)))
        self._rules = BatchRules(repo, program, reader=self._entities)
        self._ledger = LedgerSince(project, program.names, report.as_of)

    def write(self) -> None:
        """Add the new rows to the file, a bounded number in memory."""
        spool = self._path.with_suffix(".new")
        with project_lock(self._project):
            self._refuse_earlier()
            try:
                replace_rows(spool, self._rows(), self._schema)
                if self._report.changed:
                    replace_rows(self._path, self._together(spool), self._schema)
            finally:
                spool.unlink(missing_ok=True)

    def _refuse_earlier(self) -> None:
        """Refuse an earlier instant: the online store holds the newest row, so an older one would not be seen."""
        latest = None
        with pq.ParquetFile(self._path) as file:
            for batch in file.iter_batches(_ROW_GROUP, columns=[STAMP]):
                last = pc.max(batch[STAMP]).cast(pa.int64()).as_py()
                latest = last if latest is None or (last is not None and last > latest) else latest
        if latest is not None and latest > self._report.as_of:
            raise DataError(
                f"there are memberships of {format_instant(latest)} already, which is later than "
                f"{format_instant(self._report.as_of)}",
                hint="name that instant or a later one with --at",
            )

    def _together(self, spool: Path) -> Iterator[pa.RecordBatch]:
        """Yield all rows, except those of the same instant that are replaced."""
        with pq.ParquetFile(spool) as file:
            replaced = file.read([self._key])[self._key].combine_chunks()
            instant = pa.scalar(self._report.as_of, pa.int64())
            for batch in _old_rows(self._path, self._schema):
                is_same = pc.and_(
                    pc.equal(batch[STAMP].cast(pa.int64()), instant), pc.is_in(batch[self._key], value_set=replaced)
                )
                yield batch.filter(pc.invert(is_same))
            yield from file.iter_batches(_ROW_GROUP)

    def _rows(self) -> Iterator[pa.RecordBatch]:
        for crowd in self._entities.at(self._report.as_of):
            batch = self._batch(crowd)
            self._report.users += len(crowd.batch)
            self._report.changed += len(batch)
            self._progress(self._report.users, crowd.done)
            yield batch

    def _batch(self, crowd: Crowd) -> pa.RecordBatch:
        """Return new rows of the entities whose newest row differs from their present memberships."""
        answered = self._rules.answer(crowd, self._report.as_of)
        keys = answered.entities.cast(pa.string())
        changed = np.zeros(len(keys), dtype=np.bool_)
        columns: dict[str, pa.Array] = {}
        for name in self._view.segments:
            flags = answered.members(name)
            self._report.members[name] += int(np.count_nonzero(flags))
            old = crowd.batch[f"{VIEW}:{name}"]
            old_since = crowd.batch[f"{VIEW}:{name}{SINCE}"].cast(INSTANT)
            was = old.fill_null(False).to_numpy(zero_copy_only=False)
            stays = flags & was & old_since.is_valid().to_numpy(zero_copy_only=False)
            started = pc.if_else(pa.array(stays), old_since, self._entered(name, keys, flags & ~stays))
            changed |= old.is_null().to_numpy(zero_copy_only=False) | (flags != was) | (flags & ~stays)
            columns[name], columns[f"{name}{SINCE}"] = pa.array(flags), started
        columns = {self._key: keys, STAMP: pa.repeat(self._as_of, len(keys)), **columns}
        whole = pa.record_batch([columns[name] for name in self._schema.names], schema=self._schema)
        return whole.filter(pa.array(changed))

    @property
    def _as_of(self) -> pa.Scalar:
        return pa.scalar(self._report.as_of, INSTANT)

    def _entered(self, segment: str, keys: pa.Array, flags: npt.NDArray[np.bool_]) -> pa.Array:
        """Return when new members entered a segment: as the ledger says, else now. Null for all others."""
        new = pc.if_else(pa.array(flags), self._whole_second, pa.scalar(None, INSTANT))
        noted = self._ledger.of(segment, keys)
        return new if noted is None else pc.if_else(pc.and_(pa.array(flags), noted.is_valid()), noted, new)

    @property
    def _whole_second(self) -> pa.Scalar:
        """Return an instant in whole seconds, as Feast keeps times of features."""
        return pa.scalar(self._report.as_of // SECOND * SECOND, INSTANT)


def _reader(view: MembershipView) -> Program:
    """Return a program that reads all columns of the view, so that they are read together with the other features."""
    kinds: Mapping[str, ValueType] = {"Bool": BOOLEAN, "UnixTimestamp": TIME}
    conditions = [Predicate(FeatureRef(VIEW, name), "exists", True, kinds[kind]) for name, kind in view.columns.items()]
    return Program({"memberships": Segment("memberships", AnyOf(tuple(conditions)))})
