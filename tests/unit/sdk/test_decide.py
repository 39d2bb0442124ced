"""Decisions at request time, on a real store: what clients answer is what the full log says."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from rules_engine.clock import from_micros, to_micros
from rules_engine.errors import StoreUnavailableError, UnknownNameError
from rules_engine.folders import Project
from rules_engine.read_plan import Connection
from rules_engine.redis.embedded import EmbeddedStore
from rules_engine.rules.decisions.explaining import course_of
from rules_engine.rules.inputs import Inputs, in_order
from rules_engine.sdk import AsyncSegmentClient, SegmentClient
from rules_engine.sdk.rules import Rules
from rules_engine.sdk.tracking import open_states
from tests.event_shop import NOW, SEGMENTS, checked, instants, random_raw, shop_plan
from tests.stores import put_into_effect

DECISIONS = """
---
experiment: offer
arms: {control: {serve: none}, voucher: {serve: voucher}}
start: 2026-02-20T00:00:00Z
stop: 2026-03-01T01:00:00Z
---
decision: banner
variants: {none: {value: null}, voucher: {value: {percent: 10}}, new_in: {value: {banner: new_in}}}
rules:
  - {when: {in_segment: abandoned}, experiment: offer}
  - {when: {all: [{did: view, within: 6h, count: {at_least: 2}}, {context: device, equals: mobile}]}, serve: new_in}
  - {when: {did: purchase, within: 12h}, serve: {none: 50, new_in: 50}}
default: none
---
decision: greeting
variants: {hello: {value: hello}, back: {value: welcome back}}
rules: [{when: {in_segment: wide}, serve: back}]
default: hello
---
decision: always
variants: {a: {value: 1}, b: {value: 2}}
rules: [{serve: {a: 50, b: 50}}]
default: a
"""


@pytest.fixture
def project(tmp_path: Path, store: EmbeddedStore) -> Project:
    (tmp_path / "segments").mkdir()
    project = Project(tmp_path)
    put_into_effect(shop_plan(Connection("redis", store.connection_string), SEGMENTS + DECISIONS), project)
    return project


@pytest.fixture
def shop(project: Project) -> Iterator[SegmentClient]:
    with SegmentClient(project) as client:
        yield client


def rules_of(project: Project) -> Rules:
    return Rules(shop_plan(Connection("embedded"), SEGMENTS + DECISIONS))


@pytest.mark.parametrize("device", [{}, {"device": "mobile"}])
@pytest.mark.parametrize("number", [0, 3, 40, 400])
def test_outcomes_are_those_of_the_full_log(
    shop: SegmentClient, project: Project, store: EmbeddedStore, number: int, device: dict[str, str]
) -> None:
    rules, log = rules_of(project), checked(random_raw(random.Random(number), number))
    with redis.Redis.from_url(store.url) as client:
        open_states(rules, client).update({"u": log, "v": log, "w": log}, to_micros(NOW))
    inputs = Inputs(context=device, events=in_order(log))
    for at in instants():
        for entity in ("u", "v", "w"):
            assignments = shop.decide_all(entity, context=device, at=at)
            assert list(assignments) == ["always", "banner", "greeting"]
            for name, assignment in assignments.items():
                chooser, now = rules.choosers[name], to_micros(at)
                course = course_of(rules.conditions, chooser, inputs)
                assert assignment.choice == chooser.choose(entity, course.at(now), now)
                change = chooser.next_change(entity, course, now)
                assert assignment.changes_at == (None if change is None else from_micros(change)), (name, entity, at)
                assert not assignment.is_undecided


def test_lookups_do_not_see_the_conditions_of_decisions(shop: SegmentClient) -> None:
    shop.track("u", "view", {"page": "a"}, at=NOW)
    shop.track("u", "view", {"page": "b"}, at=NOW)
    membership = shop.lookup("u", context={"device": "mobile"})
    assert membership.segments <= set(shop.program.names)
    assert shop.decide("u", "banner", context={"device": "mobile"}).variant == "new_in"
    with pytest.raises(UnknownNameError, match=r"there is no segment `decision.banner.rule_1`"):
        shop.lookup("u", segments=["decision.banner.rule_1"])


def test_an_outcome_tells_its_value_and_why(shop: SegmentClient) -> None:
    assignment = shop.decide("u", "always")
    assert assignment.value in (1, 2)
    assert assignment.reason() == f"rule 1; bucket {assignment.bucket:.4f} of `always`"
    assert assignment.to_dict()["variant"] == assignment.variant
    assert assignment.changes_at is None
    shop.decide("u", "banner").value  # noqa: B018 - null is a value too
    assert shop.decide("u", "banner").to_dict()["because"] == "the default, as no rule decides"


def test_explanations_show_the_rules_in_order(shop: SegmentClient) -> None:
    shop.track("u", "purchase", {"sku": "x", "order": "1"}, at=NOW)
    text = str(shop.explain_decision("u", "banner"))
    assert text.splitlines()[1] == "rule 1 is not met"
    assert "rule 3 is met" in text
    assert "rule 2 is not" in text


def test_many_entities_at_once(shop: SegmentClient) -> None:
    keys = [str(number) for number in range(700)]
    assignments = shop.decide_many(keys, "always")
    assert [assignment.entity for assignment in assignments] == keys
    assert 300 < sum(assignment.variant == "a" for assignment in assignments) < 400
    assert shop.decide_many([], "banner") == []


def test_the_asynchronous_client_answers_alike(shop: SegmentClient, project: Project) -> None:
    shop.track("u", "view", {"page": "a"}, at=NOW)

    async def ask() -> None:
        async with AsyncSegmentClient(project) as client:
            assert (await client.decide("u", "banner")).choice == shop.decide("u", "banner").choice
            assert (await client.decide_all("u")).keys() == shop.decide_all("u").keys()
            assert len(await client.decide_many(["u", "v"], "always")) == 2
            assert str(await client.explain_decision("u", "banner")) == str(shop.explain_decision("u", "banner"))

    asyncio.run(ask())


def test_unknown_names_have_a_hint(shop: SegmentClient) -> None:
    with pytest.raises(UnknownNameError) as unknown:
        shop.decide("u", "baner")
    assert unknown.value.hint == "did you mean `banner`?"
    with pytest.raises(UnknownNameError) as segment:
        shop.decide("u", "keen")
    assert segment.value.hint == "it is a segment: ask `lookup`"


def test_without_a_store_the_default_is_given_if_it_is_wanted(tmp_path: Path) -> None:
    (tmp_path / "segments").mkdir()
    project = Project(tmp_path)
    shop_plan(Connection("redis", "127.0.0.1:1"), SEGMENTS + DECISIONS).save(project.read_plan)
    with SegmentClient(project) as client, pytest.raises(StoreUnavailableError):
        client.decide("u", "banner")
    with SegmentClient(project, on_error="no_match") as client:
        assignment = client.decide("u", "banner")
    assert assignment.variant == "none"
    assert isinstance(assignment.error, StoreUnavailableError)
