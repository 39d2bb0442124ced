"""Events that an application reports: checked, in the state before the call returns, and on their way to the log."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any
from uuid import uuid4

from rules_engine.clock import from_micros, now_micros
from rules_engine.errors import DataError, StoreUnavailableError
from rules_engine.events.declarations.plan_data import decode_declarations
from rules_engine.events.declarations.validation import EventValidator, Rejection
from rules_engine.events.state.store import StateStore
from rules_engine.events.streams import FIELD, MAX_WAITING, PARTITIONS, encode_raw, partition_of, stream_key
from rules_engine.read_plan import ReadPlan
from rules_engine.redis.feast_layout import KeyMaker, sibling_key
from rules_engine.redis.server import event_server
from rules_engine.rules.inputs import Event
from rules_engine.sdk.rules import Rules

#: Every so many events it is looked how many wait for a worker.
_LOOK_EVERY = 100


def open_states(rules: Rules, client: Any) -> StateStore:
    """Return the states of the definitions that were applied."""
    plan, name = rules.plan, rules.events.name
    key = KeyMaker(plan.project, plan.join_key, plan.key_version)
    requirements, expires = rules.events.requirements, plan.now is None
    return StateStore(client, lambda entity: sibling_key(key(entity), name), requirements, expires=expires)


def validator_of(plan: ReadPlan) -> EventValidator:
    """Return a validator of events by the declarations that the plan was written with."""
    return EventValidator(decode_declarations(plan.definitions.get("events") or {"events": {}, "features": {}}))


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
    """

    def __init__(self, rules: Rules, root: Path, timeout: float | None) -> None:
        plan = rules.plan
        self.rules = rules
        self._server = event_server(plan.connection, root, timeout)
        self._client: Any = self._server.client()
        self._states = open_states(rules, self._client)
        self._atomic = plan.connection.redis_type != "redis_cluster"
        self._streams = [stream_key(plan.project, partition) for partition in range(PARTITIONS)]
        self._validator = validator_of(plan)
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
        self._server.do(lambda: self._send(entity, event, raw))
        return own_id

    def _send(self, entity: str, event: Event, raw: bytes) -> None:
        """Put the event into its stream, and behind the state, where readers see it at once.

        On one server both happen together. In a cluster they lie on different nodes: the stream is what counts, and an
        event that is only there is seen when the worker has taken it.
        """
        stream = self._streams[partition_of(entity)]
        behind = self._states.reported(entity, event)
        self._check_waiting(stream)
        if not behind:
            self._client.execute_command("XADD", stream, "*", FIELD, raw)
            return
        with self._client.pipeline(transaction=self._atomic) as pipeline:
            pipeline.execute_command("XADD", stream, "*", FIELD, raw)
            for command in behind:
                pipeline.execute_command(*command)
            pipeline.execute()

    def _check_waiting(self, stream: bytes) -> None:
        with self._lock:
            self._sent += 1
            looks = self._sent % _LOOK_EVERY == 1
        if looks and self._client.xlen(stream) * PARTITIONS >= MAX_WAITING:
            with self._lock:
                self._sent -= 1  # so that the next one looks again
            raise StoreUnavailableError(
                f"{MAX_WAITING:,} events wait to be logged, and no more are taken", hint="start `segments run`"
            )

    def close(self) -> None:
        """Close the connections."""
        self._client.close()
