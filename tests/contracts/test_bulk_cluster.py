"""Writes in bulk into a cluster of three masters: every row on its node, also after keys moved; deletions."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import redis

from rules_engine.deploy.apply import apply
from rules_engine.deploy.materialize import materialize
from rules_engine.features.feast.repo import FeastRepo
from rules_engine.features.feast_import import import_feast, quiet
from rules_engine.features.online.opening import open_reader
from rules_engine.folders import Project
from rules_engine.redis.valkey import server_binary

import_feast()

from rules_engine.features.writing.ragged import Ragged  # noqa: E402
from rules_engine.features.writing.rows import BulkRows  # noqa: E402  # Feast is imported as the commands import it
from rules_engine.features.writing.writer import BulkWriter  # noqa: E402

CONFIGURATION = """\
project: shop
provider: local
registry: ../.segments/registry.db
offline_store: {type: duckdb}
entity_key_serialization_version: 3
batch_engine: {type: rules_engine.features.arrow_engine.ArrowEngine}
online_store:
  type: rules_engine.features.online_store.BulkRedisOnlineStore
  redis_type: redis_cluster
  connection_string: "127.0.0.1:%d"
"""
DEFINITIONS = """\
from datetime import timedelta
from pathlib import Path

from feast import Entity, FeatureView, Field, FileSource, ValueType
from feast.types import Int64

user = Entity(name="user", join_keys=["user_id"], value_type=ValueType.STRING)
path = str(Path(__file__).parent / "v.parquet")
source = FileSource(name="v", path=path, timestamp_field="event_timestamp")
v = FeatureView(name="v", entities=[user], ttl=timedelta(0), source=source, schema=[Field(name="x", dtype=Int64)])
"""


def free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        probes = [stack.enter_context(socket.socket()) for _ in range(count)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [int(probe.getsockname()[1]) for probe in probes]


@pytest.fixture
def masters(tmp_path: Path) -> Iterator[list[redis.Redis]]:
    """Three servers that share the slots."""
    ports = free_ports(6)
    processes, clients = [], []
    try:
        for port, bus in zip(ports[:3], ports[3:], strict=True):
            folder = tmp_path / f"node{port}"
            folder.mkdir()
            options = (
                f"--port {port} --cluster-port {bus} --cluster-enabled yes --bind 127.0.0.1 --dir {folder} --save ''"
            )
            command = [str(server_binary()), *options.replace("''", "").split(" ")]
            processes.append(subprocess.Popen(command, stdout=subprocess.DEVNULL))
            clients.append(redis.Redis(port=port))
        for number, client in enumerate(clients):
            wait_for(client.ping)
            client.execute_command("CLUSTER", "ADDSLOTSRANGE", number * 5462, min(number * 5462 + 5461, 16383))
            client.execute_command("CLUSTER", "MEET", "127.0.0.1", ports[0], ports[3])
        for client in clients:
            wait_for(lambda client=client: all(word in told(client) for word in ("known_nodes:3", "cluster_state:ok")))
        yield clients
    finally:
        for client in clients:
            client.close()
        for process in processes:
            process.kill()
            process.wait()


def told(client: redis.Redis) -> str:
    found = client.execute_command("CLUSTER", "INFO")
    return found.decode() if isinstance(found, bytes) else str(found)


def wait_for(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        with contextlib.suppress(redis.ConnectionError):
            if condition():
                return
        time.sleep(0.05)
    raise AssertionError("the cluster does not come up")


def users_in(client: redis.Redis) -> int:
    """Feast's keys; others are those of streams and the like."""
    return sum(b"user_id" in key for key in client.scan_iter(count=1_000))


def test_materialize_and_tear_down_a_cluster(make_project: Callable[..., Project], masters: list[redis.Redis]) -> None:
    port = masters[0].connection_pool.connection_kwargs["port"]
    files = {
        "feature_repo/feature_store.yaml": CONFIGURATION % port,
        "feature_repo/definitions.py": DEFINITIONS,
    }
    project = make_project(files)
    users = [f"user {number}" for number in range(12_000)]
    at = pa.array([1_767_225_600_000_000] * len(users), pa.timestamp("us", tz="UTC"))
    table = pa.table({"user_id": users, "event_timestamp": at, "x": np.arange(len(users))})
    pq.write_table(table, project.feature_repo / "v.parquet")
    plan = apply(project, {}).plan
    assert materialize(project).rows == len(users)
    shares = [users_in(client) for client in masters]
    assert sum(shares) == len(users)
    assert min(shares) > len(users) // 4
    reader = open_reader(plan, project.root)
    found = reader.read(users[::97])
    assert [row.values["v:x"] for row in found] == list(range(0, len(users), 97))
    reader.close()
    repo = FeastRepo(project)
    with quiet():
        repo.store.teardown()
    assert [users_in(client) for client in masters] == [0, 0, 0]


def test_keys_that_moved_to_another_node_are_followed(masters: list[redis.Redis]) -> None:
    port = masters[0].connection_pool.connection_kwargs["port"]
    keys = [f"k{number}".encode() for number in range(300)]
    instants = np.full(len(keys), 1_000_000)
    rows = BulkRows.of((b"_ts:v",), [Ragged.of(keys)], instants, [], distinct=True)
    with redis.RedisCluster(host="127.0.0.1", port=port) as client:
        slot = client.keyslot(keys[0])
        owner = next(number for number, one in enumerate(masters) if number == min(slot // 5462, 2))
        target = masters[(owner + 1) % 3]
        identity = target.execute_command("CLUSTER", "MYID")
        for one in (target, masters[owner], masters[(owner + 2) % 3]):
            one.execute_command("CLUSTER", "SETSLOT", slot, "NODE", identity)
        assert BulkWriter(client).write([rows]) == len(keys)
        assert target.hget(keys[0], "_ts:v") == b"\x08\x01"
