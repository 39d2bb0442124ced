"""Loads entities from the store, decodes and checks them, and caches them while no other worker changes them."""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field

from rules_engine.errors import StoreDataError
from rules_engine.events.state.encoding import decode_state, has_pieces
from rules_engine.events.state.entity_state import EventState, empty_state
from rules_engine.events.state.requirements import StateRequirements
from rules_engine.events.state.store import hiding
from rules_engine.events.state.stored import reading
from rules_engine.events.state.waiting import Waiting, split, waiting_events, without_pieces
from rules_engine.redis.pipe import Command, Pipe
from rules_engine.stream.commit import Commits, StoredEntity
from rules_engine.triggers.encoding import decode_record
from rules_engine.triggers.record import Record

#: The number of entities that are cached, as events of one entity often come close together, and how many events in
#: pieces all of them may have.
REMEMBERED, REMEMBERED_EVENTS = 4_000, 500_000

_log = logging.getLogger("rules_engine.worker")


@dataclass(slots=True)
class LoadedEntity:
    """The state and the record of an entity, decoded, and the waiting events that are appended to the state."""

    stored: StoredEntity
    state: EventState
    record: Record
    waiting: list[Waiting] = field(default_factory=list)

    @property
    def older(self) -> int:
        """Return how many events lie in pieces."""
        return sum([kept.older.number for kept in self.state.kept])


class LoadedEntities:
    """Reads entities from the store, through a cache.

    Parameters
    ----------
    pipe
        the connection to the store.
    commits
        knows the keys of entities.
    requirements
        the content of event states.
    rebuild_key
        the key of the set of entities whose states have to be rebuilt from the log.
    """

    def __init__(self, pipe: Pipe, commits: Commits, requirements: StateRequirements, rebuild_key: bytes) -> None:
        self._pipe = pipe
        self._commits = commits
        self._requirements = requirements
        self._rebuild_key = rebuild_key
        self._nothing = empty_state(requirements)
        self._remembered: OrderedDict[str, LoadedEntity] = OrderedDict()
        self._older = 0

    def forget(self) -> None:
        """Empty the cache: other workers may have changed the entities."""
        self._remembered.clear()
        self._older = 0

    def drop(self, entity: str) -> None:
        """Remove an entity from the cache: another worker has changed it."""
        dropped = self._remembered.pop(entity, None)
        if dropped is not None:
            self._older -= dropped.older

    def load(self, entities: Sequence[str]) -> dict[str, LoadedEntity]:
        """Return the entities that can be read. The others are noted, to be rebuilt from the log.

        Raises
        ------
        StoreError
            if the store cannot be read.
        """
        remembered = self._remembered
        loaded: dict[str, LoadedEntity] = {}
        missing = []
        for entity in entities:
            cached = remembered.get(entity)
            if cached is None:
                missing.append(entity)
            else:
                remembered.move_to_end(entity)
                loaded[entity] = cached
        keys = [key for entity in missing for key in self._commits.keys(entity)]
        raws = self._pipe.run([("GET", key) for key in keys])
        many = [place for place in range(0, len(raws), 2) if raws[place] is not None and has_pieces(raws[place])]
        for place, raw in zip(many, self._pipe.run([reading(keys[place]) for place in many]), strict=True):
            raws[place] = raw
        damaged = []
        for place, entity in enumerate(missing):
            try:
                loaded[entity] = self._decoded(*raws[2 * place : 2 * place + 2])
            except StoreDataError as error:
                damaged.append(entity)
                _log.error("an entity is left out, because its data in the store is damaged: %s", error)
        if damaged:
            hidden = [hiding(self._commits.keys(entity)[0]) for entity in damaged]
            self._pipe.run([*self.noted(damaged), *hidden])
            _log.error("`segments ingest --rebuild` rebuilds the data of %d damaged entities", len(damaged))
        return loaded

    def _decoded(self, raw: bytes | None, record: bytes | None) -> LoadedEntity:
        pieces, rest = without_pieces(raw)
        state, waiting = split(rest)
        return LoadedEntity(
            StoredEntity(state, record or b"", waiting, pieces.keys()),
            decode_state(state, self._requirements, pieces) if state else self._nothing,
            decode_record(record),
            waiting_events(waiting) if waiting else [],
        )

    def remember(self, entity: str, loaded: LoadedEntity) -> None:
        """Put an entity into the cache as it was written."""
        self.drop(entity)
        self._remembered[entity] = loaded
        self._older += loaded.older
        while len(self._remembered) > REMEMBERED or self._older > REMEMBERED_EVENTS:
            self.drop(next(iter(self._remembered)))

    def noted(self, entities: Sequence[str]) -> list[Command]:
        """Return the command that notes entities to be rebuilt from the log; no command if there are none."""
        return [("SADD", self._rebuild_key, *entities)] if entities else []
