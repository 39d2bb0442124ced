"""Takes valid events to the offline log and then into the states, and refused ones to a stream of their own."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

from rules_engine.clock import now_micros
from rules_engine.errors import StoreUnavailableError
from rules_engine.events.declarations.events_yaml import EventDeclarations
from rules_engine.events.declarations.validation import EventValidator, Rejection, check_entity
from rules_engine.events.join_registry import JoinRegistry
from rules_engine.events.joins import passed
from rules_engine.events.log.event_log import EventLog, Logged
from rules_engine.events.refused import Refused
from rules_engine.events.state.store import StateStore
from rules_engine.events.streams import (
    FIELD,
    MAX_WAITING,
    partition_of,
    rebuild_key,
    stream_key,
    stream_keys,
)
from rules_engine.folders import Project
from rules_engine.redis.feast_layout import KeyMaker, sibling_key
from rules_engine.redis.server import event_server
from rules_engine.rules.inputs import Event
from rules_engine.sdk.rules import Rules
from rules_engine.sdk.tracking import declarations_of, open_states
from rules_engine.stream.commit import RECORD

_T = TypeVar("_T")

#: Seconds to wait for workers when as many events wait as may.
_ROOM_WAIT = 60.0


def event_log(project: Project) -> EventLog:
    """Return the offline event log of a project."""
    return EventLog(project.feature_repo / "data" / "events")


class EventSink:
    """Takes events for the definitions of one read plan.

    Parameters
    ----------
    project
        the project.
    rules
        the rules of the plan.

    Attributes
    ----------
    client
        the connection to the store.
    """

    def __init__(self, project: Project, rules: Rules) -> None:
        plan = rules.plan
        self.rules = rules
        self._server = event_server(plan.connection, project.root)
        self.client: Any = self._server.client()
        self._log = event_log(project)
        self._validator = EventValidator(declarations_of(plan))
        self.states: StateStore = open_states(rules, self.client)
        self._key = KeyMaker(plan.project, plan.join_key, plan.key_version)
        self._registry = JoinRegistry(plan.project)

    @property
    def now(self) -> int:
        """Return the instant that counts as now."""
        return self.rules.now(None)

    @property
    def received(self) -> int:
        """Return the instant at which an event that comes now is received."""
        return max(self.now, now_micros())

    @property
    def declarations(self) -> EventDeclarations:
        """Return the events as they were declared when the definitions were applied."""
        return declarations_of(self.rules.plan)

    def record_key(self, entity: str) -> bytes:
        """Return the key of an entity's record, which triggers keep."""
        return sibling_key(self._key(entity), RECORD)

    def check(self, raw: Mapping[str, Any], received: int | None = None) -> Logged | Rejection:
        """Return the event, or the reason why it is refused; ``received`` is when it came, if that is not now."""
        entity = check_entity(raw.get("entity"))
        if isinstance(entity, Rejection):
            return entity
        parts = raw.get("event"), raw.get("at"), raw.get("event_id"), raw.get("properties")
        event = self._validator.check(*parts, received=self.received if received is None else received)
        return event if isinstance(event, Rejection) else (entity, event)

    def take(self, events: Sequence[Logged], new: Sequence[Logged]) -> None:
        """Log events, then put them into the states. Repeating it changes nothing.

        Entities whose states now have to be rebuilt from the log are noted for
        :func:`rules_engine.stream.rebuilding.rebuild_noted`.

        Parameters
        ----------
        new
            the events among them that the log does not have yet.

        Raises
        ------
        StoreError
            if the store cannot be written; call it again then.
        """
        self.log(new)
        paths = self._paths(events)
        self.keep(grouped(_passed(events, paths)), self.now)
        later = self._paths(events)
        if later != paths:  # what joined them has handed over a state that may lack these events
            joined = [logged for logged in events if later.get(logged[0]) != paths.get(logged[0])]
            self.keep(grouped(_passed(joined, later)), self.now)

    def _paths(self, events: Sequence[Logged]) -> dict[str, list[str]]:
        """Return of each entity that is joined to somebody the ids that its events pass."""
        entities = dict.fromkeys(entity for entity, _ in events)
        return self.on_store(lambda: self._registry.paths(self.client, entities))

    def note_to_rebuild(self, entities: Iterable[str]) -> None:
        """Note entities whose states have to be rebuilt from the log.

        Raises
        ------
        StoreError
            if the store cannot be written.
        """
        names = [entity.encode("utf-8", "surrogatepass") for entity in entities]
        if names:
            self.on_store(lambda: self.client.sadd(rebuild_key(self.rules.plan.project), *names))

    def keep(
        self,
        groups: Mapping[str, Sequence[Event]],
        now: int,
        joined: Mapping[str, Mapping[str, int]] | None = None,
    ) -> None:
        """Put logged events into the states, and note which states have to be rebuilt from the log.

        Parameters
        ----------
        groups
            by entity, the events that count for it.
        joined
            by entity, the ids whose events are among them, with the instants of their joins.

        Raises
        ------
        StoreError
            if the store cannot be written; call it again then.
        """
        self.note_to_rebuild(self.on_store(lambda: self.states.update(groups, now, joined)))

    def log(self, events: Sequence[Logged]) -> None:
        """Log events."""
        if events:
            self._log.append(events, now_micros())

    def send(self, events: Iterable[tuple[str, bytes]]) -> None:
        """Put events, as their senders gave them, into the streams of their entities."""
        project = self.rules.plan.project
        with self.client.pipeline(transaction=False) as pipeline:
            for entity, raw in events:
                pipeline.execute_command("XADD", stream_key(project, partition_of(entity)), "*", FIELD, raw)
            pipeline.execute()

    def report(self, events: Sequence[tuple[str, bytes]]) -> None:
        """Send events as :meth:`send` does, after waiting until workers have made room for them.

        Raises
        ------
        StoreError
            if the store cannot be written, or no worker makes room for a minute.
        """
        keys = stream_keys(self.rules.plan.project)
        deadline = time.monotonic() + _ROOM_WAIT
        while self.on_store(lambda: sum(self.client.xlen(key) for key in keys)) + len(events) > MAX_WAITING:
            if time.monotonic() > deadline:
                raise StoreUnavailableError(
                    f"{MAX_WAITING:,} events wait to be judged, and no more are taken", hint="start `segments run`"
                )
            time.sleep(0.1)
        self.on_store(lambda: self.send(events))

    def refuse(self, refused: Iterable[Refused], source: str) -> None:
        """Set refused events aside, with the reason."""
        project = self.rules.plan.project
        commands = [event.command(project, source) for event in refused]

        def send() -> None:
            with self.client.pipeline(transaction=False) as pipeline:
                for command in commands:
                    pipeline.execute_command(*command)
                pipeline.execute()

        if commands:
            self.on_store(send)

    def on_store(self, action: Callable[[], _T]) -> _T:
        """Do something with the store; the embedded one is started if it is down.

        Raises
        ------
        StoreError
            if the store cannot be used.
        """
        return self._server.do(action)

    def close(self) -> None:
        """Close the connection."""
        self.client.close()


def _passed(events: Iterable[Logged], paths: Mapping[str, Sequence[str]]) -> Iterator[Logged]:
    """Yield events with the entities for whom they count."""
    for entity, event in events:
        path = paths.get(entity)
        yield (entity, event) if path is None else passed(event, path)


def grouped(events: Iterable[Logged]) -> dict[str, list[Event]]:
    """Group events by entity."""
    groups: dict[str, list[Event]] = {}
    for entity, event in events:
        groups.setdefault(entity, []).append(event)
    return groups
