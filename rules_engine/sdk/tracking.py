"""Events that an application reports: checked, in the state before the call returns, and on their way to the log."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
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
from rules_engine.events.refused import Refused, as_bytes
from rules_engine.events.state.store import StateStore
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
    """

    entity: object
    event: object
    at: object
    event_id: object
    properties: Mapping[str, Any] = field(default_factory=dict)
    traits: Mapping[str, Any] | None = None

    @property
    def raw(self) -> bytes:
        """Return the report as it is set aside when it is refused."""
        at = format_instant(self.at) if isinstance(self.at, int) else self.at
        event = {"entity": self.entity, "event": self.event, "at": at, "event_id": self.event_id}
        return as_bytes({**event, "properties": self.properties, **({"traits": self.traits} if self.traits else {})})


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
        self._server.do(lambda: self._send(self._commands(entity, event, raw), [entity]))
        return own_id

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
        commands: list[_Command] = []
        entities: list[str] = []
        rejections: list[Rejection | None] = []
        for report in reports:
            outcome = report if isinstance(report, Refused) else self._checked(report, received)
            if isinstance(outcome, Refused):
                commands.append(outcome.command(self.rules.plan.project, source))
                rejections.append(outcome.rejection)
            else:
                commands += outcome[1]
                entities.append(outcome[0])
                rejections.append(None)
        if commands:
            self._server.do(lambda: self._send(commands, entities))
        return rejections

    def _checked(self, report: Report, received: int) -> tuple[str, list[_Command]] | Refused:
        """Return the entity of a report and the commands that put it into effect, or what is set aside."""
        entity = check_entity(report.entity)
        if isinstance(entity, Rejection):
            return Refused(report.raw, entity)
        at = check_instant(report.at, received)
        if isinstance(at, Rejection):
            return Refused(report.raw, at)
        commands: list[_Command] = []
        if report.event is not None:
            event = self._validator.check(report.event, at, report.event_id, report.properties, received=received)
            if isinstance(event, Rejection):
                return Refused(report.raw, event)
            raw = encode_raw(entity, event.name, format_instant(at), report.event_id, report.properties)
            commands += self._commands(entity, event, raw)
        if report.traits and self._rows is not None:
            try:
                traits = declared_names(report.traits, self._rows.features)
                commands += self._rows.commands(entity, traits, min(at, received))
            except DataError as error:
                return Refused(report.raw, Rejection("invalid-trait", str(error)))
        return entity, commands

    def _commands(self, entity: str, event: Event, raw: bytes) -> list[_Command]:
        """Return the commands that put an event into its stream, and behind the state, where readers see it at once.

        On one server both happen together. In a cluster they lie on different nodes: the stream is what counts, and an
        event that is only there is seen when the worker has taken it.
        """
        to_stream = "XADD", self._streams[partition_of(entity)], "*", FIELD, raw
        return [to_stream, *self._states.reported(entity, event)]

    def _send(self, commands: Sequence[_Command], entities: Sequence[str]) -> None:
        self._check_waiting(entities)
        if len(commands) == 1:
            self._client.execute_command(*commands[0])
            return
        with self._client.pipeline(transaction=self._atomic) as pipeline:
            for command in commands:
                pipeline.execute_command(*command)
            pipeline.execute()

    def _check_waiting(self, entities: Sequence[str]) -> None:
        """Look at the first stream that is written to how much waits in it, every so many events."""
        if not entities:
            return
        with self._lock:
            before = self._sent
            self._sent += len(entities)
            looks = before // _LOOK_EVERY != self._sent // _LOOK_EVERY or before == 0
        stream = self._streams[partition_of(entities[0])]
        if looks and self._client.xlen(stream) * PARTITIONS >= MAX_WAITING:
            with self._lock:
                self._sent = 0  # so that the next one looks too
            raise StoreUnavailableError(
                f"{MAX_WAITING:,} events wait to be logged, and no more are taken", hint="start `segments run`"
            )

    def close(self) -> None:
        """Close the connections."""
        self._client.close()
