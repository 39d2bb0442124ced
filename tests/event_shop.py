"""A shop with events, for the tests of states, tracking, ingestion and workers; and what its full log says."""

from __future__ import annotations

import random
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Any

from rules_engine.clock import SECOND, from_micros, to_micros
from rules_engine.events.declarations.events_yaml import parse_events
from rules_engine.events.declarations.validation import EventValidator
from rules_engine.read_plan import Connection, ReadPlan
from rules_engine.rules.catalog import Catalog
from rules_engine.rules.evaluate import Evaluation
from rules_engine.rules.inputs import Event, Inputs, in_order
from rules_engine.rules.load import load_text
from rules_engine.sdk.rules import Rules, encode_definitions

NOW = datetime(2026, 3, 1, tzinfo=UTC)

EVENTS = """\
events:
  view:
    properties: {page: {type: string}, seconds: {type: number}}
    retention: 30d
    features:
      views_1h: {count: , within: 1h}
      longest_view_1d: {max: seconds, within: 1d}
      last_page_1d: {last: page, within: 1d}
  cart:
    properties: {sku: {type: string}, value: {type: number, minimum: 0}}
    retention: ever
    features:
      cart_value: {sum: value, within: ever}
  purchase:
    properties: {order: {type: string}, sku: {type: string}, due: {type: string, format: date-time}}
    required: [sku]
    id: order
    retention: 30d
"""

SEGMENTS = """\
segment: keen
when: {did: view, within: 1h, count: {at_least: 3}}
---
segment: abandoned
when: {sequence: [{did: cart}, {did_not: purchase, within: 30m}], within: 1d}
---
segment: funnel
when: {sequence: [{did: view}, {did: cart, within: 1h}, {did: purchase, within: 2h}], within: 7d}
---
segment: same_sku
when: {sequence: [{did: cart}, {did: purchase, within: 6h}], match_on: sku, within: 2d}
---
segment: deep
when: {max: {event: view, of: seconds, where: {page: b}}, within: 6h, at_least: 60}
---
segment: wide
when: {distinct: {event: view, of: page}, within: 1d, at_least: 3}
---
segment: spent
when: {feature: events:cart_value, greater_than: 100}
---
segment: idle
when: {did_not: view, within: 2h}
---
segment: ended_on_a
when: {last: {event: view, of: page}, within: 1d, equals: a}
"""


def shop_plan(
    connection: Connection, segments: str = SEGMENTS, now: datetime | None = NOW, events: str = EVENTS
) -> ReadPlan:
    """A read plan without features."""
    declared = parse_events(events)
    catalog = Catalog(events=declared.types, event_features=declared.features)
    definitions = encode_definitions(load_text(segments, catalog), declared)
    return ReadPlan(
        "shop", "user", "user_id", 3, connection, (), definitions, 0, None if now is None else to_micros(now)
    )


def random_raw(entropy: random.Random, number: int, now: datetime = NOW) -> list[dict[str, Any]]:
    """Raw events of one entity: out of order, some at equal instants, some twice, some in the future."""
    events = []
    for place in range(number):
        ago = entropy.choice([entropy.randint(-600, 7_200), entropy.randint(0, 300_000), 3_600, 1_800])
        name = entropy.choice(["view", "view", "cart", "purchase"])
        properties = {
            "view": {"page": entropy.choice("abcd"), "seconds": entropy.choice([1, 59.5, 60, 300])},
            "cart": {"sku": entropy.choice("xy"), "value": entropy.choice([0.1, 10, 60])},
            "purchase": {"sku": entropy.choice("xy"), "order": f"o{place}"},
        }[name]
        at = (now - timedelta(seconds=ago)).isoformat()
        events.append({"event": name, "at": at, "event_id": f"e{place}", "properties": properties})
    again = entropy.sample(events, number // 4)
    mixed = events + again
    entropy.shuffle(mixed)
    return mixed


def checked(raws: Iterable[dict[str, Any]], now: datetime = NOW) -> list[Event]:
    """Raw events as rules read them; the full log."""
    validator = EventValidator(parse_events(EVENTS))
    events = []
    for raw in raws:
        event = validator.check(raw["event"], raw["at"], raw["event_id"], raw["properties"], received=to_micros(now))
        assert isinstance(event, Event), event
        events.append(event)
    return events


def members(rules: Rules, log: Iterable[Event], now: int) -> frozenset[str]:
    """Which segments the plain evaluator finds, over the full log."""
    evaluation = Evaluation(rules.program, Inputs(events=in_order(log)), now)
    return frozenset(name for name in rules.program.names if evaluation.segment(name))


def instants(now: datetime = NOW) -> list[datetime]:
    """Some instants from now on, at which a state must answer as the log does."""
    start = to_micros(now)
    return [from_micros(start + ahead * SECOND) for ahead in (0, 1, 599, 1_800, 3_599, 3_600, 7_200, 86_400, 700_000)]
