"""Events that an application reports: checked, in the state before the call returns, and on their way to the log."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from uuid import uuid4

from rules_engine.clock import format_instant, from_micros, now_micros
from rules_engine.errors import DataError, StoreUnavailableError
from rules_engine.events.declarations.events_yaml import EventDeclarations
from rules_engine.events.declarations.names import declared_names
from rules_engine.events.declarations.plan_data import decode_declarations
from rules_engine.events.declarations.validation import EventValidator, Rejection, check_entity, check_instant
from rules_engine.events.declarations.vocabulary import Vocabulary
from rules_engine.events.join_registry import JoinRegistry
from rules_engine.events.joins import JOIN, PERSON, Join, join_of, passed
from rules_engine.events.refused import Refused, as_bytes
from rules_engine.events.state.store import StateStore
from rules_engine.events.state.waiting import Handover, Waiting, passed_on
from rules_engine.events.streams import FIELD, MAX_WAITING, PARTITIONS, encode_raw, partition_of, stream_key
from rules_engine.features.online.row_writer import RowWriter
from rules_engine.read_plan import ReadPlan
from rules_engine.redis.feast_layout import KeyMaker, sibling_key
from rules_engine.redis.server import event_server
from rules_engine.rules.inputs import Event
from rules_engine.sdk.rules import Rules

#: A command of Redis.
_Command = tuple[Any, ...]

#: Every so many events it is looked how many wait for a worker.
_LOOK_EVERY = 100


def open_states(rules: Rules, client: Any) -> StateStore:
    """Return the states of the definitions that were applied."""
    plan, name = rules.plan, rules.events.name
    key = KeyMaker(plan.project, plan.join_key, plan.key_version)
    requirements, expires = rules.events.requirements, plan.now is None
    outlooks = rules.events.outlooks
    return StateStore(client, lambda entity: sibling_key(key(entity), name), requirements, outlooks, expires=expires)


def declarations_of(plan: ReadPlan) -> EventDeclarations:
    """Return the events as they were declared when the definitions were applied."""
    return decode_declarations(plan.definitions.get("events") or {"events": {}, "features": {}})


@dataclass(frozen=True, slots=True)
class Report:
    """Holds what was reported of an entity: an event, traits, or both.

    Attributes
    ----------
    entity, at, event_id, properties
        as :meth:`EventValidator.check` takes them.
    event
        the name of the event; None: there is none.
    traits
        what is written to the feature view of traits, by the names of features; None: nothing is.
    previous_id
        the id under which the entity was seen before, which is joined to it; None: there is none.
    """

    entity: object
    event: object
    at: object
    event_id: object
    properties: Mapping[str, Any] = field(default_factory=dict)
    traits: Mapping[str, Any] | None = None
    previous_id: object = None

    @property
    def raw(self) -> bytes:
        """Return the report as it is set aside when it is refused."""
        at = format_instant(self.at) if isinstance(self.at, int) else self.at
        event = {"entity": self.entity, "event": self.event, "at": at, "event_id": self.event_id}
        also = {"traits": self.traits, "previous_id": self.previous_id}
        others = {key: part for key, part in also.items() if part}
        return as_bytes({**event, "properties": self.properties, **others})


@dataclass(slots=True)
class _Sending:
    """Holds what is sent in one step: commands, the events among them, and joins by the places of their commands."""

    commands: list[_Command] = field(default_factory=list)
    events: list[tuple[str, Event]] = field(default_factory=list)
    joins: dict[int, Join] = field(default_factory=dict)


class Tracker:
    """Takes events for one read plan. Safe to share between threads.

    Parameters
    ----------
    rules
        the rules of the plan.
    root
        the project's folder.
    timeout
        seconds to wait for the store.

    Attributes
    ----------
    declarations, vocabulary
        the events that are declared, and the names under which they are sent.
    """

    def __init__(self, rules: Rules, root: Path, timeout: float | None) -> None:
        plan = rules.plan
        self.rules = rules
        self._server = event_server(plan.connection, root, timeout)
        self._client: Any = self._server.client()
        self._states = open_states(rules, self._client)
        self._atomic = plan.connection.redis_type != "redis_cluster"
        self._streams = [stream_key(plan.project, partition) for partition in range(PARTITIONS)]
        self.declarations = declarations_of(plan)
        self.vocabulary = Vocabulary(self.declarations)
        self._validator = EventValidator(self.declarations)
        self._registry = JoinRegistry(plan.project)
        self._rows = RowWriter(plan, self.declarations.traits) if self.declarations.traits else None
        self._sent = 0
        self._lock = threading.Lock()

    def track(self, entity: str, name: str, properties: object, at: int, event_id: str | None) -> str:
        """Take an event; gives its id. See :meth:`SegmentClient.track`."""
        if entity == "":
            raise DataError("an event belongs to an entity, and the key is empty")
        now = self.rules.now(None)
        own_id = uuid4().hex if event_id is None else event_id
        event = self._validator.check(name, from_micros(at), own_id, properties, received=max(now, now_micros()))
        if isinstance(event, Rejection):
            raise DataError(
                f"the event `{name}` was refused: {event}", hint=f"see `{name}` in feature_repo/events.yaml"
            )
        raw = encode_raw(entity, name, from_micros(at), own_id, properties or {})
        sending = _Sending()
        self._add(sending, entity, event, raw, now)
        self._server.do(lambda: self._send(sending))
        return own_id

    def join(self, entity: str, person: str, at: int) -> str:
        """Join an entity to a person; gives the person that it belongs to. See :meth:`SegmentClient.alias`."""
        now = self.rules.now(None)
        event = self._validator.check(JOIN, at, None, {PERSON: person}, received=max(now, now_micros()))
        if isinstance(event, Rejection):
            raise DataError(f"`{entity}` cannot be joined to `{person}`: {event}")
        sending = _Sending()
        self._add(sending, entity, event, b"", now)
        answers = self._server.do(lambda: self._send(sending))
        join, _ = self._registry.taken(answers[0], entity)
        if join is None:
            raise DataError(
                f"`{entity}` cannot be joined to `{person}`, who is joined to it already",
                hint="or too many ids were joined one to the other in a row",
            )
        return join.person

    def take(self, reports: Sequence[Report | Refused], source: str) -> list[Rejection | None]:
        """Take what others reported, all of it in one step; gives for each why it was refused, or None.

        What is refused is set aside with the reason, and keeps nothing else from being taken. When it returns, every
        lookup sees what was taken. After an error, take the same again: an event counts once.

        Parameters
        ----------
        reports
            what came; of what was refused already the reason is known.
        source
            where it came from, for those who look at what was refused.

        Raises
        ------
        StoreError
            if the store cannot be written, or too many events wait for workers.
        """
        received = max(self.rules.now(None), now_micros())
        sending = _Sending()
        rejections: list[Rejection | None] = []
        for report in reports:
            refused = report if isinstance(report, Refused) else self._taken(sending, report, received)
            if refused is not None:
                sending.commands.append(refused.command(self.rules.plan.project, source))
            rejections.append(None if refused is None else refused.rejection)
        if sending.commands:
            self._server.do(lambda: self._send(sending))
        return rejections

    def _taken(self, sending: _Sending, report: Report, received: int) -> Refused | None:
        """Add what puts a report into effect; else return what is set aside."""
        entity = check_entity(report.entity)
        if isinstance(entity, Rejection):
            return Refused(report.raw, entity)
        at = check_instant(report.at, received)
        if isinstance(at, Rejection):
            return Refused(report.raw, at)
        events = self._events(entity, at, report, received)
        if isinstance(events, Rejection):
            return Refused(report.raw, events)
        row: list[_Command] = []
        if report.traits and self._rows is not None:
            try:
                traits = declared_names(report.traits, self._rows.features)
                row = self._rows.commands(entity, traits, min(at, received))
            except DataError as error:
                return Refused(report.raw, Rejection("invalid-trait", str(error)))
        for owner, event, raw in events:
            self._add(sending, owner, event, raw, self.rules.now(None))
        sending.commands += row
        return None

    def _events(
        self, entity: str, at: int, report: Report, received: int
    ) -> list[tuple[str, Event, bytes]] | Rejection:
        """Return the join and the event that are reported, with those whose they are, as they go into streams."""
        events: list[tuple[str, Event, bytes]] = []
        if report.previous_id is not None:
            previous = check_entity(report.previous_id)
            join = self._validator.check(JOIN, at, None, {PERSON: entity}, received=received)
            if isinstance(previous, Rejection):
                return previous
            if isinstance(join, Rejection):
                return join
            events += [] if previous == entity else [(previous, join, b"")]
        if report.event is not None:
            event = self._validator.check(report.event, at, report.event_id, report.properties, received=received)
            if isinstance(event, Rejection):
                return event
            raw = encode_raw(entity, event.name, format_instant(at), report.event_id, report.properties)
            events.append((entity, event, raw))
        return events

    def _add(self, sending: _Sending, entity: str, event: Event, raw: bytes, now: int) -> None:
        """Add the commands that put an event into its stream, and behind the state, where readers see it at once.

        On one server both happen together. In a cluster they lie on different nodes: the stream is what counts, and an
        event that is only there is seen when the worker has taken it. A join goes to the stream if it is new.
        """
        if event.name == JOIN:
            join = join_of(entity, replace(event, at=min(event.at, now)))
            entry = encode_raw(entity, JOIN, format_instant(join.at), None, join.event.properties)
            sending.joins[len(sending.commands)] = join
            sending.commands.append(self._registry.take(join, entry))
            return
        to_stream = "XADD", self._streams[partition_of(entity)], "*", FIELD, raw
        sending.commands += [to_stream, *self._states.reported(entity, event)]
        sending.events.append((entity, event))

    def _send(self, sending: _Sending) -> list[Any]:
        """Send what was added, and show persons what was reported under ids that are joined to them."""
        entities = list(dict.fromkeys(entity for entity, _ in sending.events))
        self._check_waiting(sending.events)
        with self._client.pipeline(transaction=self._atomic) as pipeline:
            for command in sending.commands:
                pipeline.execute_command(*command)
            if entities:
                pipeline.execute_command(*self._registry.read(entities))
            answers: list[Any] = pipeline.execute()
        joins = [join for place, join in sending.joins.items() if self._registry.taken(answers[place], join.entity)[1]]
        joined = self._registry.joins(entities, answers[-1]) if entities else {}
        if joins or joined:
            self._show(joins, [(entity, event) for entity, event in sending.events if entity in joined])
        return answers

    def _show(self, joins: Sequence[Join], events: Sequence[tuple[str, Event]]) -> None:
        """Append to the states of persons what the workers will put into them: what joined ids did, and do."""
        ids = [join.entity for join in joins]
        paths = self._registry.paths(self._client, [*ids, *(entity for entity, _ in events)])
        states = self._states.stored(ids)
        with self._client.pipeline(transaction=False) as pipeline:
            for join, state in zip(joins, states, strict=True):
                handover: Waiting = Handover((), join.at, state)
                *via, person = paths[join.entity]
                for entity in via:
                    handover = passed_on(handover, entity)
                for command in self._states.reported(person, handover):
                    pipeline.execute_command(*command)
            for entity, event in events:
                for command in self._states.reported(*passed(event, paths[entity])):
                    pipeline.execute_command(*command)
            pipeline.execute()

    def _check_waiting(self, events: Sequence[tuple[str, Event]]) -> None:
        """Look at the first stream that is written to how much waits in it, every so many events."""
        if not events:
            return
        with self._lock:
            before = self._sent
            self._sent += len(events)
            looks = before // _LOOK_EVERY != self._sent // _LOOK_EVERY or before == 0
        stream = self._streams[partition_of(events[0][0])]
        if looks and self._client.xlen(stream) * PARTITIONS >= MAX_WAITING:
            with self._lock:
                self._sent = 0  # so that the next one looks too
            raise StoreUnavailableError(
                f"{MAX_WAITING:,} events wait to be logged, and no more are taken", hint="start `segments run`"
            )

    def close(self) -> None:
        """Close the connections."""
        self._client.close()
