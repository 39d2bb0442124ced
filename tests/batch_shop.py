"""A shop with features and events on disk, for the tests of batch commands; and what its full history says."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

import pyarrow as pa
import pyarrow.parquet as pq

from rules_engine.clock import to_micros
from rules_engine.folders import Project
from rules_engine.rules.catalog import Catalog
from rules_engine.rules.evaluate import Evaluation
from rules_engine.rules.inputs import Event, Inputs, in_order
from rules_engine.rules.program import Program
from rules_engine.stream.event_sink import event_log
from tests.event_shop import EVENTS, NOW, SEGMENTS, checked, random_raw

#: What reads features too, and negates.
MIXED = """\
segment: rich_and_idle
when: {all: [{feature: facts:amount, at_least: 50}, {did_not: view, within: 2h}]}
---
segment: fresh_or_keen
when: {any: [{feature: fresh:score, greater_than: 0}, {in_segment: keen}]}
---
segment: average
when: {avg: {event: view, of: seconds}, within: 1d, between: [60, 200]}
---
segment: first_sku_x
when: {first: {event: cart, of: sku}, within: ever, equals: x}
---
segment: unknown_word
when: {all: [{feature: facts:word, equals: a, or_missing: true}, {did: purchase, within: 30d}]}
---
segment: last_bought_y
when: {last: {event: purchase, of: sku}, within: 3d, equals: y}
---
segment: cheapest
when: {min: {event: cart, of: value}, within: 3d, less_than: 10}
"""

STORE = """\
project: {name}
provider: local
registry: ../.segments/registry.db
offline_store: {{type: duckdb}}
online_store: {{type: {online}}}
entity_key_serialization_version: 3
"""

VIEWS = """\
from datetime import timedelta
from pathlib import Path
from feast import Entity, FeatureView, Field, FileSource, ValueType
from feast.types import Float64, Int64, String

data = Path(__file__).resolve().parent / "data"
user = Entity(name="user", join_keys=["user_id"], value_type=ValueType.STRING)
facts = FeatureView(
    name="facts", entities=[user], ttl=timedelta(0),
    source=FileSource(path=str(data / "facts.parquet"), timestamp_field="at"),
    schema=[Field(name="amount", dtype=Int64), Field(name="word", dtype=String)],
)
fresh = FeatureView(
    name="fresh", entities=[user], ttl=timedelta(hours=30),
    source=FileSource(path=str(data / "fresh.parquet"), timestamp_field="at"),
    schema=[Field(name="score", dtype=Float64)],
)
"""

TTL = timedelta(hours=30)
_COLUMNS: dict[str, dict[str, pa.DataType]] = {
    "facts": {"amount": pa.int64(), "word": pa.string()},
    "fresh": {"score": pa.float64()},
}


@dataclass(frozen=True)
class History:
    """All that ever happened: rows by view, and events by user."""

    rows: Mapping[str, list[dict[str, object]]]
    events: Mapping[str, list[Event]]

    def users(self, as_of: int) -> set[str]:
        """Everyone who has a row or an event by then."""
        known = {str(row["user_id"]) for rows in self.rows.values() for row in rows if to_micros(row["at"]) <= as_of}
        return known | {user for user, events in self.events.items() if any(event.at <= as_of for event in events)}

    def inputs(self, user: str, as_of: int) -> Inputs:
        """What is known of a user at an instant, by brute force."""
        features, updated_at, expires_at = {}, {}, {}
        for view, rows in self.rows.items():
            seen = [row for row in rows if row["user_id"] == user and to_micros(row["at"]) <= as_of]
            if seen:
                newest = max(seen, key=lambda row: row["at"])
                updated_at[view] = to_micros(newest["at"])
                features |= {f"{view}:{name}": newest[name] for name in _COLUMNS[view] if newest[name] is not None}
        if "fresh" in updated_at:
            expires_at["fresh"] = updated_at["fresh"] + TTL // timedelta(microseconds=1) + 1
        events = in_order(event for event in self.events.get(user, ()) if event.at <= as_of)
        return Inputs(features, {}, events, updated_at, expires_at)

    def members(self, program: Program, as_of: int) -> dict[str, frozenset[str]]:
        """By user the segments, as the plain evaluator finds them."""
        found = {}
        for user in self.users(as_of):
            evaluation = Evaluation(program, self.inputs(user, as_of), as_of)
            found[user] = frozenset(name for name in program.names if evaluation.segment(name))
        return found

    def instants(self, seed: int, number: int) -> list[datetime]:
        """Random ones, and those at which something happens, leaves a window or expires, with the ones beside."""
        draw, step = random.Random(seed), timedelta(microseconds=1)
        anywhere = [NOW - timedelta(seconds=draw.randrange(400_000)) for _ in range(number)]
        ats = [to_datetime(event.at) for events in self.events.values() for event in events]
        windows = [timedelta(0), *(timedelta(hours=hours) for hours in (1, 2, 6, 24)), timedelta(minutes=30)]
        edges = [at + draw.choice(windows) for at in draw.sample(sorted(ats), number)]
        edges += [row["at"] + TTL for row in draw.sample(self.rows["fresh"], 3)]
        return anywhere + [edge + shift for edge in edges for shift in (-step, timedelta(0), step)]


def to_datetime(at: int) -> datetime:
    return NOW + timedelta(microseconds=at - to_micros(NOW))


def history(seed: int, users: int = 40) -> History:
    """Users with rows and events, with rows alone, and with events alone."""
    draw = random.Random(seed)
    rows: dict[str, list[dict[str, object]]] = {"facts": [], "fresh": []}
    events = {}
    for number in range(users):
        user, kind = f"u{number:03d}", draw.choice(["both", "both", "rows", "events"])
        if kind != "events":
            rows["facts"] += [
                {
                    "user_id": user,
                    "at": at,
                    "amount": draw.choice([None, 10, 50, 90]),
                    "word": draw.choice(["a", "b", None]),
                }
                for at in _instants(draw, 3)
            ]
            rows["fresh"] += [
                {"user_id": user, "at": at, "score": draw.choice([None, -1.0, 0.5])} for at in _instants(draw, 2)
            ]
        if kind != "rows":
            events[user] = checked(random_raw(draw, draw.randrange(1, 12)))
    return History(rows, events)


def _instants(draw: random.Random, most: int) -> set[datetime]:
    return {NOW - timedelta(seconds=draw.randrange(400_000)) for _ in range(draw.randrange(most + 1))}


def make_shop(
    make_project: Callable[..., Project],
    happened: History,
    segments: str = SEGMENTS + "---\n" + MIXED,
    online: str = "sqlite",
) -> Project:
    """The project, with its sources; its event log holds every event, in several files and some of them twice."""
    store = "sqlite, path: ../.segments/online.db" if online == "sqlite" else online
    project = make_project(
        {
            "feature_repo/feature_store.yaml": STORE.format(name="shop", online=store),
            "feature_repo/views.py": VIEWS,
            "feature_repo/events.yaml": EVENTS,
            "feature_repo/data/.keep": "",
            "segments/all.yaml": f"project: shop\nnow: {NOW.isoformat()}\n---\n{segments}",
        }
    )
    for view, columns in _COLUMNS.items():
        schema = pa.schema([("user_id", pa.string()), ("at", pa.timestamp("us", "UTC")), *columns.items()])
        table = pa.Table.from_pylist(list(happened.rows[view]), schema)
        pq.write_table(table, project.feature_repo / "data" / f"{view}.parquet")
    log, logged = event_log(project), [(user, event) for user, events in happened.events.items() for event in events]
    for start in range(0, len(logged), 40):
        log.append(logged[start : start + 40], stored_at=to_micros(NOW) + start)
    log.append(logged[::7], stored_at=to_micros(NOW) + len(logged))
    return project


__all__ = ["MIXED", "NOW", "Catalog", "History", "history", "make_shop"]
