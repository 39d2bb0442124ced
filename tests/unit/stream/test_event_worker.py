"""The worker and the backfill on a real store and a real log."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from pathlib import Path

import orjson
import pytest
import redis

from rules_engine.clock import to_micros
from rules_engine.deploy.backfill import Backfill, BackfillProgress
from rules_engine.errors import StoreDataError, StoreUnavailableError
from rules_engine.events.streams import (
    FIELD,
    PARTITIONS,
    encode_raw,
    partition_of,
    refused_key,
    stream_key,
    stream_keys,
)
from rules_engine.folders import Project
from rules_engine.read_plan import Connection, ReadPlan
from rules_engine.redis.embedded import EmbeddedStore
from rules_engine.redis.pipe import Pipe
from rules_engine.redis.server import RedisServer
from rules_engine.redis.store_mark import StoreMark
from rules_engine.rules.inputs import Event
from rules_engine.sdk import SegmentClient
from rules_engine.sdk.rules import Rules
from rules_engine.stream import leases
from rules_engine.stream import worker as worker_module
from rules_engine.stream.event_sink import EventSink, event_log
from rules_engine.stream.refused import refused_events, replay_refused
from rules_engine.stream.timers import Timers, timers_key
from rules_engine.stream.worker import Worker
from tests.event_shop import NOW, SEGMENTS, checked, instants, members, random_raw, shop_plan
from tests.stores import put_into_effect

WIDER = SEGMENTS + "---\nsegment: viewed\nwhen: {did: view, within: 20d, count: {at_least: 4}}\n"


@pytest.fixture
def project(tmp_path: Path, store: EmbeddedStore) -> Project:
    project = Project(tmp_path)
    put_into_effect(shop_plan(Connection("redis", store.connection_string)), project)
    return project


def send(client: redis.Redis, entity: str, raw: Mapping[str, object]) -> None:
    data = encode_raw(entity, raw["event"], raw["at"], raw["event_id"], raw["properties"])
    client.xadd(stream_key("shop", partition_of(entity)), {FIELD: data})


def pipe_of(store: EmbeddedStore) -> Pipe:
    return RedisServer(Connection("redis", store.connection_string), Path()).pipe()


def waiting(client: redis.Redis) -> int:
    return sum(client.xlen(key) for key in stream_keys("shop"))


def logged(project: Project) -> set[tuple[str, str]]:
    log = event_log(project)
    return {(entity, event.id) for day in log.days() for entity, event in log.read(day, ["view", "cart", "purchase"])}


def assert_answers(project: Project, logs: Mapping[str, list[dict[str, object]]]) -> None:
    rules = Rules(ReadPlan.load(project.read_plan))
    with SegmentClient(project) as client:
        for at in instants():
            for found in client.lookup_many(list(logs), at=at):
                assert found.segments == members(rules, checked(logs[found.entity]), to_micros(at)), (found.entity, at)


def random_logs(seed: int, users: int = 8) -> dict[str, list[dict[str, object]]]:
    entropy = random.Random(seed)
    return {f"u{number}": random_raw(entropy, entropy.randint(1, 20)) for number in range(users)}


def test_the_worker_logs_and_keeps_what_waits_and_ends_it(project: Project, client: redis.Redis) -> None:
    logs = random_logs(1)
    for entity, log in logs.items():
        for raw in log:
            send(client, entity, raw)
    seen: dict[str, list[Event]] = {}

    def after(groups: Mapping[str, Sequence[Event]]) -> None:
        for entity, events in groups.items():
            seen.setdefault(entity, []).extend(events)

    progress = Worker(project, after=after).run(once=True)
    total = sum(map(len, logs.values()))
    assert (progress.accepted, progress.refused) == (total, 0)
    assert waiting(client) == 0
    assert client.zcard(leases.workers_key("shop")) == 0
    assert logged(project) == {(entity, event.id) for entity, log in logs.items() for event in checked(log)}
    assert {entity: len(events) for entity, events in seen.items()} == {name: len(log) for name, log in logs.items()}
    assert_answers(project, logs)


def test_what_was_tracked_is_logged_and_changes_no_answer(project: Project, client: redis.Redis) -> None:
    with SegmentClient(project) as shop:
        shop.track("u", "cart", {"value": 60}, at=NOW)
        Worker(project).run(once=True)
        assert shop.features("u", ["events:cart_value"]) == {"events:cart_value": 60}
    assert len(logged(project)) == 1
    assert waiting(client) == 0


def test_events_that_are_none_are_set_aside_and_can_be_replayed(project: Project, client: redis.Redis) -> None:
    good = {"event": "view", "at": NOW.isoformat(), "event_id": "1", "properties": {"page": "a"}}
    send(client, "u", good)
    send(client, "", good)
    send(client, "u", {**good, "event": "veiw", "event_id": "2"})
    client.xadd(stream_key("shop", 0), {FIELD: b"{"})
    client.xadd(stream_key("shop", 0), {b"other": b"field"})
    progress = Worker(project).run(once=True)
    assert (progress.accepted, progress.refused) == (1, 4)
    sink = EventSink(project, Rules(ReadPlan.load(project.read_plan)))
    total, newest = refused_events(sink, 10)
    assert total == 4
    codes = [one["code"] for one in newest]
    assert sorted(codes) == ["invalid-event", "invalid-event", "missing-entity", "unknown-event"]
    place = codes.index("unknown-event")
    assert newest[place]["event"]["event"] == "veiw"
    assert replay_refused(sink) == (0, 4)
    (identity, fields) = client.xrevrange(refused_key("shop"))[place]
    client.xdel(refused_key("shop"), identity)
    mended = orjson.dumps({**orjson.loads(fields[FIELD]), "event": "view"})
    client.xadd(refused_key("shop"), {**fields, FIELD: mended})
    assert replay_refused(sink) == (1, 3)
    Worker(project).run(once=True)
    assert logged(project) == {("u", "view:1"), ("u", "view:2")}
    sink.close()


def test_a_dead_workers_partitions_are_taken_over(
    project: Project, store: EmbeddedStore, client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leases, "LIFETIME", 0.6)
    logs = random_logs(2)
    for entity, log in logs.items():
        for raw in log:
            send(client, entity, raw)
    dead = leases.Leases(lambda: pipe_of(store), "shop")
    dead.beat()
    assert len(dead.partitions()) == PARTITIONS
    progress = Worker(project).run(once=True)  # waits until the leases end, for nothing may be left over
    assert progress.accepted == sum(map(len, logs.values()))
    assert waiting(client) == 0
    assert not dead.partitions()
    assert_answers(project, logs)


def test_workers_share_evenly_and_hand_over_at_once(store: EmbeddedStore) -> None:
    one, two, three = (leases.Leases(lambda: pipe_of(store), "shop") for _ in range(3))
    one.beat()
    for worker in (two, one, two):
        worker.beat()
        worker.give_back_surplus()
        worker.beat()
    assert (len(one.partitions()), len(two.partitions())) == (8, 8)
    assert not one.partitions().keys() & two.partitions().keys()
    for worker in (three, one, two, three):
        worker.beat()
        worker.give_back_surplus()
        worker.beat()
    assert sorted(len(worker.partitions()) for worker in (one, two, three)) == [5, 5, 6]
    three.leave()
    one.beat()
    two.beat()
    assert (len(one.partitions()), len(two.partitions())) == (8, 8)
    assert not one.partitions().keys() & two.partitions().keys()


def test_who_lost_a_lease_changes_nothing(store: EmbeddedStore, client: redis.Redis) -> None:
    worker = leases.Leases(lambda: pipe_of(store), "shop")
    worker.beat()
    (entry,) = [client.xadd(stream_key("shop", 3), {FIELD: b"{}"})]
    timers = Timers(pipe_of(store), "shop")
    lease = worker.partitions()[3]
    worker.leave()
    assert not timers.settle(3, lease, {"u": 5}, [entry])
    assert waiting(client) == 1
    assert client.zcard(timers_key("shop", 3)) == 0
    worker = leases.Leases(lambda: pipe_of(store), "shop")
    worker.beat()
    assert timers.settle(3, worker.partitions()[3], {"u": 5}, [entry])
    assert waiting(client) == 0
    assert client.zscore(timers_key("shop", 3), "u") == 5


def test_a_worker_stops_after_its_batch(project: Project, client: redis.Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker_module, "BATCH", 3)
    for number in range(9):
        send(client, "u", {"event": "view", "at": NOW.isoformat(), "event_id": str(number), "properties": {}})
    worker = Worker(project, after=lambda groups: worker.stop())
    taken = worker.run().accepted
    assert 0 < taken < 9
    assert waiting(client) == 9 - taken


def test_without_a_store_once_is_an_error_and_a_worker_waits(
    make_store: Callable[..., EmbeddedStore], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = make_store(tmp_path / "server")
    server.ensure_running()
    project = Project(tmp_path / "project")
    put_into_effect(shop_plan(Connection("redis", server.connection_string)), project)
    worker, once = Worker(project), Worker(project)
    server.stop()
    with pytest.raises(StoreUnavailableError):
        once.run(once=True)
    thread = threading.Thread(target=worker.run)
    thread.start()
    time.sleep(0.5)
    server.ensure_running()
    with redis.Redis.from_url(server.url) as client:
        send(client, "u", {"event": "view", "at": NOW.isoformat(), "event_id": "1", "properties": {}})
        deadline = time.monotonic() + 60
        while not worker.progress.accepted and time.monotonic() < deadline:
            time.sleep(0.05)
    worker.stop()
    thread.join()
    assert worker.progress.accepted == 1


# --- new definitions ------------------------------------------------------------------------------------------------


def apply(project: Project, store: EmbeddedStore, segments: str, reports: list[BackfillProgress] | None = None) -> None:
    """What `segments apply` does with states, without Feast."""
    plan = shop_plan(Connection("redis", store.connection_string), segments)
    backfill = Backfill(project, plan, None if reports is None else reports.append)
    backfill.prepare()
    plan.save(project.read_plan)
    backfill.finish()
    backfill.close()


@pytest.mark.slow
def test_new_definitions_are_answered_from_the_log(project: Project, store: EmbeddedStore, client: redis.Redis) -> None:
    logs = random_logs(3)
    for entity, log in logs.items():
        for raw in log:
            send(client, entity, raw)
    Worker(project).run(once=True)
    with SegmentClient(project) as shop:
        shop.track("late", "view", {"page": "a"}, at=NOW - timedelta(days=15))  # it waits in the stream
        for number in range(3):
            shop.track("late", "view", {"page": "a"}, at=NOW - timedelta(days=15, hours=number + 1))
    reports: list[BackfillProgress] = []
    apply(project, store, WIDER, reports)
    assert reports[-1].done == reports[-1].days > 1
    assert_answers(project, logs)
    with SegmentClient(project) as shop:
        assert shop.is_member("late", "viewed")
    states = [key for key in client.scan_iter() if b"}:events:" in key and key.startswith(b"{")]
    assert sum(client.ttl(key) == -1 for key in states) == len(logs) + 1
    assert sum(client.ttl(key) > 0 for key in states) >= len(logs)
    reports.clear()
    apply(project, store, WIDER, reports)
    assert reports == []  # nothing is to be done twice
    apply(project, store, SEGMENTS, reports)  # and back: the old states stay
    assert reports
    assert_answers(project, logs)
    states = [key for key in client.scan_iter() if b"}:events:" in key and key.startswith(b"{")]
    assert sum(client.ttl(key) == -1 for key in states) >= len(logs)


def test_an_interrupted_backfill_goes_on_where_it_ended(
    project: Project, store: EmbeddedStore, client: redis.Redis
) -> None:
    logs = random_logs(4)
    for entity, log in logs.items():
        for raw in log:
            send(client, entity, raw)
    Worker(project).run(once=True)
    plan = shop_plan(Connection("redis", store.connection_string), WIDER)

    def interrupt(progress: BackfillProgress) -> None:
        if progress.done == 2:
            raise KeyboardInterrupt

    interrupted = Backfill(project, plan, interrupt)
    with pytest.raises(KeyboardInterrupt):
        interrupted.prepare()
    interrupted.close()
    reports: list[BackfillProgress] = []
    apply(project, store, WIDER, reports)
    whole = sum(len(event_log(project).read(day, ["view", "cart", "purchase"])) for day in event_log(project).days())
    assert 0 < reports[-1].events < whole
    assert_answers(project, logs)


def test_definitions_applied_while_a_worker_runs_miss_nothing(
    project: Project, store: EmbeddedStore, client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker_module, "BATCH", 7)
    logs = random_logs(5)
    pairs = [(entity, raw) for entity, log in logs.items() for raw in log]
    random.Random(5).shuffle(pairs)
    worker = Worker(project)
    thread = threading.Thread(target=worker.run)
    thread.start()
    for number, (entity, raw) in enumerate(pairs):
        send(client, entity, raw)
        if number == len(pairs) // 2:
            apply(project, store, WIDER)
    deadline = time.monotonic() + 60
    while waiting(client) and time.monotonic() < deadline:
        time.sleep(0.02)
    worker.stop()
    thread.join()
    assert_answers(project, logs)


def test_nobody_is_judged_by_states_that_are_not_complete(
    project: Project, client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker_module, "_STATES_WAIT", 0.3)
    held = StoreMark(client, "shop")
    complete = held.states
    held.note_states(b"events:of other definitions")
    send(client, "u", {"event": "view", "at": NOW.isoformat(), "event_id": "1", "properties": {}})
    with pytest.raises(StoreDataError, match="does not hold the event states"):
        Worker(project).run(once=True)
    assert waiting(client) == 1
    assert complete is not None
    held.note_states(complete)
    assert Worker(project).run(once=True).accepted == 1
