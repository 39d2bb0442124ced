"""Ids that are joined to persons: at request time, in random order, with late events and joins of joins."""

from __future__ import annotations

import random
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import pytest
import redis

from rules_engine.clock import SECOND, from_micros, to_micros
from rules_engine.errors import DataError
from rules_engine.events.streams import stream_keys
from rules_engine.folders import Project
from rules_engine.read_plan import Connection, ReadPlan
from rules_engine.redis.embedded import EmbeddedStore
from rules_engine.rules.inputs import Event
from rules_engine.sdk import SegmentClient
from rules_engine.sdk.rules import Rules
from rules_engine.stream.event_sink import event_log
from rules_engine.stream.worker import Worker
from tests.event_shop import NOW, checked, instants, members, random_raw, shop_plan
from tests.reference_joins import Joined, log_of, taken
from tests.stores import put_into_effect

IDS = [f"anon{number}" for number in range(6)] + [f"u{number}" for number in range(4)]


@pytest.fixture
def project(tmp_path: Path, store: EmbeddedStore) -> Project:
    (tmp_path / "segments").mkdir()
    project = Project(tmp_path)
    put_into_effect(shop_plan(Connection("redis", store.connection_string)), project)
    return project


@pytest.fixture
def client(project: Project) -> Iterator[SegmentClient]:
    with SegmentClient(project) as client:
        yield client


class Shop:
    """A client, and all that it reported."""

    def __init__(self, project: Project, client: SegmentClient) -> None:
        self.client = client
        self.rules = Rules(ReadPlan.load(project.read_plan))
        self.log: list[tuple[str, Event]] = []
        self.joins: list[Joined] = []

    def track(self, entity: str, raw: dict[str, object]) -> None:
        at = datetime.fromisoformat(str(raw["at"]))
        self.client.track(entity, str(raw["event"]), raw["properties"], at=at, event_id=str(raw["event_id"]))
        if not any(entity == owner and event.id == f"{event.name}:{raw['event_id']}" for owner, event in self.log):
            self.log += [(entity, event) for event in checked([raw])]

    def alias(self, entity: str, person: str, at: int) -> None:
        try:
            self.client.alias(entity, person, at=from_micros(at))
        except DataError:
            assert len(taken([*self.joins, Joined(entity, person, at)])) == len(self.joins)
        self.joins = taken([*self.joins, Joined(entity, person, at)])

    def check(self, entity: str, at: datetime) -> None:
        expected = members(self.rules, log_of(entity, self.log, self.joins), to_micros(at))
        assert self.client.lookup(entity, at=at).segments == expected, (entity, at)


@pytest.mark.parametrize("seed", range(6))
def test_every_lookup_sees_what_counts_by_then(project: Project, client: SegmentClient, seed: int) -> None:
    entropy = random.Random(seed)
    shop = Shop(project, client)
    waiting = [(entity, raw) for entity in IDS for raw in random_raw(entropy, 12)]
    entropy.shuffle(waiting)
    for entity, raw in waiting:
        shop.track(entity, raw)
        if entropy.random() < 0.12:
            shop.alias(*entropy.sample(IDS, 2), to_micros(NOW) - entropy.randrange(0, 90_000) * SECOND)
        if entropy.random() < 0.08:
            Worker(project).run(once=True)
        joined = {join.entity for join in shop.joins}  # these are nobody as soon as a worker has come to them
        shop.check(entropy.choice([entity for entity in IDS if entity not in joined]), entropy.choice(instants()))
    assert len(shop.joins) >= 4
    Worker(project).run(once=True)
    for entity in IDS:
        for at in instants():
            shop.check(entity, at)


def test_what_is_kept_after_the_workers_is_clean(project: Project, client: SegmentClient, store: EmbeddedStore) -> None:
    shop = Shop(project, client)
    for raw in random_raw(random.Random(1), 30):
        shop.track("anon0", raw)
    shop.alias("anon0", "u0", to_micros(NOW))
    Worker(project).run(once=True)
    shop.check("u0", NOW)
    shop.check("anon0", NOW)
    with redis.Redis.from_url(store.url) as server:
        assert not any(server.xlen(key) for key in stream_keys("shop"))
        assert len(list(server.scan_iter(b"*:events:*", _type="string"))) == 1  # of the person
    assert [(join.entity, join.person) for join in event_log(project).joins()] == [("anon0", "u0")]
