"""Decides the joins that arrive in streams and files: the first one of an id counts, and others are refused."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from rules_engine.clock import format_instant
from rules_engine.events.declarations.validation import Rejection
from rules_engine.events.join_registry import JoinRegistry
from rules_engine.events.joins import JOIN, Join, join_of
from rules_engine.events.log.event_log import Logged
from rules_engine.events.refused import Refused
from rules_engine.events.streams import encode_raw
from rules_engine.rules.inputs import Event
from rules_engine.stream.event_sink import EventSink
from rules_engine.stream.intake import Arrived, Checked


def decide(sink: EventSink, joins: Sequence[Logged], *, to_stream: bool = False) -> list[Logged | Rejection]:
    """Take joins; gives each as it counts, or the reason why it does not.

    Parameters
    ----------
    joins
        events ``$join``, in order.
    to_stream
        put those that are new into the streams, for workers.

    Raises
    ------
    StoreError
        if the store cannot be written; call it again then.
    """
    registry = JoinRegistry(sink.rules.plan.project)
    entries = [join_entry(entity, event) if to_stream else b"" for entity, event in joins]

    def take() -> list[Join | None]:
        with sink.client.pipeline(transaction=False) as pipeline:
            for (entity, event), entry in zip(joins, entries, strict=True):
                pipeline.execute_command(*registry.take(join_of(entity, event), entry))
            answers = pipeline.execute()
        return [registry.taken(answer, entity)[0] for (entity, _), answer in zip(joins, answers, strict=True)]

    decided = sink.on_store(take) if joins else []
    return [_outcome(entity, event, join) for (entity, event), join in zip(joins, decided, strict=True)]


def with_joins_decided(sink: EventSink, batches: Iterable[Checked]) -> None:
    """Decide the joins among the entries of partitions: those that do not count are refused."""
    joins = [(batch, arrived) for batch in batches for arrived in batch.events if _is_join(arrived)]
    outcomes = decide(sink, [(arrived.entity, _arrived_join(arrived)) for _, arrived in joins])
    for (batch, arrived), outcome in zip(joins, outcomes, strict=True):
        if isinstance(outcome, Rejection):
            batch.events.remove(arrived)
            identity = b"%d-%d" % arrived.stream_id
            batch.refused.append((identity, Refused(join_entry(arrived.entity, _arrived_join(arrived)), outcome)))
        else:
            arrived.event = outcome[1]


def _is_join(arrived: Arrived) -> bool:
    return isinstance(arrived.event, Event) and arrived.event.name == JOIN


def _arrived_join(arrived: Arrived) -> Event:
    """Return a join that arrived; one that is dated later than it arrived counts from its arrival on."""
    assert isinstance(arrived.event, Event), arrived
    return replace(arrived.event, at=min(arrived.event.at, arrived.arrival))


def join_entry(entity: str, event: Event) -> bytes:
    """Return a join as its sender would give it."""
    return encode_raw(entity, event.name, format_instant(event.at), None, event.properties)


def _outcome(entity: str, event: Event, join: Join | None) -> Logged | Rejection:
    person = join_of(entity, event).person
    if join is None:
        return Rejection(
            "invalid-join", f"`{person}` is joined to `{entity}`, or too many joins would follow one another"
        )
    if join.person != person:
        return Rejection("joined-elsewhere", f"it has been joined to another person since {format_instant(join.at)}")
    return entity, replace(event, at=join.at)
