"""Events, memberships and triggers in a cluster of three masters: what belongs together lies in one slot."""

from __future__ import annotations

import random
from functools import partial
from pathlib import Path
from uuid import uuid4

import orjson
import pytest
import redis

from rules_engine.clock import from_micros, to_micros
from rules_engine.delivery.metrics import MetricsRegistry
from rules_engine.delivery.queues import queue_key
from rules_engine.deploy.backfill import Backfill
from rules_engine.events.state.requirements import requirements_of
from rules_engine.events.streams import encode_raw, partition_of, stream_keys
from rules_engine.folders import Project
from rules_engine.read_plan import Connection, ReadPlan
from rules_engine.redis.feast_layout import KeyMaker, sibling_key
from rules_engine.rules.catalog import Catalog
from rules_engine.rules.load import load_text
from rules_engine.sdk import SegmentClient, event_rules
from rules_engine.sdk.rules import Rules, encode_definitions
from rules_engine.stream.kafka_bridge import KafkaBridge
from rules_engine.stream.kafka_source import KafkaSource
from rules_engine.stream.ledger import Ledger
from rules_engine.stream.worker import Worker
from tests.contracts.test_bulk_cluster import masters  # noqa: F401 (a fixture)
from tests.event_shop import EVENTS, NOW, SEGMENTS, checked, instants, members, parse_events, random_raw
from tests.kafka_cluster import Cluster
from tests.stores import put_into_effect

TRIGGER = "---\ntrigger: greet\non_event: {did: cart}\nsend: [{stream: actions}]\n"


def plan_of(port: int, text: str) -> ReadPlan:
    declared = parse_events(EVENTS)
    found = load_text(text, Catalog(events=declared.types, event_features=declared.features))
    connection = Connection("redis", f"127.0.0.1:{port}", "redis_cluster")
    definitions = encode_definitions(found, declared)
    return ReadPlan("shop", "user", "user_id", 3, connection, (), definitions, 0, to_micros(NOW))


def test_events_in_a_cluster(
    tmp_path: Path,
    masters: list[redis.Redis],  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(event_rules, "requirements_of", partial(requirements_of, piece=2))
    port = masters[0].connection_pool.connection_kwargs["port"]
    project = Project(tmp_path)
    put_into_effect(plan_of(port, SEGMENTS + TRIGGER), project)
    entropy = random.Random(1)
    logs = {f"u{number}": random_raw(entropy, 12) for number in range(12)}
    assert len({partition_of(user) for user in logs}) > 4

    def assert_answers() -> None:
        rules = Rules(ReadPlan.load(project.read_plan))
        with SegmentClient(project) as shop:
            for at in instants():
                for found in shop.lookup_many(list(logs), at=at):
                    assert found.segments == members(rules, checked(logs[found.entity]), to_micros(at))

    with SegmentClient(project) as shop:
        for user, log in logs.items():
            for raw in log:
                at = checked([raw])[0].at
                shop.track(user, raw["event"], raw["properties"], at=from_micros(at), event_id=raw["event_id"])
    assert_answers()  # of what was reported, before a worker saw it
    progress = Worker(project).run(once=True)
    assert progress.accepted == sum(map(len, logs.values()))
    assert_answers()
    carts = len({(user, event.id) for user, log in logs.items() for event in checked(log) if event.name == "cart"})
    with redis.RedisCluster(host="127.0.0.1", port=port) as cluster:
        assert not any(cluster.xlen(key) for key in stream_keys("shop"))
        assert cluster.xlen(queue_key("shop", "stream:actions")) == carts == progress.fired
        key = KeyMaker("shop", "user_id", 3)("u1")
        assert cluster.exists(sibling_key(key, b"triggers")) == 1
        assert cluster.keys("*:pieces", target_nodes=redis.RedisCluster.PRIMARIES)
    assert len(Ledger.of(project).transitions(limit=1000)) > 12
    plan = plan_of(port, SEGMENTS + "---\nsegment: viewed\nwhen: {did: view, within: 20d, count: {at_least: 4}}\n")
    backfill = Backfill(project, plan)
    backfill.prepare()
    plan.save(project.read_plan)
    backfill.finish()
    backfill.close()
    assert_answers()


def test_kafka_sinks_and_metrics_in_a_cluster(tmp_path: Path, masters: list[redis.Redis], kafka: Cluster) -> None:  # noqa: F811
    project = Project(tmp_path)
    sink = "---\nproject: shop\nsinks: {audit: {file: actions.jsonl}}\n"
    trigger = "---\ntrigger: note\non_event: {did: cart}\nsend: [{file: audit}]\n"
    port = masters[0].connection_pool.connection_kwargs["port"]
    put_into_effect(plan_of(port, SEGMENTS + trigger + sink), project)
    name = uuid4().hex
    carts = [encode_raw(f"u{number}", "cart", NOW.isoformat(), f"e{number}", {"sku": "x"}) for number in range(40)]
    kafka.write(name, [(f"u{number}", cart) for number, cart in enumerate(carts)])
    metrics = MetricsRegistry()
    assert KafkaBridge(project, KafkaSource(kafka.brokers, name, name), metrics).run(once=True).taken == 40
    progress = Worker(project, metrics=metrics).run(once=True)
    assert (progress.accepted, progress.fired) == (40, 40)
    lines = (tmp_path / "actions.jsonl").read_bytes().splitlines()
    assert {orjson.loads(line)["entity"] for line in lines} == {f"u{number}" for number in range(40)}
    assert len(lines) == 40
    assert metrics.value("segments_actions_total", sink="file:audit", result="delivered") == 40
    assert metrics.value("segments_partitions") == 16
