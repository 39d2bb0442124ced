"""Rebuilds the event states of some entities from the event log, where adding events to them is not enough.

A total ``within: ever`` (a sum, a mean, a count that is shown) keeps events only while they may be redelivered. Then
they are counted, and an event from before that instant is left out, because it might have been counted already. So
after a late event, and after damage, the state is rebuilt from the log, which has every event once, in order. The
entities to rebuild are noted in the store, so that none is forgotten when a process dies.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from rules_engine.clock import LAST_INSTANT
from rules_engine.errors import StoreDataError
from rules_engine.events.joins import Joins
from rules_engine.events.log.event_log import decode_properties
from rules_engine.events.log.offline import EventPiece, OfflineEvents, Source
from rules_engine.events.state.store import BATCH, CLOCK_SKEW
from rules_engine.events.streams import rebuild_key
from rules_engine.folders import Project
from rules_engine.rules.inputs import Event
from rules_engine.stream.event_sink import EventSink, event_log, grouped
from rules_engine.triggers.encoding import decode_record

_log = logging.getLogger("rules_engine.worker")

#: The most times that entities are rebuilt in a row while late events of theirs keep coming.
_ATTEMPTS = 10


def entities_to_rebuild(sink: EventSink) -> list[str]:
    """Return the entities whose states have to be rebuilt, sorted.

    Raises
    ------
    StoreError
        if the store cannot be read.
    """
    key = rebuild_key(sink.rules.plan.project)
    names: set[bytes] = sink.on_store(lambda: sink.client.smembers(key))
    return sorted(entity.decode("utf-8", "surrogatepass") for entity in names)


def rebuild_noted(project: Project, sink: EventSink) -> int:
    """Rebuild the states of all noted entities. Return how many were rebuilt.

    Raises
    ------
    StoreError
        if the store cannot be used.
    ProjectError
        if the event log cannot be read.
    """
    entities = entities_to_rebuild(sink)
    return len(entities) - len(rebuild_states(project, sink, entities))


def rebuild_states(project: Project, sink: EventSink, entities: Collection[str]) -> set[str]:
    """Rebuild the states of some entities from the event log. Workers may run meanwhile.

    Returns the entities that have to be rebuilt once more, because late events kept coming; they stay noted.

    Parameters
    ----------
    entities
        their keys. The state of an entity without events in the log is removed.

    Raises
    ------
    StoreError
        if the store cannot be used.
    ProjectError
        if the event log cannot be read.
    """
    joins = event_log(project).joins()
    waiting = {*entities, *map(joins.owner, entities)}
    _drop_damaged_records(sink, sorted(waiting))
    key = rebuild_key(sink.rules.plan.project)
    for _ in range(_ATTEMPTS):
        if not waiting:
            break
        late = _rebuild_once(project, sink, sorted(waiting))
        done = [entity.encode("utf-8", "surrogatepass") for entity in waiting - late]
        if done:
            sink.on_store(lambda done=done: sink.client.srem(key, *done))  # type: ignore[misc]
        waiting = late
    if waiting:
        noted = [entity.encode("utf-8", "surrogatepass") for entity in waiting]
        sink.on_store(lambda: sink.client.sadd(key, *noted))
    return waiting


def _rebuild_once(project: Project, sink: EventSink, entities: list[str]) -> set[str]:
    """Rebuild states, then add the events logged meanwhile. Return the entities that have to be rebuilt once more."""
    log, requirements = event_log(project), sink.states.requirements
    names = [requirement.event for requirement in requirements.events]
    earlier = log.all_files(names)
    sources: list[Source] = [*requirements.limits, *requirements.sequences]
    offline = OfflineEvents(log, sources, project.state_dir)
    missing = set(entities)
    joins = offline.joins
    for piece in offline.pieces(LAST_INSTANT, entities, sink.now - CLOCK_SKEW):
        for groups in _groups(piece, offline.names):
            missing -= groups.keys()
            _rebuild(sink, groups, joins)
    _rebuild(sink, {entity: [] for entity in missing}, joins)
    rebuilt = set(entities)
    added = (joins.attributed(entity, event) for entity, event in log.added(names, earlier))
    groups = grouped(logged for logged in added if logged[0] in rebuilt)
    return sink.on_store(lambda: sink.states.update(groups, sink.now))


def _drop_damaged_records(sink: EventSink, entities: Sequence[str]) -> None:
    """Remove the records of entities that cannot be read: their triggers start anew."""
    for start in range(0, len(entities), BATCH):
        keys = [sink.record_key(entity) for entity in entities[start : start + BATCH]]
        sink.on_store(lambda keys=keys: _drop_unreadable(sink.client, keys))  # type: ignore[misc]


def _drop_unreadable(client: Any, keys: Sequence[bytes]) -> None:
    with client.pipeline(transaction=False) as pipeline:
        for key in keys:
            pipeline.get(key)
        for key, record in zip(keys, pipeline.execute(), strict=True):
            try:
                decode_record(record)
            except StoreDataError:
                _log.warning("the record of an entity is damaged and was removed: its triggers start anew")
                pipeline.delete(key)
        pipeline.execute()


def _rebuild(sink: EventSink, groups: Mapping[str, Sequence[Event]], joins: Joins) -> None:
    joined = {entity: joins.into(entity) for entity in groups}
    sink.on_store(lambda: sink.states.rebuild(groups, sink.now, joined))


def _groups(piece: EventPiece, names: tuple[str, ...]) -> Iterator[dict[str, list[Event]]]:
    """Yield the events of a piece by entity, for a few hundred entities at a time."""
    entities = piece.entities.to_pylist()
    rows = zip(
        piece.owners.tolist(),
        piece.names.tolist(),
        piece.ats.tolist(),
        piece.ids.to_pylist(),
        piece.properties.to_pylist(),
        strict=True,
    )
    groups: dict[str, list[Event]] = {}
    for owner, name, at, identity, properties in rows:
        entity = entities[owner]
        if entity not in groups and len(groups) == BATCH:
            yield groups
            groups = {}
        groups.setdefault(entity, []).append(Event(names[name], at, identity, decode_properties(properties)))
    yield groups
