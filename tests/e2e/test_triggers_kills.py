"""Workers and the store are killed at random: transitions, triggers and actions are those of brute force, each once.

``TRIGGER_SEEDS=0-500 pytest tests/e2e/test_triggers_kills.py`` tries more logs than are tried by default.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import orjson
import pytest
import redis

from rules_engine.clock import from_micros, now_micros, to_micros
from rules_engine.delivery.queues import queue_key
from rules_engine.events.declarations.events_yaml import parse_events
from rules_engine.events.streams import FIELD, encode_raw, partition_of, stream_key, stream_keys
from rules_engine.folders import Project
from rules_engine.read_plan import Connection, ReadPlan
from rules_engine.redis.embedded import EmbeddedStore
from rules_engine.rules.catalog import Catalog
from rules_engine.rules.load import load_text
from rules_engine.sdk import SegmentClient
from rules_engine.sdk.rules import encode_definitions
from rules_engine.stream.ledger import Ledger
from rules_engine.stream.worker import Worker
from tests.event_shop import EVENTS
from tests.reference_triggers import Data, Reference
from tests.stores import put_into_effect

SEGMENTS: Mapping[str, Any] = {
    "abandoned": {"sequence": [{"did": "cart"}, {"did_not": "purchase", "within": "4m"}], "within": "1h"},
    "browsing": {"did": "view", "within": "5m", "count": {"at_least": 2}},
    "deep": {"max": {"event": "view", "of": "seconds", "where": {"page": "b"}}, "within": "20m", "at_least": 60},
    "idle": {"all": [{"did": "view", "within": "1h"}, {"did_not": "view", "within": "15m"}]},
    "rich": {"sum": {"event": "cart", "of": "value"}, "within": "ever", "greater_than": 100},
}
TRIGGERS: Mapping[str, Any] = {
    "remind": {
        "on_enter": "abandoned",
        "delay": "5m",
        "cancel_if": {"did": "purchase", "within": "5m"},
        "cap": {"max": 2, "per": "30m"},
        "payload": {"carts": {"count": {"event": "cart"}, "within": "1h"}},
        "send": [{"stream": "actions"}],
    },
    "wave": {"on_exit": "browsing", "cooldown": "10m", "send": [{"stream": "actions"}, {"stream": "others"}]},
    "thank": {"on_event": {"did": "purchase", "where": {"sku": "x"}}, "holdout": {"percent": 50}},
    "nudge": {"on_enter": "idle", "if": {"in_segment": "rich"}, "delay": "1m", "send": [{"stream": "actions"}]},
}

#: A worker that takes few events at once, and puts older ones of a user into small pieces.
WORKER = """
import sys
from functools import partial
from pathlib import Path
from rules_engine.events.state.requirements import requirements_of
from rules_engine.folders import Project
from rules_engine.sdk import event_rules
from rules_engine.stream import leases, worker
event_rules.requirements_of = partial(requirements_of, piece=3)
worker.BATCH, leases.LIFETIME, leases.BEAT = 48, 0.5, 0.1
worker.Worker(Project(Path(sys.argv[1]))).run()
"""

Process = subprocess.Popen[bytes]


def seeds() -> range:
    first, _, last = os.environ.get("TRIGGER_SEEDS", "0-2").partition("-")
    return range(int(first), int(last))


def plan() -> ReadPlan:
    declared = parse_events(EVENTS)
    documents = [{"segment": name, "when": when} for name, when in SEGMENTS.items()]
    documents += [{"trigger": name, "send": [{"stream": "actions"}], **rest} for name, rest in TRIGGERS.items()]
    text = "\n---\n".join(map(json.dumps, documents))
    found = load_text(text, Catalog(events=declared.types, event_features=declared.features))
    definitions = encode_definitions(found, declared)
    return ReadPlan("shop", "user", "user_id", 3, Connection("embedded"), (), definitions, 0, None)


def referred() -> dict[str, dict[str, Any]]:
    """The triggers as the reference has them."""
    on = {"on_enter": "enter", "on_exit": "exit", "on_event": "event"}
    lengths = {"5m": timedelta(minutes=5), "10m": timedelta(minutes=10), "30m": timedelta(minutes=30)}
    lengths["1m"] = timedelta(minutes=1)
    found = {}
    for name, trigger in TRIGGERS.items():
        ((key, cause),) = [(on[key], value) for key, value in trigger.items() if key in on]
        one: dict[str, Any] = {"on": (key, cause)}
        one |= {key: lengths[trigger[key]] for key in ("delay", "cooldown") if key in trigger}
        one |= {key: trigger[key] for key in ("if", "cancel_if") if key in trigger}
        one |= {"cap": (trigger["cap"]["max"], lengths[trigger["cap"]["per"]])} if "cap" in trigger else {}
        one |= {"holdout": trigger["holdout"]["percent"]} if "holdout" in trigger else {}
        one |= {"payload": {name: ("count", what) for name, what in trigger.get("payload", {}).items()}}
        found[name] = one
    return found


def random_log(entropy: random.Random, start: datetime, users: int, number: int) -> list[tuple[str, dict[str, Any]]]:
    """Entries in the order of arrival: late and early events, equal instants, and some twice."""
    entries: list[tuple[str, dict[str, Any]]] = []
    arrival = start
    for place in range(number):
        arrival += timedelta(milliseconds=entropy.choice([0, 0, 1, 500, 4_000, 20_000]))
        name = entropy.choice(["view", "view", "cart", "purchase"])
        properties = {
            "view": {"page": entropy.choice("ab"), "seconds": entropy.choice([1, 60, 300])},
            "cart": {"sku": entropy.choice("xy"), "value": entropy.choice([0.1, 10, 60])},
            "purchase": {"sku": entropy.choice("xy"), "order": f"o{place}"},
        }[name]
        late = timedelta(seconds=entropy.choice([0, 0, 0, 0, 1, 60, 1_200, -30, -400]))
        raw = {"event": name, "at": arrival - late, "id": f"e{place}", "properties": properties, "arrival": arrival}
        entries.append((f"u{entropy.randrange(users)}", raw))
        if entropy.random() < 0.15:
            entity, earlier = entropy.choice(entries)
            entries.append((entity, {**earlier, "arrival": arrival}))
    return entries


def fill(client: redis.Redis, entries: list[tuple[str, dict[str, Any]]]) -> None:
    """Put entries into the streams with the instants of their arrival as ids."""
    for number, (entity, raw) in enumerate(entries):
        data = encode_raw(entity, raw["event"], raw["at"], raw["id"], raw["properties"])
        identity = f"{to_micros(raw['arrival']) // 1000}-{number + 1}"
        client.xadd(stream_key("shop", partition_of(entity)), {FIELD: data}, id=identity)


def expected(entries: list[tuple[str, dict[str, Any]]], until: datetime) -> Iterator[tuple[str, tuple[Any, ...]]]:
    """What brute force says, by entity."""
    users: dict[str, Reference] = {}
    for entity, raw in entries:
        user = users.get(entity)
        if user is None:
            user = users[entity] = Reference(entity, SEGMENTS, referred(), Data(), list(SEGMENTS))
        identity = raw["properties"]["order"] if raw["event"] == "purchase" else raw["id"]
        event = {"event": raw["event"], "at": raw["at"], "event_id": identity, **raw["properties"]}
        # A stream knows milliseconds.
        user.event(event, from_micros(to_micros(raw["arrival"]) // 1000 * 1000))
    for entity, user in users.items():
        user.timers(until)
        for told in user.told:
            yield entity, told


def spawn(project: Project) -> Process:
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    return subprocess.Popen([sys.executable, "-c", WORKER, str(project.root)], env=environment)


def work_and_kill(entropy: random.Random, server: EmbeddedStore, project: Project) -> None:
    """Two workers until all is done: SIGKILL now and then for one of them, or for the store."""
    workers = [spawn(project) for _ in range(2)]
    deadline = time.monotonic() + 60
    try:
        kills = 0
        while time.monotonic() < deadline and (kills < 3 or waits(server)):
            time.sleep(entropy.uniform(0.8, 1.6) if kills < 4 else 1)
            if kills >= 4:
                continue
            kills += 1
            if entropy.random() < 0.25:
                with contextlib.suppress(FileNotFoundError, ValueError, ProcessLookupError):  # it is being started
                    os.kill(int((server.data_dir / "v.pid").read_text()), signal.SIGKILL)
            else:
                place = entropy.randrange(2)
                workers[place].kill()
                workers[place].wait()
                workers[place] = spawn(project)
    finally:
        for worker in workers:
            worker.kill()
            worker.wait()


def waits(server: EmbeddedStore) -> bool:
    try:
        with redis.Redis.from_url(server.url) as client:
            return any(client.xlen(key) for key in stream_keys("shop"))
    except redis.RedisError:
        return True


@pytest.mark.parametrize("seed", seeds())
def test_whatever_is_killed_everything_happens_once(
    make_store: Callable[..., EmbeddedStore], tmp_path: Path, seed: int
) -> None:
    entropy = random.Random(seed)
    server = make_store(tmp_path / "shop")
    project = Project(server.root)
    put_into_effect(plan(), project)
    Worker(project).run(once=True)  # from now on, who is new enters
    now = from_micros(now_micros())
    entries = random_log(entropy, now - timedelta(hours=3), 10, 450)
    until = now - timedelta(minutes=5)
    assert entries[-1][1]["arrival"] < until
    with redis.Redis.from_url(server.url) as client:
        fill(client, entries)
    work_and_kill(entropy, server, project)
    Worker(project).run(once=True)
    ledger = Ledger.of(project)
    rows = [
        (row["entity"], (row["change"], row["segment"], row["at"].astimezone(UTC), row["cause"]))
        for row in ledger.transitions()
    ]
    rows += [
        (row["entity"], (row["state"], row["trigger"], row["cause"], row["at"].astimezone(UTC), row["reason"]))
        for row in ledger.steps()
    ]
    found = Counter((entity, one) for entity, one in rows if instant(one) < until)
    wanted = Counter((entity, short(one)) for entity, one in expected(entries, until))
    assert found == wanted
    assert_sent_once(server, ledger)
    assert_final_answers(project, entries)
    kinds = Counter(one[0] for _, one in wanted)
    assert all(kinds[kind] for kind in ("enter", "exit", "pending", "fired", "cancelled", "suppressed")), kinds


def short(told: tuple[Any, ...]) -> tuple[Any, ...]:
    if told[0] in ("enter", "exit", "baseline"):
        return told[:4]
    state, trigger, cause, at, _, reason, _ = told
    return state, trigger, cause, at, reason


def instant(one: tuple[Any, ...]) -> datetime:
    return next(part for part in one if isinstance(part, datetime))


def assert_sent_once(server: EmbeddedStore, ledger: Ledger) -> None:
    """Every trigger that fired has one action in each of its streams, and nothing else is there."""
    fired = Counter(row["trigger"] for row in ledger.steps() if row["state"] == "fired")
    with redis.Redis.from_url(server.url) as client:
        sent = [
            [orjson.loads(fields[b"action"]) for _, fields in client.xrange(queue_key("shop", f"stream:{name}"))]
            for name in ("actions", "others")
        ]
    assert Counter(action["trigger"] for action in sent[0]) == fired
    assert Counter(action["trigger"] for action in sent[1]) == {"wave": fired["wave"]}
    keys = [action["key"] for actions in sent for action in actions]
    assert len(keys) == len(set(keys))
    assert all(action["payload"]["carts"] >= 1 for action in sent[0] if action["trigger"] == "remind")


def assert_final_answers(project: Project, entries: list[tuple[str, dict[str, Any]]]) -> None:
    """The states say what brute force says, at an instant that is still to come."""
    later = from_micros(now_micros()) + timedelta(minutes=1)
    users: dict[str, Reference] = {}
    for entity, raw in entries:
        user = users.setdefault(entity, Reference(entity, SEGMENTS, {}, Data(), list(SEGMENTS)))
        event = {"event": raw["event"], "at": raw["at"], "event_id": raw["id"], **raw["properties"]}
        if all(one["event_id"] != raw["id"] for one in user.log):
            user.log.append(event)
    with SegmentClient(project) as shop:
        for found in shop.lookup_many(list(users), at=later):
            user = users[found.entity]
            assert found.segments == {name for name, when in SEGMENTS.items() if user.is_true(when, later)}
