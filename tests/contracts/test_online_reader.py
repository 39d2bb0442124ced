"""What the online readers give, against what Feast wrote into a real server and what Feast itself reads from it."""

from __future__ import annotations

import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import redis

from rules_engine.clock import DAY, SECOND, to_micros
from rules_engine.errors import (
    ProjectError,
    StoreDataError,
    StoreTimeoutError,
    StoreUnavailableError,
    UnknownNameError,
)
from rules_engine.features.feast.repo import FeastRepo
from rules_engine.features.feast_import import import_feast, quiet
from rules_engine.features.online.feast_reader import FeastReader
from rules_engine.features.online.opening import open_reader
from rules_engine.features.online.reader import OnlineReader
from rules_engine.features.online.row_layout import RowLayouts
from rules_engine.features.online.selection import EntityFeatures
from rules_engine.features.online.transports import ClientTransport, SocketTransport
from rules_engine.folders import Project
from rules_engine.read_plan import Connection, PlanFeature, PlanView, ReadPlan
from rules_engine.redis.client import Address
from rules_engine.redis.embedded import EmbeddedStore
from rules_engine.redis.feast_layout import KeyMaker
from rules_engine.redis.server import RedisServer, is_direct
from rules_engine.redis.valkey import server_binary
from tests.stores import mark_as_held, redis_reader

import_feast()

AT = datetime(2026, 3, 1, 12, 30, 15, 123456, tzinfo=UTC)

DEFINITIONS = """\
from datetime import timedelta

from feast import Entity, FeatureView, Field, FileSource, ValueType
from feast.types import (
    Array, Bool, Bytes, Decimal, Float32, Float64, Int32, Int64, Json, Map, Set, String, UnixTimestamp, Uuid,
)

user = Entity(name="user", join_keys=["user_id"], value_type=ValueType.STRING)
source = FileSource(name="nothing", path="nothing.parquet", timestamp_field="event_timestamp")

everything = FeatureView(
    name="everything", entities=[user], ttl=timedelta(0), source=source,
    schema=[
        Field(name="int32", dtype=Int32), Field(name="int64", dtype=Int64),
        Field(name="float32", dtype=Float32), Field(name="float64", dtype=Float64),
        Field(name="string", dtype=String), Field(name="bytes", dtype=Bytes),
        Field(name="bool", dtype=Bool), Field(name="time", dtype=UnixTimestamp),
        Field(name="int32s", dtype=Array(Int32)), Field(name="int64s", dtype=Array(Int64)),
        Field(name="float32s", dtype=Array(Float32)), Field(name="float64s", dtype=Array(Float64)),
        Field(name="strings", dtype=Array(String)), Field(name="bytess", dtype=Array(Bytes)),
        Field(name="bools", dtype=Array(Bool)), Field(name="times", dtype=Array(UnixTimestamp)),
        Field(name="tags", dtype=Set(String)), Field(name="json", dtype=Json), Field(name="map", dtype=Map),
        Field(name="uuid", dtype=Uuid), Field(name="decimal", dtype=Decimal),
    ],
)
brief = FeatureView(
    name="brief", entities=[user], ttl=timedelta(days=2), source=source,
    schema=[Field(name="score", dtype=Float64, description="How brief")],
)
offline_only = FeatureView(
    name="offline_only", entities=[user], source=source, online=False, schema=[Field(name="x", dtype=Int64)],
)
"""

#: One user for each kind of value that has ever been a trap.
USERS: dict[str, dict[str, Any]] = {
    "plain": {
        "int32": -7, "int64": 2**60 + 1, "float32": 0.1, "float64": 0.1, "string": "hello", "bytes": b"\x00\xff",
        "bool": True, "time": datetime(1997, 1, 1, 23, 59, 59, tzinfo=UTC),
        "int32s": [1, -1], "int64s": [2**60 + 1, 0], "float32s": [0.5, 0.1], "float64s": [0.1, -0.0],
        "strings": ["a", "", "ü"], "bytess": [b"", b"\xff"], "bools": [True, False, True],
        "times": [datetime(1969, 12, 31, tzinfo=UTC), datetime(2026, 1, 1, tzinfo=UTC)],
        "tags": {"x", "y"}, "json": '{"a": [1, null]}', "map": {"k": "v"},
        "uuid": "6f1f7a5e-8a6c-4f7e-9d3a-0c1f5d0e9b11", "decimal": "12.30",
    },
    "zeros": {
        "int32": 0, "int64": 0, "float32": 0.0, "float64": -0.0, "string": "", "bytes": b"", "bool": False,
        "time": datetime(1970, 1, 1, tzinfo=UTC), "int32s": [0], "int64s": [0], "float32s": [0.0], "float64s": [0.0],
        "strings": [""], "bytess": [b""], "bools": [False], "times": [datetime(1970, 1, 1, tzinfo=UTC)],
        "tags": {""}, "json": "null", "map": {}, "uuid": "00000000-0000-0000-0000-000000000000", "decimal": "0",
    },
    "": {"string": "a user with an empty key", "int64": -(2**63)},
    "Üser \U0001f6d2 \x00 with everything": {"string": "\U0001f6d2\x00é" * 30, "int64": 2**63 - 1},
    "shop": {"string": "named like the project", "float64": float("inf")},
    "nan": {"float64": float("nan"), "float32": float("nan"), "float64s": [1.0, float("nan")]},
    "nothing": {},
}  # fmt: skip


@pytest.fixture
def shop(make_project: Callable[..., Project], store: EmbeddedStore) -> Project:
    """A project on the shared server, named like a plain Redis, with nothing in it yet."""
    return on_redis(make_project, store.connection_string)


def on_redis(
    make_project: Callable[..., Project], connection_string: str, more: str = "", name: str = "shop"
) -> Project:
    yaml = (
        f"project: {name}\nprovider: local\nregistry: ../.segments/registry.db\noffline_store: {{type: duckdb}}\n"
        f"entity_key_serialization_version: 3\n"
        f"online_store:\n  type: redis\n  connection_string: {connection_string!r}\n{more}"
    )
    files = {"feature_repo/feature_store.yaml": yaml, "feature_repo/definitions.py": DEFINITIONS}
    return make_project(files, name=name)


def applied(project: Project) -> tuple[FeastRepo, ReadPlan]:
    repo = FeastRepo(project)
    repo.apply()
    plan = repo.read_plan({}, applied_at=0)
    if is_direct(plan.connection):
        mark_as_held(plan, project.root)
    return repo, plan


def write(repo: FeastRepo, view: str, rows: dict[str, dict[str, Any]], at: datetime = AT) -> None:
    """Write through Feast's own conversion and store."""
    from feast.protos.feast.types.EntityKey_pb2 import EntityKey
    from feast.protos.feast.types.Value_pb2 import Value
    from feast.type_map import python_values_to_proto_values

    table = repo.store.get_feature_view(view)
    data = []
    for user, values in rows.items():
        protos = {
            field.name: python_values_to_proto_values([values.get(field.name)], field.dtype.to_value_type())[0]
            for field in table.features
        }
        data.append((EntityKey(join_keys=["user_id"], entity_values=[Value(string_val=user)]), protos, at, None))
    with quiet():
        repo.store.provider.online_write_batch(repo.store.config, table, data, None)


def feast_reads(repo: FeastRepo, users: list[str], plan: ReadPlan) -> list[dict[str, Any]]:
    """What Feast's ``get_online_features`` gives, by ``view:name``; nulls are left out."""
    features = [f"{view.name}:{feature.name}" for view in plan.views for feature in view.features]
    with quiet():
        found = repo.store.get_online_features(
            features=features, entity_rows=[{"user_id": user} for user in users], full_feature_names=True
        ).to_dict()
    columns = {name: found[name.replace(":", "__")] for name in features}
    return [{name: column[i] for name, column in columns.items() if column[i] is not None} for i in range(len(users))]


def in_our_terms(values: dict[str, Any]) -> dict[str, Any]:
    def convert(value: Any) -> Any:
        if isinstance(value, datetime):
            return to_micros(value)
        if isinstance(value, list | set):
            converted = [convert(element) for element in value]
            kept = [element for element in converted if element is not None]
            return frozenset(kept) if isinstance(value, set) else tuple(kept)
        if isinstance(value, float) and value != value:
            return None
        return str(value) if type(value).__name__ in ("UUID", "Decimal") else value

    found = {name: convert(value) for name, value in values.items()}
    found |= {name: values[name] for name in values if name.endswith(":json")}
    return {name: value for name, value in found.items() if value is not None}


def sets_as_sets(values: dict[str, Any]) -> dict[str, Any]:
    return {name: frozenset(value) if name.endswith(":tags") else value for name, value in values.items()}


@pytest.fixture(params=["direct", "through Feast"])
def reader_of(request: pytest.FixtureRequest) -> Iterator[Callable[[ReadPlan, Project], OnlineReader]]:
    """Both readers keep the same contract."""
    opened: list[OnlineReader] = []

    def make(plan: ReadPlan, project: Project) -> OnlineReader:
        opened.append((redis_reader if request.param == "direct" else FeastReader)(plan, project.root))
        return opened[-1]

    yield make
    for reader in opened:
        reader.close()


# --- values ----------------------------------------------------------------------------------------------------------


def test_every_type_reads_as_feast_reads_it(
    shop: Project, reader_of: Callable[[ReadPlan, Project], OnlineReader]
) -> None:
    repo, plan = applied(shop)
    write(repo, "everything", USERS)
    users = [*USERS, "nobody"]
    mine = reader_of(plan, shop).read(users)
    feasts = feast_reads(repo, users, plan)
    assert [found.entity for found in mine] == users
    for found, expected in zip(mine, feasts, strict=True):
        assert sets_as_sets(dict(found.values)) == in_our_terms(expected)
        for name, value in in_our_terms(expected).items():
            assert type(found.values[name]) is type(value) or name.endswith(":tags"), name
    plain = mine[0].values
    assert len(plain) == 21
    assert plain["everything:int64"] == 2**60 + 1
    assert plain["everything:time"] == to_micros(datetime(1997, 1, 1, 23, 59, 59, tzinfo=UTC))
    assert plain["everything:float32"] != 0.1
    assert mine[users.index("nan")].values == {"everything:float64s": (1.0,)}
    assert mine[users.index("nothing")].values == {}


def test_what_a_dataframe_brings_arrives(shop: Project, reader_of: Callable[[ReadPlan, Project], OnlineReader]) -> None:
    """Through ``write_to_online_store``, as an application would."""
    repo, plan = applied(shop)
    frame = pd.DataFrame(
        {"user_id": ["a", "b"], "event_timestamp": [AT, AT - timedelta(hours=1)], "score": [2.5, float("nan")]}
    )
    with quiet():
        repo.store.write_to_online_store("brief", frame)
    one, other = reader_of(plan, shop).read(["a", "b"], ["brief:score"])
    assert one.values == {"brief:score": 2.5}
    assert other.values == {}
    assert other.is_known


def test_an_absent_user_is_known_as_absent(
    shop: Project, reader_of: Callable[[ReadPlan, Project], OnlineReader]
) -> None:
    """Feast calls such a user PRESENT, with nulls."""
    repo, plan = applied(shop)
    write(repo, "everything", {"nothing": {}})
    nobody, nothing = reader_of(plan, shop).read(["nobody", "nothing"])
    assert not nobody.is_known
    assert nobody == EntityFeatures("nobody")
    assert nothing.is_known
    assert nothing.values == {}


def test_rows_say_when_they_were_observed_and_when_they_expire(
    shop: Project, reader_of: Callable[[ReadPlan, Project], OnlineReader]
) -> None:
    repo, plan = applied(shop)
    write(repo, "everything", {"a": {"int64": 1}})
    write(repo, "brief", {"a": {"score": 1.0}}, at=AT - timedelta(days=400))
    found = reader_of(plan, shop).read(["a"])[0]
    old = to_micros(AT - timedelta(days=400))
    assert found.updated_at == {"everything": to_micros(AT), "brief": old}
    assert found.expires_at == {"brief": old + 2 * DAY + 1}  # a view without ttl never expires
    assert found.values["brief:score"] == 1.0  # whether it is past its ttl is for the time of evaluation to say


def test_reading_some_features_reads_no_others(
    shop: Project, reader_of: Callable[[ReadPlan, Project], OnlineReader]
) -> None:
    repo, plan = applied(shop)
    write(repo, "everything", {"a": {"int64": 1, "string": "s"}})
    reader = reader_of(plan, shop)
    found = reader.read(["a"], ["brief:score", "everything:string"])[0]
    assert found.values == {"everything:string": "s"}
    assert set(found.updated_at) == {"everything"}
    assert not reader.read(["a"], ["brief:score"])[0].is_known
    assert reader.read(["a"], [])[0].values == {}
    assert reader.read([]) == []
    with pytest.raises(UnknownNameError) as caught:
        reader.read(["a"], ["everything:strin"])
    assert caught.value.hint == "did you mean `everything:string`?"
    with pytest.raises(TypeError, match="an entity key is a string"):
        reader.read([42])  # type: ignore[list-item]


def test_many_users_in_order(shop: Project, reader_of: Callable[[ReadPlan, Project], OnlineReader]) -> None:
    repo, plan = applied(shop)
    write(repo, "brief", {str(number): {"score": float(number)} for number in range(0, 2_000, 2)})
    users = [str(number) for number in range(2_000)] + ["7", "8", "8"]
    found = reader_of(plan, shop).read(users, ["brief:score"])
    assert [row.entity for row in found] == users
    expected = [float(user) if int(user) % 2 == 0 else None for user in users]
    assert [row.values.get("brief:score") for row in found] == expected


def test_many_users_take_one_round_trip(shop: Project, store: EmbeddedStore) -> None:
    repo, plan = applied(shop)
    users = [str(number) for number in range(20)]  # few enough to be sent in one piece
    write(repo, "brief", {user: {"score": 1.0} for user in users})
    reader = redis_reader(plan, shop.root)
    reader.read(["0"])
    with redis.Redis.from_url(store.url) as client:

        def inputs() -> int:
            return int(client.info("stats")["total_reads_processed"])

        own = -inputs() + inputs()
        before = inputs()
        reader.read(users, ["brief:score"])
        assert inputs() - before - own == 1
        before = inputs()
        reader.read([*users, "nobody", "nobody else"], ["brief:score"])
        assert inputs() - before - own == 2, "whether the store has forgotten somebody is asked once"
    reader.close()


def test_unknown_users_one_after_the_other_take_one_round_trip_each(shop: Project, store: EmbeddedStore) -> None:
    repo, plan = applied(shop)
    write(repo, "brief", {"somebody": {"score": 1.0}})
    reader = redis_reader(plan, shop.root)
    reader.read(["somebody"])
    with redis.Redis.from_url(store.url) as client:

        def round_trips(user: str) -> int:
            before = int(client.info("stats")["total_reads_processed"])
            (row,) = reader.read([user], ["brief:score"])
            assert row.is_known == (user == "somebody")
            return int(client.info("stats")["total_reads_processed"]) - before - 1

        assert round_trips("somebody") == 1
        assert round_trips("nobody") == 2, "it is not expected"
        assert [round_trips(f"nobody {number}") for number in range(5)] == [1] * 5
        assert [round_trips("somebody") for _ in range(20)] == [1] * 20
        assert round_trips("nobody") == 2, "known users made it unexpected"
    reader.close()


def test_another_project_in_the_same_database_is_not_read(
    make_project: Callable[..., Project], store: EmbeddedStore
) -> None:
    """``seg`` ends like ``myseg``, which misleads Feast's own patterns."""
    mine = on_redis(make_project, store.connection_string, name="seg")
    other = on_redis(make_project, store.connection_string, name="myseg")
    my_repo, my_plan = applied(mine)
    other_repo, other_plan = applied(other)
    write(other_repo, "brief", {"a": {"score": 2.0}})
    assert not redis_reader(my_plan, mine.root).read(["a"])[0].is_known
    write(my_repo, "brief", {"a": {"score": 1.0}})
    assert redis_reader(my_plan, mine.root).read(["a"])[0].values == {"brief:score": 1.0}
    assert redis_reader(other_plan, other.root).read(["a"])[0].values == {"brief:score": 2.0}


def test_a_removed_view_leaves_other_projects_alone(make_project: Callable[..., Project], store: EmbeddedStore) -> None:
    """Feast would delete the view's values of every project whose name ends alike."""
    mine = on_redis(make_project, store.connection_string, name="seg")
    other = on_redis(make_project, store.connection_string, name="myseg")
    applied(mine)
    other_repo, other_plan = applied(other)
    write(other_repo, "brief", {"a": {"score": 2.0}})
    (mine.feature_repo / "definitions.py").write_text(DEFINITIONS.split("brief = ", maxsplit=1)[0])
    repo = FeastRepo(mine)
    assert repo.apply().removed == ("brief", "offline_only")
    assert redis_reader(other_plan, other.root).read(["a"])[0].values == {"brief:score": 2.0}


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_keys_of_version_2(make_project: Callable[..., Project], store: EmbeddedStore) -> None:
    project = on_redis(make_project, store.connection_string)
    yaml = project.feature_store_yaml.read_text().replace("serialization_version: 3", "serialization_version: 2")
    project.feature_store_yaml.write_text(yaml)
    repo, plan = applied(project)
    assert plan.key_version == 2
    write(repo, "brief", {"a": {"score": 1.0}})
    assert redis_reader(plan, project.root).read(["a"])[0].values == {"brief:score": 1.0}


def test_views_with_version_suffixes(make_project: Callable[..., Project], store: EmbeddedStore) -> None:
    """Feast can keep each version of a view under a name of its own."""
    project = on_redis(make_project, store.connection_string)
    yaml = project.feature_store_yaml.read_text().replace(
        "registry: ../.segments/registry.db",
        "registry: {path: ../.segments/registry.db, enable_online_feature_view_versioning: true}",
    )
    project.feature_store_yaml.write_text(yaml)
    applied(project)
    grown = DEFINITIONS.replace('description="How brief")', 'description="How brief"), Field(name="more", dtype=Int64)')
    (project.feature_repo / "definitions.py").write_text(grown)
    repo, plan = applied(project)
    brief = next(view for view in plan.views if view.name == "brief")
    assert brief.stored_name == "brief_v1"
    write(repo, "brief", {"a": {"score": 1.0, "more": 5}})
    assert redis_reader(plan, project.root).read(["a"])[0].values == {"brief:score": 1.0, "brief:more": 5}


def test_any_other_store_is_read_through_feast(make_project: Callable[..., Project]) -> None:
    project = make_project({"feature_repo/definitions.py": DEFINITIONS})
    project.feature_store_yaml.write_text(
        "project: shop\nprovider: local\nregistry: ../.segments/registry.db\noffline_store: {type: duckdb}\n"
        "entity_key_serialization_version: 3\nonline_store: {type: sqlite, path: ../.segments/online.db}\n"
    )
    (project.root / ".segments").mkdir(exist_ok=True)
    repo, plan = applied(project)
    assert plan.connection == Connection("feast", store="sqlite")
    reader = open_reader(plan, project.root)
    assert isinstance(reader, FeastReader)
    write(repo, "everything", {"plain": USERS["plain"]})
    whole_seconds = AT.replace(microsecond=0)  # Feast's SQLite store keeps no more
    write(repo, "brief", {"plain": {"score": 3.0}}, at=whole_seconds)
    nobody, plain = reader.read(["nobody", "plain"])
    assert not nobody.is_known
    expected = in_our_terms(feast_reads(repo, ["plain"], plan)[0])
    assert sets_as_sets(dict(plain.values)) == expected
    assert plain.updated_at["brief"] == to_micros(whole_seconds)
    assert plain.expires_at["brief"] == to_micros(whole_seconds) + 2 * DAY + 1


# --- what goes wrong -------------------------------------------------------------------------------------------------


def plan_for(connection: Connection) -> ReadPlan:
    view = PlanView("v", "v", (PlanFeature("f", "Int64", 1),))
    return ReadPlan("shop", "user", "user_id", 3, connection, (view,))


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Callable[..., int]]:
    """Start a server on a port, with options of its own."""
    started: list[subprocess.Popen[bytes]] = []

    def start(*options: str) -> int:
        port = free_port()
        folder = tmp_path / f"server{port}"
        folder.mkdir()
        command = [str(server_binary()), *(["sentinel.conf"] if "--sentinel" in options else [])]
        if "--sentinel" in options:
            (folder / "sentinel.conf").touch()
        command += ["--port", str(port), "--bind", "127.0.0.1", "--dir", str(folder), "--save", "", *options]
        started.append(subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL))
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            try:
                socket.create_connection(("127.0.0.1", port), 0.2).close()
            except OSError:
                time.sleep(0.02)
            else:
                return port
        raise AssertionError("the server did not start")

    yield start
    for process in started:
        process.kill()
        process.wait()


def test_a_store_that_is_down_is_a_clear_error() -> None:
    port = free_port()
    reader = redis_reader(plan_for(Connection("redis", f"127.0.0.1:{port},password=hunter2")), Path())
    with pytest.raises(StoreUnavailableError) as caught:
        reader.read(["a"])
    assert f"127.0.0.1:{port}" in str(caught.value)
    assert "feature_store.yaml" in str(caught.value.hint)
    assert "hunter2" not in f"{caught.value} {caught.value.hint} {reader.server.address!r}"


def test_a_store_that_does_not_answer_is_a_clear_error_within_the_timeout() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        reader = redis_reader(plan_for(Connection("redis", f"127.0.0.1:{port}")), Path(), timeout=0.2)
        with pytest.raises(StoreTimeoutError, match=f"127.0.0.1:{port} did not answer in time"):
            reader.read(["a"])  # without a limit it would wait for ever


def test_the_connection_string_may_set_the_timeout() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        reader = redis_reader(plan_for(Connection("redis", f"127.0.0.1:{port},socket_timeout=0.1")), Path())
        began = time.monotonic()
        with pytest.raises(StoreTimeoutError):
            reader.read(["a"])
        assert time.monotonic() - began < 4, "the default is five seconds"


def test_passwords(server: Callable[..., int], monkeypatch: pytest.MonkeyPatch) -> None:
    port = server("--requirepass", "0042")
    monkeypatch.setenv("STORE_PASSWORD", "0042")
    spelt = f"127.0.0.1:{port},password=${{STORE_PASSWORD}}"
    mark_as_held(plan_for(Connection("redis", spelt)), Path())
    assert not redis_reader(plan_for(Connection("redis", spelt)), Path()).read(["a"])[0].is_known
    monkeypatch.setenv("STORE_PASSWORD", "wrong-secret")
    with pytest.raises(StoreUnavailableError) as caught:
        redis_reader(plan_for(Connection("redis", spelt)), Path()).read(["a"])
    assert "refuses the user or password" in str(caught.value)
    assert "wrong-secret" not in str(caught.value)
    with pytest.raises(StoreUnavailableError, match="refuses the user or password"):
        redis_reader(plan_for(Connection("redis", f"127.0.0.1:{port}")), Path()).read(["a"])
    monkeypatch.delenv("STORE_PASSWORD")
    with pytest.raises(ProjectError, match="STORE_PASSWORD"):
        redis_reader(plan_for(Connection("redis", spelt)), Path())


def test_a_password_from_the_environment_is_not_in_the_plan(
    make_project: Callable[..., Project], server: Callable[..., int], monkeypatch: pytest.MonkeyPatch
) -> None:
    port = server("--requirepass", "s3cret")
    monkeypatch.setenv("STORE_PASSWORD", "s3cret")
    project = on_redis(make_project, f"127.0.0.1:{port},password=${{STORE_PASSWORD}}")
    repo, plan = applied(project)
    assert b"s3cret" not in plan.to_json()
    write(repo, "brief", {"a": {"score": 1.0}})
    assert redis_reader(plan, project.root).read(["a"])[0].values == {"brief:score": 1.0}


def test_a_feature_whose_type_changed_is_a_clear_error(shop: Project) -> None:
    repo, plan = applied(shop)
    write(repo, "brief", {"a": {"score": 1.0}})
    views = tuple(
        replace(view, features=tuple(replace(feature, type="String") for feature in view.features))
        for view in plan.views
        if view.name == "brief"
    )
    with pytest.raises(StoreDataError) as caught:
        redis_reader(replace(plan, views=views), shop.root).read(["a"])
    assert "brief:score" in str(caught.value)
    assert "segments materialize --full" in str(caught.value.hint)


def test_a_key_that_is_no_hash_is_a_clear_error(shop: Project, client: redis.Redis) -> None:
    _, plan = applied(shop)
    client.set(KeyMaker("shop", "user_id", 3)("a"), "something else")
    with pytest.raises(StoreDataError, match="another type"):
        redis_reader(plan, shop.root).read(["a"])


def test_a_restart_of_the_server_goes_unnoticed(make_project: Callable[..., Project]) -> None:
    """On the embedded store, whoever needs the server starts it."""
    project = make_project({"feature_repo/definitions.py": DEFINITIONS})
    repo, plan = applied(project)
    assert plan.connection.kind == "embedded"
    write(repo, "brief", {"a": {"score": 1.0}})
    reader = open_reader(plan, project.root)
    before = reader.read(["a"])
    assert before[0].values == {"brief:score": 1.0}
    assert EmbeddedStore(project.root).stop()
    assert reader.read(["a"]) == before
    assert EmbeddedStore(project.root).stop()
    EmbeddedStore(project.root).ensure_running()
    assert reader.read(["a", "b"])[0] == before[0]
    reader.close()


def test_threads_share_a_reader(shop: Project, reader_of: Callable[[ReadPlan, Project], OnlineReader]) -> None:
    repo, plan = applied(shop)
    write(repo, "brief", {str(number): {"score": float(number)} for number in range(50)})
    reader = reader_of(plan, shop)
    wrong: list[object] = []

    def work(offset: int) -> None:
        for number in range(50):
            user = str((number + offset) % 50)
            found = reader.read([user], ["brief:score"])[0]
            if found.values != {"brief:score": float(user)}:
                wrong.append(found)

    threads = [threading.Thread(target=work, args=(offset,)) for offset in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


# --- other ways to connect -------------------------------------------------------------------------------------------


def test_a_cluster(make_project: Callable[..., Project], server: Callable[..., int]) -> None:
    port = server("--cluster-enabled", "yes", "--cluster-port", str(free_port()))
    with redis.Redis(port=port) as client:
        client.execute_command("CLUSTER", "ADDSLOTSRANGE", "0", "16383")
        deadline = time.monotonic() + 10
        while b"cluster_state:ok" not in client.execute_command("CLUSTER", "INFO") and time.monotonic() < deadline:
            time.sleep(0.05)
    project = on_redis(make_project, f"127.0.0.1:{port}", "  redis_type: redis_cluster\n")
    repo, plan = applied(project)
    assert plan.connection.redis_type == "redis_cluster"
    write(repo, "brief", {"a": {"score": 1.0}, "b": {"score": 2.0}})
    reader = open_reader(plan, project.root)
    assert [row.values for row in reader.read(["a", "b", "c"])] == [{"brief:score": 1.0}, {"brief:score": 2.0}, {}]
    reader.close()
    down = plan_for(Connection("redis", f"127.0.0.1:{free_port()}", redis_type="redis_cluster"))
    with pytest.raises(StoreUnavailableError):
        redis_reader(down, Path())


def test_a_sentinel(make_project: Callable[..., Project], server: Callable[..., int]) -> None:
    master = server()
    sentinel = server("--sentinel")
    with redis.Redis(port=sentinel) as client:
        client.execute_command("SENTINEL", "MONITOR", "the_master", "127.0.0.1", master, "1")
    more = "  redis_type: redis_sentinel\n  sentinel_master: the_master\n"
    project = on_redis(make_project, f"127.0.0.1:{sentinel}", more)
    repo, plan = applied(project)
    write(repo, "brief", {"a": {"score": 1.0}})
    assert open_reader(plan, project.root).read(["a"])[0].values == {"brief:score": 1.0}
    unknown = replace(plan, connection=replace(plan.connection, sentinel_master="nobody"))
    with pytest.raises(StoreUnavailableError):
        open_reader(unknown, project.root).read(["a"])


def test_databases_have_numbers(make_project: Callable[..., Project], server: Callable[..., int]) -> None:
    port = server()
    project = on_redis(make_project, f"127.0.0.1:{port},db=3")
    repo, plan = applied(project)
    write(repo, "brief", {"a": {"score": 1.0}})
    assert open_reader(plan, project.root).read(["a"])[0].is_known
    with redis.Redis(port=port, db=3) as client:
        assert client.dbsize() == 2  # the user, and the mark of what is held


def test_options_that_only_redis_py_knows_are_left_to_it(shop: Project) -> None:
    repo, plan = applied(shop)
    write(repo, "brief", {"a": {"score": 1.0}})
    named = replace(plan.connection, connection_string=plan.connection.connection_string + ",client_name=me")
    reader = redis_reader(replace(plan, connection=named), shop.root)
    assert isinstance(reader.transport, ClientTransport)
    direct = redis_reader(plan, shop.root)
    assert isinstance(direct.transport, SocketTransport)
    assert [row.values for row in reader.read(["a", "b"])] == [{"brief:score": 1.0}, {}]
    layout = RowLayouts(plan).of(["brief:score"])
    rows = reader.rows(layout, ["a", "b"])
    assert [len(list(filter(None, row))) for row in rows] == [2, 0]
    assert rows == direct.rows(layout, ["a", "b"])


@pytest.mark.parametrize("text", ["", "localhost", "localhost:port", "db=1", ":6379"])
def test_a_connection_string_without_a_server_is_refused(text: str) -> None:
    with pytest.raises(ProjectError, match="names no server"):
        Address.parse(text)


def test_several_nodes_and_an_ipv6_address() -> None:
    assert Address.parse("a:1,b:2,::1:3,x=1").nodes == (("a", 1), ("b", 2), ("::1", 3))
    assert str(RedisServer(Connection("redis", "a:1,password=p=q"), Path()).address) == "a:1"
    assert Address.parse("a:1,password=p=q").options == {"password": "p=q"}
    assert SECOND == 1_000_000
