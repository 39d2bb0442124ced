"""Rules for everybody at many instants: all users of a group at one instant after the other, then the next group."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from rules_engine.batch.engine import Answered, BatchRules
from rules_engine.batch.entities import Crowd, EntityReader, features_read
from rules_engine.batch.events import BatchEvents, sources_of
from rules_engine.features.offline.history import History, Instants, OfflineHistory
from rules_engine.features.offline.point_in_time import row_instant
from rules_engine.rules.program import Program
from rules_engine.targets.columns.arrays import micros

if TYPE_CHECKING:
    from rules_engine.features.feast.repo import FeastRepo

#: About how many events of one group of users are in memory.
_EVENTS_PER_GROUP = 1_000_000

#: What some users answer at each instant in turn, each in one part or in several.
Steps = Iterator[Iterator[Answered]]


class RulesThroughTime:
    """Segments of a program, for all users, at many instants.

    Files on this machine, and the event log, are read once for all instants; other offline stores once for each.

    Parameters
    ----------
    repo
        the project's open Feast repository.
    program
        the definitions.
    segments
        those to answer; None for all.
    context
        what a request would bring, the same for everyone at every instant.

    Attributes
    ----------
    names
        the segments that are answered, sorted.
    """

    def __init__(
        self,
        repo: FeastRepo,
        program: Program,
        segments: Collection[str] | None = None,
        context: Mapping[str, Any] | None = None,
    ) -> None:
        reader = EntityReader(repo, (program, program.names if segments is None else segments))
        self._rules = BatchRules(repo, program, segments, context, reader)
        self.names = self._rules.names
        self._history = OfflineHistory(repo, features_read(program, self.names))
        sources = sources_of(program, self.names)
        self._events = BatchEvents(repo, sources) if sources else None

    def groups(self, instants: Instants) -> Iterator[Steps]:
        """For each group of users what they answer at each instant. The ``done`` of an answer is that of everything.

        Raises
        ------
        ProjectError, DataError
            if the offline store or the event log cannot be read, or holds other types than are declared.
        """
        if not self._history.is_available:
            yield (self._reread(instants, number, at) for number, at in enumerate(instants))
            return
        before, events = 0.0, self._events
        others = None if events is None else events.first_seen(instants.last)
        least = 1 if events is None else 1 + events.rows(instants.first, instants.last) // _EVENTS_PER_GROUP
        for group in self._history.groups(instants, others, least):
            yield self._remembered(group, instants, before)
            before = group.done

    def _reread(self, instants: Instants, number: int, at: int) -> Iterator[Answered]:
        for answered in self._rules.answers(at):
            yield Answered(answered.entities, answered.matches, (number + answered.done) / len(instants))

    def _remembered(self, group: History, instants: Instants, before: float) -> Steps:
        log = None
        if self._events is not None:
            log = self._events.history(instants.first, instants.last, group.entities.to_pylist())
        for number, at in enumerate(instants):
            batch = self._rules.not_joined(group.at(number), at)
            events = {} if log is None else log.at(at, batch.column(0))
            done = before + (group.done - before) * (number + 1) / len(instants)
            yield iter([self._rules.answer(Crowd(batch, self._expiry(batch), events, done), at)])

    def _expiry(self, batch: pa.RecordBatch) -> dict[str, pa.Array]:
        expires_at = {}
        for view, ttl in self._history.ttl.items():
            instants = batch.column(row_instant(view))
            expires_at[view] = pa.array(micros(instants) + ttl + 1, mask=instants.is_null().to_numpy(False))
        return expires_at
