"""Timers and looks of workers on a real store: a timer fires once, whoever works; new definitions are looked at."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import orjson
import pytest
import redis

from rules_engine.clock import now_micros
from rules_engine.delivery.queues import queue_key
from rules_engine.errors import StoreDataError, StoreTimeoutError
from rules_engine.events.declarations.events_yaml import parse_events
from rules_engine.events.streams import FIELD, PARTITIONS, encode_raw, partition_of, stream_key
from rules_engine.folders import Project
from rules_engine.read_plan import Connection, ReadPlan
from rules_engine.redis.embedded import EmbeddedStore
from rules_engine.rules.catalog import Catalog
from rules_engine.rules.load import load_text
from rules_engine.sdk import SegmentClient
from rules_engine.sdk.rules import encode_definitions
from rules_engine.stream.leases import leases_key
from rules_engine.stream.ledger import Ledger
from rules_engine.stream.publishing import Publisher
from rules_engine.stream.reevaluation import look_again
from rules_engine.stream.timers import timers_key
from rules_engine.stream.worker import Worker
from rules_engine.triggers.record import Outgoing, TriggerStep
from tests.event_shop import EVENTS
from tests.stores import put_into_effect

SEGMENT = "segment: fresh\nwhen: {did: view, within: 1h}\n"
DELAYED = "---\ntrigger: later\non_event: {did: view}\ndelay: 1s\nsend: [{stream: actions}]\n"


def plan_of(connection: Connection, text: str) -> ReadPlan:
    declared = parse_events(EVENTS)
    found = load_text(text, Catalog(events=declared.types, event_features=declared.features))
    definitions = encode_definitions(found, declared)
    return ReadPlan("shop", "user", "user_id", 3, connection, (), definitions, 0, None)


@pytest.fixture
def project(tmp_path: Path, store: EmbeddedStore) -> Project:
    project = Project(tmp_path)
    put_into_effect(plan_of(Connection("redis", store.connection_string), SEGMENT + DELAYED), project)
    return project


def send(client: redis.Redis, entity: str, identity: str) -> None:
    data = encode_raw(entity, "view", now_micros(), identity, {})
    client.xadd(stream_key("shop", partition_of(entity)), {FIELD: data})


def fired(client: redis.Redis) -> Counter[str]:
    return Counter(
        orjson.loads(fields[b"action"])["entity"] for _, fields in client.xrange(queue_key("shop", "stream:actions"))
    )


def until(condition: Callable[[], bool], seconds: float = 60) -> bool:
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.02)
    return condition()


def test_a_damaged_entity_does_not_keep_others_from_being_judged(project: Project, client: redis.Redis) -> None:
    broken = "u0"
    sound = next(f"u{n}" for n in range(1, 200) if partition_of(f"u{n}") == partition_of(broken))
    for user in (broken, sound):
        send(client, user, "first")
    Worker(project).run(once=True)
    (key,) = [key for key in client.keys("*events:*") if broken.encode() in key and key.startswith(b"{")]
    client.setrange(key, 30, b"damaged")
    for user in (broken, sound):
        send(client, user, "second")
    time.sleep(1.1)
    Worker(project).run(once=True)
    assert fired(client) == {sound: 2}
    assert client.xlen(stream_key("shop", partition_of(broken))) == 0
    with SegmentClient(project) as shop:
        assert shop.is_member(sound, "fresh")
        with pytest.raises(StoreDataError, match="damaged"):
            shop.lookup(broken)


@pytest.mark.slow
def test_what_is_kept_of_actions_is_bounded_by_time_and_number(
    tmp_path: Path, store: EmbeddedStore, client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of an action that everybody is done with it is remembered for minutes that there was one, and nothing else."""
    monkeypatch.setattr("rules_engine.delivery.queues.REMEMBERED_AFTERWARDS", 2)
    immediate = SEGMENT + "---\ntrigger: now\non_event: {did: view}\nsend: [{stream: actions}, {file: audit}]\n"
    immediate += "---\nproject: shop\nsinks: {audit: {file: a.jsonl}}\n"
    project = Project(tmp_path)
    put_into_effect(plan_of(Connection("redis", store.connection_string), immediate), project)
    for number in range(1_000):
        send(client, f"u{number % 50}", f"e{number}")
    Worker(project).run(once=True)
    assert sum(fired(client).values()) == 1_000
    assert until(lambda: not client.keys("segments:{shop}:sent:*"))
    # A state and a record of each entity, some keys of each partition, and some of the project.
    assert len(client.keys("*")) <= 50 * 2 + PARTITIONS * 3 + 20


def test_what_was_published_and_not_noted_is_remembered_for_days(
    project: Project, client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker is killed between publishing and noting it: whoever goes on publishes it once more, and it is known."""
    send(client, "u1", "e1")
    send(client, "u1", "e2")
    Worker(project).run(once=True)
    time.sleep(1.1)
    with monkeypatch.context() as killed:
        killed.setattr(Publisher, "publish", _publish_and_die(Publisher.publish))
        with pytest.raises(KeyboardInterrupt):
            Worker(project).run(once=True)
    marks = client.keys("segments:{shop}:sent:*")
    assert len(marks) == 2
    assert min(client.ttl(mark) for mark in marks) > 2 * 86_400
    Worker(project).run(once=True)
    assert fired(client) == {"u1": 2}
    assert max(client.ttl(mark) for mark in marks) <= 600


def _publish_and_die(publish: Callable[..., None]) -> Callable[..., None]:
    def publish_and_die(self: Publisher, outgoing: Sequence[tuple[str, Outgoing]]) -> None:
        publish(self, outgoing)
        if any(isinstance(one, TriggerStep) and one.sinks for _, one in outgoing):
            raise KeyboardInterrupt

    return publish_and_die


def test_a_worker_that_slept_for_minutes_publishes_nothing_stale(
    project: Project, client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    send(client, "u1", "e1")
    Worker(project).run(once=True)
    time.sleep(1.1)
    with monkeypatch.context() as slept:
        slept.setattr("rules_engine.stream.entity_steps.REMEMBERED_AFTERWARDS", -1)
        with pytest.raises(StoreTimeoutError, match="suspended"):
            Worker(project).run(once=True)
    assert not fired(client)
    Worker(project).run(once=True)
    assert fired(client) == {"u1": 1}


@pytest.mark.slow
def test_each_timer_fires_once_with_two_workers(project: Project, client: redis.Redis) -> None:
    workers = [Worker(project) for _ in range(2)]
    threads = [threading.Thread(target=worker.run) for worker in workers]
    for thread in threads:
        thread.start()
    owners = leases_key("shop")
    assert until(lambda: len({lease.partition(b"/")[0] for lease in client.hvals(owners) if b"/" in lease}) == 2)
    users = [f"u{number}" for number in range(600)]
    for number, user in enumerate(users):
        send(client, user, f"e{number}")
        if number == 300:
            time.sleep(1)  # some are due while others come
    assert until(lambda: len(fired(client)) == len(users))
    for worker in workers:
        worker.stop()
    for thread in threads:
        thread.join()
    assert fired(client) == Counter(users)
    assert all(worker.progress.fired for worker in workers)  # they shared the work
    steps = Ledger.of(project).steps(trigger="later")
    assert Counter(row["state"] for row in steps) == {"pending": len(users), "fired": len(users)}
    assert all(row["at"] == row["due"] for row in steps if row["state"] == "fired")


def test_a_timer_waits_for_what_arrived_before_it(project: Project, client: redis.Redis) -> None:
    cancelled = DELAYED.replace("delay: 1s", "delay: 1s\ncancel_if: {did: purchase, within: 1h}")
    plan = plan_of(
        Connection("redis", ReadPlan.load(project.read_plan).connection.connection_string), SEGMENT + cancelled
    )
    put_into_effect(plan, project)
    send(client, "u", "e1")
    Worker(project).run(once=True)
    data = encode_raw("u", "purchase", now_micros(), "o1", {"sku": "x", "order": "o1"})
    client.xadd(stream_key("shop", partition_of("u")), {FIELD: data})
    time.sleep(1.1)  # nobody works meanwhile; the purchase came in time
    Worker(project).run(once=True)
    assert [row["state"] for row in Ledger.of(project).instances(trigger="later")] == ["cancelled"]
    assert not fired(client)


def test_timers_are_exact_after_a_round(project: Project, client: redis.Redis) -> None:
    send(client, "u", "e1")
    Worker(project).run(once=True)
    found = {
        entity: score
        for partition in range(PARTITIONS)
        for entity, score in client.zrange(timers_key("shop", partition), 0, -1, withscores=True)
    }
    (step,) = Ledger.of(project).steps(trigger="later")
    assert found == {b"u": step["due"].timestamp() * 1_000_000}


def test_everybody_is_looked_at_when_definitions_are_new_and_when_asked(
    project: Project, client: redis.Redis, store: EmbeddedStore
) -> None:
    with SegmentClient(project) as shop:
        for user in ("u1", "u2"):
            shop.track(user, "view")
    Worker(project).run(once=True)
    more = SEGMENT + "---\nsegment: viewed\nwhen: {did: view, within: 1h, count: {at_least: 1}}\n"
    put_into_effect(plan_of(Connection("redis", store.connection_string), more), project)
    assert Worker(project).run(once=True).looked >= 2
    ledger = Ledger.of(project)
    assert {(row["entity"], row["change"]) for row in ledger.transitions(segment="viewed")} == {
        ("u1", "baseline"),
        ("u2", "baseline"),
    }
    with SegmentClient(project) as shop:
        shop.track("u3", "view")  # new since then: enters
    Worker(project).run(once=True)
    (newest,) = ledger.transitions(segment="viewed", entity="u3")
    assert newest["change"] == "enter"
    look_again(project, "materialize", ["user"])
    assert Worker(project).run(once=True).looked >= 1
    assert len(ledger.transitions(segment="viewed")) == 3
    assert Worker(project).run(once=True).looked == 0
