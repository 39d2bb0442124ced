"""Read all entities with what some rules read of them, as of an instant: features of the offline store, and events."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc

from rules_engine.batch.events import BatchEvents, sources_of
from rules_engine.features.offline.point_in_time import OfflineUsers, row_instant
from rules_engine.rules.inputs import Event, Inputs
from rules_engine.rules.program import Program
from rules_engine.rules.walk import dependencies, reads_samples
from rules_engine.stream.event_sink import event_log
from rules_engine.targets.columns.arrays import micros, python_value
from rules_engine.targets.columns.codes import EventColumn

if TYPE_CHECKING:
    from rules_engine.events.log.offline import Source
    from rules_engine.features.feast.repo import FeastRepo

#: A program, and the names of those of its segments that are evaluated.
ProgramSegments = tuple[Program, Collection[str]]


@dataclass(frozen=True, eq=False, slots=True)
class Crowd:
    """Holds some entities with what rules read of them.

    Attributes
    ----------
    batch
        a row for each entity: the key, the features, and the instants of the views' rows.
    expires_at
        by view with a ttl: for each entity the first instant at which its values are missing; null without a row.
    events
        by event condition: its value for each entity.
    done
        how far the reading is, from 0 to 1.
    """

    batch: pa.RecordBatch
    expires_at: Mapping[str, pa.Array]
    events: Mapping[Source, EventColumn]
    done: float

    def slice(self, offset: int, rows: int) -> Crowd:
        """Return a slice of the entities."""
        expires_at = {view: column.slice(offset, rows) for view, column in self.expires_at.items()}
        events = {source: column.slice(offset, rows) for source, column in self.events.items()}
        return Crowd(self.batch.slice(offset, rows), expires_at, events, self.done)


class EntityReader:
    """Reads all entities of a project with what some segments read of them.

    Every entity counts that has a row in a feature view that is served online, however old; and if the segments read
    events, every entity that did one of those, however long ago. An id that was joined to a person counts until then.

    Parameters
    ----------
    repo
        the project's open Feast repository.
    rules
        the segments that are evaluated, of one program or of several.

    Attributes
    ----------
    key
        the name of the column of entities: Feast's join key.

    Raises
    ------
    UnknownNameError
        if there is no such segment, or a segment reads a feature that the Feast repository does not have.
    """

    def __init__(self, repo: FeastRepo, *rules: ProgramSegments) -> None:
        self._features = sorted({name for program, names in rules for name in features_read(program, names)})
        self._users = OfflineUsers(repo, self._features)
        self._bare = OfflineUsers(repo, ())
        sources = [source for program, names in rules for source in sources_of(program, names)]
        self._events = BatchEvents(repo, sources) if sources else None
        self._joins = event_log(repo.project).joins()
        self.key = self._users.key
        conditions = [program.segment(name).when for program, names in rules for name in program.closure(names)]
        self._needs_keys = any(map(reads_samples, conditions))

    def at(self, as_of: int, keys: Sequence[str] | None = None, *, to_count: bool = False) -> Iterator[Crowd]:
        """Read all entities as of an instant, or those with these keys; in any order.

        Parameters
        ----------
        to_count
            batches may come without keys, which is faster.

        Raises
        ------
        ProjectError, DataError
            if the offline store or the event log cannot be read, or holds other types than are declared.
        """
        facts = None if self._events is None else self._events.facts(as_of, keys)
        others = None if facts is None else facts.entities
        is_joined = self._is_joined(as_of)
        without_keys = to_count and not self._needs_keys and is_joined is None
        for part in self._users.batches(as_of, keys, others, to_count=without_keys):
            batch, places = part.batch, part.places
            if is_joined is not None:
                remain = pc.invert(is_joined(batch.column(self.key)))
                batch, places = batch.filter(remain), None if places is None else places[remain.to_numpy(False)]
            events = {} if facts is None or places is None else facts.of(places)
            yield Crowd(batch, self._expiry(batch), events, part.done)

    def not_joined(self, batch: pa.RecordBatch, as_of: int) -> pa.RecordBatch:
        """Return rows of entities without those that were joined to somebody by an instant."""
        is_joined = self._is_joined(as_of)
        return batch if is_joined is None else batch.filter(pc.invert(is_joined(batch.column(self.key))))

    def _is_joined(self, as_of: int) -> Callable[[pa.Array], pa.Array] | None:
        """Return what tells of entities whether they were joined to somebody by an instant; None if nobody was."""
        joined = pa.array(self._joins.joined(as_of), pa.large_string())
        return (lambda keys: pc.is_in(keys.cast(pa.large_string()), value_set=joined)) if len(joined) else None

    def entities(self, as_of: int) -> Iterator[pa.Array]:
        """Yield the keys of all entities as of an instant; in any order.

        Raises
        ------
        ProjectError
            if the offline store or the event log cannot be read.
        """
        others = None if self._events is None else self._events.entities(as_of)
        for part in self._bare.batches(as_of, others=others):
            yield self.not_joined(part.batch, as_of).column(self.key)

    def _expiry(self, batch: pa.RecordBatch) -> dict[str, pa.Array]:
        expires_at = {}
        for view, ttl in self._users.ttl.items():
            if row_instant(view) in batch.schema.names:
                instants = batch.column(row_instant(view))
                expires_at[view] = pa.array(micros(instants) + ttl + 1, mask=instants.is_null().to_numpy(False))
        return expires_at

    def inputs(self, as_of: int, keys: Sequence[str]) -> dict[str, Inputs]:
        """Read what the rules read of some entities, without a context. One that was unknown then is absent."""
        entities = sorted(set(keys))
        events = {} if self._events is None else self._events.events(as_of, entities)
        by_entity = {}
        for crowd in self.at(as_of, entities):
            for row, entity in enumerate(crowd.batch.column(self.key).to_pylist()):
                read = self._inputs(entity, crowd.batch, row, events.get(entity, ()))
                by_entity[entity] = replace(read, joined=self._joins.into(entity, as_of))
        return by_entity

    def _inputs(self, entity: str, batch: pa.RecordBatch, row: int, events: tuple[Event, ...]) -> Inputs:
        updated_at = {}
        for name in batch.schema.names:
            if name.startswith("@") and (at := python_value(batch.column(name)[row])) is not None:
                updated_at[name[1:]] = at
        values = {name: python_value(batch.column(name)[row]) for name in self._features}
        expires_at = {
            view: at + self._users.ttl[view] + 1 for view, at in updated_at.items() if view in self._users.ttl
        }
        features = {
            name: tuple(value) if isinstance(value, list) else value
            for name, value in values.items()
            if value is not None
        }
        return Inputs(features, {}, events, updated_at, expires_at, entity)


def features_read(program: Program, names: Iterable[str]) -> set[str]:
    """Return the features that segments read, themselves or through others."""
    conditions = [program.segment(reached).when for reached in program.closure(names)]
    return {feature for condition in conditions for feature in dependencies(condition).features}
