"""Show what waits, what fired, and what did not and why; sinks, and actions that could not be delivered."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rules_engine.clock import DAY, to_micros
from rules_engine.delivery import queues
from rules_engine.errors import SegmentsError
from rules_engine.redis.server import event_server
from rules_engine.rules.settings.nodes import Role
from rules_engine.rules.triggers.codec import decode_triggers
from rules_engine.rules.triggers.nodes import Trigger
from rules_engine.service.console.rendering import address
from rules_engine.service.console.visits import Content, Visit, redirect
from rules_engine.service.problems import Reply

#: The states of an instance of a trigger, as charts stack them.
STATES = ("fired", "pending", "suppressed", "cancelled")

#: Instances that are counted, the latest; and those that are listed.
_COUNTED, _LISTED = 10_000, 50

#: Days of the chart, and actions that are listed.
_DAYS, _LETTERS = 30, 50

#: Seconds in which the store has to answer.
_PATIENCE = 5.0


@dataclass(frozen=True, slots=True)
class TriggerRow:
    """Counts the instances of a trigger by state, and those that did not fire by reason."""

    trigger: Trigger
    states: Mapping[str, int]
    reasons: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class SinkRow:
    """Says how a sink does: how many actions wait for it, how many were given up, and the worker that serves it."""

    name: str
    waiting: int
    given_up: int
    worker: str | None


@dataclass(frozen=True, slots=True)
class Deliveries:
    """Holds the sinks, and the newest actions that were given up, of how many."""

    sinks: tuple[SinkRow, ...]
    total: int
    newest: tuple[queues.Undelivered, ...]


async def triggers(visit: Visit) -> Content:
    """Show the page of triggers."""
    defined = decode_triggers(visit.service.client.plan.definitions)
    name, state = visit.query("trigger"), visit.query("state")
    instances = await asyncio.to_thread(_instances, visit)
    deliveries, error = None, None
    try:
        deliveries = await asyncio.to_thread(_deliveries, visit, defined)
    except SegmentsError as problem:
        error = problem
    listed = [row for row in instances if (not name or row["trigger"] == name) and (not state or row["state"] == state)]
    return Content(
        "triggers.html",
        {
            "title": "Triggers",
            "active": "/console/triggers",
            "rows": [_row(trigger, instances) for trigger in defined.values()],
            "bars": _by_day(listed),
            "states": STATES,
            "listed": listed[:_LISTED],
            "matching": len(listed),
            "is_all": len(instances) < _COUNTED,
            "chosen": {"trigger": name, "state": state},
            "deliveries": deliveries,
            "error": error,
            "may_resend": visit.may(Role.ADMIN),
            "resent": visit.query("resent"),
        },
    )


async def resend(visit: Visit) -> Reply:
    """Put actions that were given up into their queues again: one, those of a sink, or all."""
    identity, sink = visit.form("id"), visit.form("sink")
    back = await asyncio.to_thread(_resend, visit, [sink] if sink else None, [identity] if identity else None)
    return redirect(address("triggers", resent=back))


def _instances(visit: Visit) -> list[dict[str, Any]]:
    from rules_engine.stream.ledger import Ledger  # loads pyarrow

    return Ledger.of(visit.service.project).instances(limit=_COUNTED)


def _row(trigger: Trigger, instances: list[dict[str, Any]]) -> TriggerRow:
    own = [row for row in instances if row["trigger"] == trigger.name]
    reasons = Counter(row["reason"] for row in own if row["reason"] and row["state"] == "suppressed")
    return TriggerRow(trigger, Counter(row["state"] for row in own), reasons)


def _by_day(instances: list[dict[str, Any]]) -> list[tuple[int, dict[str, int]]]:
    """Return by day how many instances had their last step then, by state; days without any are among them."""
    days: dict[int, Counter[str]] = {}
    for row in instances:
        days.setdefault(to_micros(row["at"]) // DAY, Counter())[row["state"]] += 1
    if not days:
        return []
    last = max(days)
    first = max(min(days), last - _DAYS + 1)
    return [(day * DAY, dict(days.get(day, {}))) for day in range(first, last + 1)]


def _deliveries(visit: Visit, defined: Mapping[str, Trigger]) -> Deliveries:
    plan = visit.service.client.plan
    names = sorted({str(sink) for trigger in defined.values() for sink in trigger.send})
    if not names:
        return Deliveries((), 0, ())
    server = event_server(plan.connection, visit.service.project.root, _PATIENCE)

    def read(client: Any) -> Deliveries:
        total, newest = queues.undelivered(client, plan.project, _COUNTED)
        given_up = Counter(letter.action.sink for letter in newest)
        rows = []
        for name in names:
            worker = client.get(queues.lease_key(plan.project, name.partition(":")[2]))
            waiting = int(client.xlen(queues.queue_key(plan.project, name)))
            rows.append(SinkRow(name, waiting, given_up[name], worker and worker.decode("utf-8", "replace")))
        return Deliveries(tuple(rows), total, tuple(newest[:_LETTERS]))

    with server.connected() as client:
        return server.do(lambda: read(client))


def _resend(visit: Visit, sinks: list[str] | None, identities: list[str] | None) -> int:
    plan = visit.service.client.plan
    server = event_server(plan.connection, visit.service.project.root, _PATIENCE)
    with server.connected() as client:
        return server.do(lambda: queues.resend(client, plan.project, sinks, identities))
