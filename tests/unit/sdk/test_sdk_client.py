"""The clients on a real store that holds what Feast's layout says, and on stores that are not there."""

from __future__ import annotations

import asyncio
import inspect
import logging
import pickle
import socket
import struct
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import redis

from rules_engine.clock import DAY, from_micros, to_micros
from rules_engine.errors import (
    DataError,
    NotAppliedError,
    ProjectError,
    StoreDataError,
    StoreUnavailableError,
    UnknownNameError,
)
from rules_engine.folders import Project
from rules_engine.read_plan import Connection, PlanFeature, PlanView, ReadPlan
from rules_engine.redis.embedded import EmbeddedStore
from rules_engine.redis.feast_layout import KeyMaker, field_bytes, field_number
from rules_engine.rules.catalog import Catalog
from rules_engine.rules.load import load_text
from rules_engine.sdk import AsyncSegmentClient, Membership, SegmentClient
from rules_engine.sdk.rules import encode_definitions
from tests.stores import put_into_effect

NOW = datetime(2026, 3, 1, tzinfo=UTC)
SEEN = NOW - timedelta(days=1)

DEFINITIONS = """\
segment: adults
when: {feature: user:age, at_least: 18}
---
segment: strangers
when: {feature: user:age, exists: false}
---
segment: new
when: {feature: user:signup, in_last: 7d}
---
segment: hot
when: {all: [{feature: score:value, greater_than: 0.5}, {in_segment: adults}]}
---
segment: mobile
when: {context: device, equals: mobile}
---
segment: soon
when: {context: departure, in_next: 2h}
"""

VIEWS = {
    "user": (
        {"age": "Int64", "signup": "UnixTimestamp", "tags": "Array(String)", "visits": "Array(UnixTimestamp)"},
        None,
    ),
    "score": ({"value": "Float64"}, 2 * DAY),
}


def varint(number: int) -> bytes:
    encoded = bytearray()
    while number > 0x7F:
        encoded.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*encoded, number])


def message(tag: int, content: bytes) -> bytes:
    return bytes([tag]) + varint(len(content)) + content


def value_bytes(value: Any, feast_type: str) -> bytes:
    """Feast's ``ValueProto``, for the types of these tests; a contract test holds the reader to Feast's own."""
    if feast_type == "Int64":
        return b"\x20" + varint(value)
    if feast_type == "Float64":
        return b"\x29" + struct.pack("<d", value)
    if feast_type == "UnixTimestamp":
        return b"\x40" + varint(int(value.timestamp()))
    if feast_type == "Array(String)":
        return message(0x62, b"".join(message(0x0A, item.encode()) for item in value))
    raise ValueError(feast_type)


def make_plan(connection: Connection, definitions: str = DEFINITIONS, now: datetime | None = NOW) -> ReadPlan:
    views = tuple(
        PlanView(
            view,
            view,
            tuple(PlanFeature(name, feast_type, field_number(view, name)) for name, feast_type in features.items()),
            ttl,
        )
        for view, (features, ttl) in VIEWS.items()
    )
    empty = ReadPlan("shop", "user", "user_id", 3, connection, views)
    loaded = load_text(definitions, empty.catalog())
    settings = None if now is None else to_micros(now)
    return ReadPlan("shop", "user", "user_id", 3, connection, views, encode_definitions(loaded), 0, settings)


def write(client: redis.Redis, entity: str, view: str, at: datetime, **values: Any) -> None:
    features = VIEWS[view][0]
    fields = {
        field_bytes(field_number(view, name)): value_bytes(value, features[name]) for name, value in values.items()
    }
    fields[f"_ts:{view}".encode()] = b"\x08" + varint(int(at.timestamp()))
    client.hset(KeyMaker("shop", "user_id", 3)(entity), mapping=fields)


MakeClient = Callable[..., SegmentClient]


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path / "shop")


@pytest.fixture
def make_client(store: EmbeddedStore, client: redis.Redis, project: Project) -> Iterator[MakeClient]:
    """A client of a project on the real store, with some users in it."""
    write(client, "grown", "user", SEEN, age=40, signup=NOW - timedelta(days=3), tags=["a", "b"])
    write(client, "grown", "score", SEEN, value=0.75)
    write(client, "child", "user", SEEN, age=7, signup=NOW - timedelta(days=30))
    made: list[SegmentClient] = []

    def make(**options: Any) -> SegmentClient:
        settings = {key: options.pop(key) for key in ("definitions", "now") if key in options}
        put_into_effect(make_plan(Connection("redis", store.connection_string), **settings), project)
        made.append(SegmentClient.from_repo(project.root, **options))
        return made[-1]

    yield make
    for one in made:
        one.close()


# --- answers --------------------------------------------------------------------------------------------------------


def test_lookup_gives_the_segments_whose_answer_is_true(make_client: MakeClient) -> None:
    found = make_client().lookup("grown")
    assert (found.entity, found.segments, found.at) == ("grown", {"adults", "new", "hot"}, NOW)
    assert found.error is None


def test_changes_at_is_when_the_set_of_segments_is_another(make_client: MakeClient) -> None:
    client = make_client()
    found = client.lookup("grown")
    expires = SEEN + timedelta(days=2, microseconds=1)  # the score's ttl, before the end of the seven days
    assert found.changes_at == expires
    assert client.lookup("grown", at=expires - timedelta(microseconds=1)).segments == found.segments
    assert client.lookup("grown", at=expires).segments == {"adults", "new"}
    assert client.lookup("grown", segments=["new"]).changes_at == NOW + timedelta(days=4)
    assert client.lookup("grown", segments=["adults"]).changes_at is None


def test_an_unknown_entity_is_in_no_segment_but_those_that_ask_for_the_missing(make_client: MakeClient) -> None:
    client = make_client()
    assert client.lookup("nobody").segments == {"strangers"}
    assert client.lookup("nobody", segments=["adults", "new", "hot"]).segments == frozenset()
    assert client.lookup("", segments=["adults"]).segments == frozenset()
    assert client.is_member("nobody", "adults") is False


def test_lookup_many_answers_in_order_also_for_repeated_and_unknown_entities(make_client: MakeClient) -> None:
    client = make_client()
    keys = ["child", "nobody", "grown", "child"]
    many = client.lookup_many(keys)
    assert [found.entity for found in many] == keys
    assert many == [client.lookup(key) for key in keys]
    assert client.lookup_many([]) == []


def test_the_context_is_read_and_times_in_it_are_datetimes(make_client: MakeClient) -> None:
    client = make_client()
    assert client.is_member("grown", "mobile", context={"device": "mobile"})
    assert not client.is_member("grown", "mobile", context={"device": "desktop"})
    assert not client.is_member("grown", "mobile")
    oslo = datetime(2026, 3, 1, 2, tzinfo=UTC).astimezone(tz=None)
    assert client.is_member("grown", "soon", context={"departure": oslo})
    assert not client.is_member("grown", "soon", context={"departure": to_micros(oslo)})


def test_now_is_the_given_instant_else_the_projects_else_the_clock(make_client: MakeClient) -> None:
    assert make_client().lookup("grown", at=NOW - timedelta(days=1)).at == NOW - timedelta(days=1)
    before = datetime.now(UTC) - timedelta(seconds=1)
    at = make_client(now=None).lookup("grown").at
    assert before < at < datetime.now(UTC) + timedelta(seconds=1)


def test_explain_shows_the_same_answer_as_lookup(make_client: MakeClient) -> None:
    client = make_client()
    explanation = client.explain("child", "adults")
    assert explanation.verdict is False
    assert "user:age" in str(explanation)
    assert "7" in str(explanation)
    for entity in ("grown", "child", "nobody"):
        segments = {name for name in client.program.names if client.explain(entity, name).verdict is True}
        assert segments == client.lookup(entity).segments


def test_features_are_python_values(make_client: MakeClient) -> None:
    client = make_client()
    assert client.features("grown") == {
        "user:age": 40,
        "user:signup": NOW - timedelta(days=3),
        "user:tags": ["a", "b"],
        "user:visits": None,
        "score:value": 0.75,
    }
    assert client.features("grown", ["user:age"]) == {"user:age": 40}
    assert client.features("grown", []) == {}
    expired = SEEN + timedelta(days=2, microseconds=1)
    assert client.features("grown", ["score:value", "user:age"], at=expired) == {"score:value": None, "user:age": 40}
    assert set(client.features("nobody").values()) == {None}


# --- what is read ---------------------------------------------------------------------------------------------------


def commands_of(client: redis.Redis, during: Callable[[], object]) -> list[str]:
    """The commands that the server saw meanwhile, as its own statistics count them."""
    before = client.info("commandstats")
    during()
    after = client.info("commandstats")
    calls: list[str] = []
    for name, counted in after.items():
        known = before.get(name, {"calls": 0})["calls"]
        calls += [name.removeprefix("cmdstat_")] * (counted["calls"] - known)
    return [name for name in calls if name not in ("info", "client|setinfo", "hello", "select")]


def test_a_lookup_reads_only_what_is_needed_in_one_command(make_client: MakeClient, client: redis.Redis) -> None:
    asked = make_client()
    asked.lookup("grown")
    assert commands_of(client, lambda: asked.lookup("grown")) == ["hmget"]
    assert commands_of(client, lambda: asked.lookup_many(["grown", "child"])) == ["hmget", "hmget"]
    assert commands_of(client, lambda: asked.is_member("grown", "mobile", context={"device": "mobile"})) == []


def test_only_the_features_of_the_asked_segments_are_needed(make_client: MakeClient) -> None:
    rules = make_client()._applied.rules
    assert rules.question(["hot"]).features == ("score:value", "user:age")
    assert rules.question(["mobile"]).features == ()
    assert rules.question(None).features == ("score:value", "user:age", "user:signup")
    assert rules.question(["hot"]) is rules.question({"hot"})


# --- what is refused ------------------------------------------------------------------------------------------------


def test_names_that_do_not_exist_are_refused_with_the_nearest(make_client: MakeClient) -> None:
    client = make_client()
    for ask in (
        lambda: client.lookup("grown", segments=["adult"]),
        lambda: client.is_member("grown", "adult"),
        lambda: client.explain("grown", "adult"),
    ):
        with pytest.raises(UnknownNameError, match="there is no segment `adult`") as caught:
            ask()
        assert caught.value.hint == "did you mean `adults`?"
    with pytest.raises(UnknownNameError, match="there is no feature `user:agee`"):
        client.features("grown", ["user:agee"])


def test_wrong_types_are_refused_with_what_to_write(make_client: MakeClient) -> None:
    client = make_client()
    for ask, said in (
        (lambda: client.lookup(42), "write '42'"),  # type: ignore[arg-type]
        (lambda: client.lookup_many([42]), "write '42'"),  # type: ignore[list-item]
        (lambda: client.is_member(42, "mobile"), "write '42'"),  # type: ignore[arg-type]
        (lambda: client.features(42), "write '42'"),  # type: ignore[arg-type]
        (lambda: client.lookup_many("grown"), r"write \['grown'\]"),
        (lambda: client.lookup("grown", segments="adults"), r"write \['adults'\]"),
        (lambda: client.features("grown", "user:age"), r"write \['user:age'\]"),
    ):
        with pytest.raises(TypeError, match=said):
            ask()


def test_an_instant_without_an_offset_is_refused(make_client: MakeClient) -> None:
    client = make_client()
    local = datetime(2026, 3, 1)  # noqa: DTZ001 -- this is what is refused
    with pytest.raises(DataError, match="at: 2026-03-01T00:00:00 has no offset"):
        client.lookup("grown", at=local)
    with pytest.raises(DataError, match=r"context\['departure'\]: 2026-03-01T00:00:00 has no offset"):
        client.lookup("grown", context={"departure": local})


def test_segments_that_read_events_are_answered_beside_others(project: Project, store: EmbeddedStore) -> None:
    plan = make_plan(Connection("redis", store.connection_string))
    viewed = load_text("segment: viewed\nwhen: {did: view, within: 1h}", Catalog(closed=False))
    definitions = {"segments": {**plan.definitions["segments"], **encode_definitions(viewed)["segments"]}}
    put_into_effect(ReadPlan(**{**vars(plan), "definitions": definitions}), project)
    with SegmentClient.from_repo(project.root) as client:
        assert client.lookup("nobody", segments=["adults"]).segments == frozenset()
        assert client.lookup("nobody").segments == {"strangers"}
        assert not client.explain("nobody", "viewed").verdict


def test_a_closed_client_says_so(make_client: MakeClient) -> None:
    with make_client() as client:
        client.lookup("grown")
    client.close()
    with pytest.raises(RuntimeError, match="closed"):
        client.lookup("grown")


# --- projects -------------------------------------------------------------------------------------------------------


def test_a_project_without_a_plan_says_what_to_do(make_project: Callable[..., Project], tmp_path: Path) -> None:
    with pytest.raises(NotAppliedError, match="nothing was applied yet") as caught:
        SegmentClient.from_repo(make_project().root)
    assert caught.value.hint == "run `segments apply`"
    with pytest.raises(ProjectError, match="is not a folder"):
        SegmentClient.from_repo(tmp_path / "nowhere")


@pytest.mark.parametrize("definitions", [{}, {"segments": {"a": {"node": "Nonsense"}}}])
def test_a_plan_that_cannot_be_read_says_what_to_do(definitions: Mapping[str, Any], project: Project) -> None:
    plan = ReadPlan("shop", "user", "user_id", 3, Connection("redis", "localhost:1"), (), definitions)
    plan.save(project.read_plan)
    with pytest.raises(ProjectError, match="the definitions in the read plan cannot be read") as caught:
        SegmentClient.from_repo(project.root)
    assert "segments apply" in str(caught.value.hint)


def test_on_error_takes_two_words(project: Project) -> None:
    with pytest.raises(ValueError, match='"raise" or "no_match"'):
        SegmentClient(project, on_error="ignore")  # type: ignore[arg-type]


# --- a store that is not there --------------------------------------------------------------------------------------


@pytest.fixture
def refused() -> Connection:
    """An address at which nothing listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return Connection("redis", f"127.0.0.1:{probe.getsockname()[1]}")


def test_a_store_that_is_down_is_an_error(project: Project, refused: Connection) -> None:
    make_plan(refused).save(project.read_plan)
    with SegmentClient.from_repo(project.root) as client:
        for ask in (
            lambda: client.lookup("grown"),
            lambda: client.lookup_many(["grown"]),
            lambda: client.is_member("grown", "adults"),
            lambda: client.explain("grown", "adults"),
            lambda: client.features("grown"),
        ):
            with pytest.raises(
                StoreUnavailableError, match=f"cannot reach the online store at {refused.connection_string}"
            ):
                ask()


def test_no_match_answers_without_the_store_and_says_why(
    project: Project, refused: Connection, caplog: pytest.LogCaptureFixture
) -> None:
    make_plan(refused).save(project.read_plan)
    with SegmentClient.from_repo(project.root, on_error="no_match") as client:
        with caplog.at_level(logging.WARNING, "rules_engine.sdk"):
            found, other = client.lookup_many(["nobody", "grown"])
        assert (found.segments, found.changes_at, other.entity) == (frozenset(), None, "grown")
        assert isinstance(found.error, StoreUnavailableError)
        assert "cannot reach" in str(found.to_dict()["error"])
        assert "cannot reach" in caplog.text
        assert client.is_member("nobody", "strangers") is False  # true of nobody, but the store was not asked
        assert client.is_member("nobody", "mobile", context={"device": "mobile"}) is True  # needs no store
        with pytest.raises(StoreUnavailableError):
            client.features("grown")
        with pytest.raises(StoreUnavailableError):
            client.explain("grown", "adults")


def test_a_key_that_is_no_hash_is_an_error_of_the_store(make_client: MakeClient, client: redis.Redis) -> None:
    client.set(KeyMaker("shop", "user_id", 3)("odd"), b"not a hash")
    with pytest.raises(StoreDataError):
        make_client().lookup("odd")
    assert make_client(on_error="no_match").lookup("odd").segments == frozenset()


def test_the_embedded_store_is_started_when_it_is_needed(make_store: Callable[..., EmbeddedStore]) -> None:
    store = make_store()
    put_into_effect(make_plan(Connection("embedded")), Project(store.root))
    store.stop()
    with SegmentClient.from_repo(store.root) as client:
        assert not store.status().running
        assert client.lookup("nobody").segments == {"strangers"}
        assert store.status().running
        store.stop()
        assert client.lookup("nobody").segments == {"strangers"}


# --- many at once ---------------------------------------------------------------------------------------------------


def test_threads_share_a_client(make_client: MakeClient) -> None:
    client = make_client()
    start = threading.Barrier(8)
    expected = {"grown": {"adults", "new", "hot"}, "child": set(), "nobody": {"strangers"}}
    questions: list[list[str] | None] = [None, ["adults"], ["hot", "new"], ["strangers"]]

    def ask(number: int) -> list[bool]:
        start.wait()
        answers = []
        for turn in range(100):
            entity = list(expected)[(number + turn) % 3]
            segments = questions[(number * turn) % 4]
            wanted = expected[entity] if segments is None else expected[entity] & set(segments)
            answers.append(client.lookup(entity, segments=segments).segments == wanted)
        return answers

    with ThreadPoolExecutor(8) as pool:
        assert all(answer for answers in pool.map(ask, range(8)) for answer in answers)


def test_the_asynchronous_client_answers_the_same(make_client: MakeClient, project: Project) -> None:
    client = make_client()

    async def ask() -> None:
        async with AsyncSegmentClient.from_repo(project.root) as other:
            assert other.program == client.program
            assert await other.lookup("grown") == client.lookup("grown")
            keys = ["child", "nobody", "grown"]
            assert await asyncio.gather(*map(other.lookup, keys)) == await other.lookup_many(keys)
            assert await other.is_member("grown", "adults") is True
            assert str(await other.explain("child", "adults")) == str(client.explain("child", "adults"))
            assert await other.features("grown") == client.features("grown")
        with pytest.raises(RuntimeError, match="closed"):
            await other.lookup("grown")

    asyncio.run(ask())


def test_both_clients_have_the_same_methods_with_the_same_parameters() -> None:
    for name in ("__init__", "from_repo", "lookup", "lookup_many", "is_member", "explain", "features", "close"):
        one, other = getattr(SegmentClient, name), getattr(AsyncSegmentClient, name)
        assert inspect.signature(one) == inspect.signature(other), name
        assert inspect.iscoroutinefunction(other) == (name not in ("__init__", "from_repo")), name


# --- memberships ----------------------------------------------------------------------------------------------------


def test_a_membership_computes_its_change_once_and_travels() -> None:
    asked: list[datetime] = []

    def change() -> datetime:
        asked.append(NOW)
        return NOW + timedelta(days=1)

    found = Membership("42", frozenset({"b", "a"}), NOW, change)
    assert asked == []
    assert found.changes_at == found.changes_at == NOW + timedelta(days=1)
    assert asked == [NOW]
    copy = pickle.loads(pickle.dumps(found))
    assert (copy, copy.changes_at, hash(copy)) == (found, found.changes_at, hash(found))
    assert found.to_dict() == {
        "entity": "42",
        "segments": ["a", "b"],
        "at": "2026-03-01T00:00:00Z",
        "changes_at": "2026-03-02T00:00:00Z",
        "error": None,
    }
    assert repr(found) == "Membership('42', segments=['a', 'b'], at='2026-03-01T00:00:00Z')"
    assert found != Membership("42", frozenset({"a"}), NOW)
    assert found != "42"


def test_a_membership_cannot_be_changed() -> None:
    found = Membership("42", frozenset(), from_micros(0))
    with pytest.raises(AttributeError, match="cannot be changed"):
        found.segments = frozenset({"vip"})  # type: ignore[misc]
