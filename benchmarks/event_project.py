"""What the benchmarks of events work on: twenty segments, five triggers, and a stream of events."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from typing import Any

from rules_engine.clock import SECOND
from rules_engine.events.declarations.events_yaml import parse_events
from rules_engine.events.streams import FIELD, encode_raw, partition_of, stream_key
from rules_engine.read_plan import Connection, ReadPlan
from rules_engine.rules.catalog import Catalog
from rules_engine.rules.load import load_text
from rules_engine.sdk.rules import encode_definitions
from tests.event_shop import EVENTS, SEGMENTS

BATCH = 2_000

#: Beside the nine segments of the tests (sequences, aggregates, absence): windows over the three events.
WINDOWS = [
    ("view", 2), ("view", 4), ("view", 8), ("view", 24), ("cart", 2), ("cart", 6), ("cart", 24),
    ("purchase", 1), ("purchase", 6), ("purchase", 24), ("purchase", 72),
]  # fmt: skip

TRIGGERS = """
---
trigger: recover_cart
on_enter: abandoned
delay: 10m
cancel_if: {did: purchase, within: 10m}
send: [{stream: actions}]
---
trigger: left
on_exit: keen
cooldown: 1h
send: [{stream: actions}]
---
trigger: thank
on_event: {did: purchase}
cap: {max: 2, per: 30d}
send: [{stream: others}]
---
trigger: greet
on_enter: views_8h
holdout: {percent: 10}
send: [{stream: others}]
---
trigger: suggest
on_enter: wide
if: {in_segment: keen}
payload: {page: {last: {event: view, of: page}, within: 1d}}
send: [{stream: actions}]
"""

DELAYED = "segment: any\nwhen: {did: view, within: 30d}\n---\ntrigger: later\non_event: {did: view}\ndelay: %ds\n"


def segments() -> str:
    """Twenty segments."""
    windows = [
        f"segment: {event}s_{hours}h\nwhen: {{did: {event}, within: {hours}h, count: {{at_least: {min(hours, 5)}}}}}\n"
        for event, hours in WINDOWS
    ]
    return "---\n".join([SEGMENTS, *windows])


def plan(text: str) -> ReadPlan:
    """A read plan without features, on the clock's time."""
    declared = parse_events(EVENTS)
    found = load_text(text, Catalog(events=declared.types, event_features=declared.features))
    definitions = encode_definitions(found, declared)
    return ReadPlan("shop", "user", "user_id", 3, Connection("embedded"), (), definitions, 0, None)


def raw_events(number: int, users: int, seed: int = 1) -> Iterator[dict[str, Any]]:
    """Events that end now, 20 ms apart; three of five are views."""
    entropy = random.Random(seed)
    start = time.time_ns() // 1_000 - number * SECOND // 50
    for place in range(number):
        yield {
            "entity": f"user{entropy.randrange(users)}",
            "event": entropy.choice(["view", "view", "view", "cart", "purchase"]),
            "at": start + place * SECOND // 50,
            "event_id": f"e{seed}-{place}",
            "properties": {"page": entropy.choice("abcd"), "sku": entropy.choice("xyz"), "order": f"o{seed}-{place}"},
        }


def encoded(raw: dict[str, Any]) -> bytes:
    """An event as it is sent."""
    return encode_raw(raw["entity"], raw["event"], raw["at"], raw["event_id"], raw["properties"])


def send(client: Any, raws: list[dict[str, Any]]) -> None:
    """Put events into their streams."""
    for start in range(0, len(raws), BATCH):
        with client.pipeline(transaction=False) as pipeline:
            for raw in raws[start : start + BATCH]:
                key = stream_key("shop", partition_of(raw["entity"]))
                pipeline.execute_command("XADD", key, "*", FIELD, encoded(raw))
            pipeline.execute()
