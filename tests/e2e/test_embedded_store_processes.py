"""The embedded store as commands meet it: many processes at once, and Feast's own commands."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
import redis

from rules_engine.errors import ProjectError
from rules_engine.folders import Project
from rules_engine.redis.embedded import EmbeddedStore

MakeStore = Callable[..., EmbeddedStore]

START = """
import sys
from rules_engine.redis.embedded import EmbeddedStore
store = EmbeddedStore(sys.argv[1])
sys.stdin.read(1)  # so that all begin together
store.ensure_running()
print(store.status().pid)
"""


def servers_of(store: EmbeddedStore) -> list[int]:
    """Every living server of this store, as the operating system tells."""
    title = f"unixsocket:{store.socket_path}"
    return [p.pid for p in psutil.process_iter(["cmdline"]) if title in " ".join(p.info["cmdline"] or ())]


def start_together(store: EmbeddedStore, count: int) -> set[int]:
    """Let ``count`` processes ask for the store at the same moment; the process ids of the servers that they found."""
    command = [sys.executable, "-c", START, str(store.root)]
    starters = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(count)
    ]
    for starter in starters:
        assert starter.stdin is not None
        starter.stdin.write("g")
        starter.stdin.flush()
    outputs = [starter.communicate(timeout=60) for starter in starters]
    assert [(starter.returncode, err) for starter, (_, err) in zip(starters, outputs, strict=True)] == [(0, "")] * count
    return {int(out) for out, _ in outputs}


def test_eight_commands_at_once_share_one_server(make_store: MakeStore) -> None:
    store = make_store()
    for _ in range(3):
        found = start_together(store, 8)
        assert len(found) == 1
        assert servers_of(store) == list(found)
        store.stop()
        assert servers_of(store) == []


def test_eight_commands_after_a_crash_share_one_server_and_its_data(make_store: MakeStore) -> None:
    store = make_store()
    store.ensure_running()
    with redis.Redis.from_url(store.url) as client:
        client.set("kept", "yes")
        client.execute_command("WAITAOF", 1, 0, 10_000)
    (pid,) = servers_of(store)
    psutil.Process(pid).kill()

    found = start_together(store, 8)
    assert found != {pid}
    assert servers_of(store) == list(found)
    with redis.Redis.from_url(store.url) as client:
        assert client.get("kept") == b"yes"


def test_the_server_outlives_the_command_that_started_it_and_its_terminal(make_store: MakeStore) -> None:
    store = make_store()
    done = subprocess.run(
        [sys.executable, "-c", START, str(store.root)],
        input="g",
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
        start_new_session=True,
    )
    (pid,) = servers_of(store)
    assert int(done.stdout) == pid
    server = psutil.Process(pid)
    assert server.terminal() is None
    assert server.ppid() != psutil.Process().pid
    assert EmbeddedStore(store.root).stop() is True


def test_two_projects_have_two_servers(make_store: MakeStore) -> None:
    one, other = make_store(), make_store()
    one.ensure_running()
    other.ensure_running()
    with redis.Redis.from_url(one.url) as client:
        client.set("only", "here")
    with redis.Redis.from_url(other.url) as client:
        assert client.get("only") is None
    one.stop()
    assert other.status().running


DEFINITIONS = """
from datetime import timedelta
from feast import Entity, FeatureView, Field, FileSource, ValueType
from feast.types import Int64

user = Entity(name="user", join_keys=["user_id"], value_type=ValueType.STRING)
source = FileSource(name="visits", path="visits.parquet", timestamp_field="at")
visits = FeatureView(name="visits", entities=[user], ttl=timedelta(days=1), source=source,
                     schema=[Field(name="count", dtype=Int64)])
"""


def feast(folder: Path, *arguments: str) -> None:
    done = subprocess.run(
        [str(Path(sys.executable).with_name("feast")), *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_feast_by_hand(make_project: Callable[..., Project]) -> None:
    """Its commands start the store; a reader survives a restart; asynchronous calls work."""
    import pandas as pd
    from feast import FeatureStore

    project = make_project({"feature_repo/definitions.py": DEFINITIONS})
    rows = {"user_id": ["42", "43"], "count": [7, 8], "at": pd.to_datetime(["2026-01-01T00:00Z"] * 2).as_unit("us")}
    pd.DataFrame(rows).to_parquet(project.feature_repo / "visits.parquet")
    store = EmbeddedStore(project.root)
    users = [{"user_id": user} for user in ("42", "43", "44")]

    feast(project.feature_repo, "apply")
    feast(project.feature_repo, "materialize", "2025-12-31T00:00:00", "2026-01-02T00:00:00")
    assert store.status().keys == 2

    reader = FeatureStore(repo_path=str(project.feature_repo))
    assert reader.get_online_features(["visits:count"], users).to_dict()["count"] == [7, 8, None]
    store.stop()
    assert reader.get_online_features(["visits:count"], users).to_dict()["count"] == [7, 8, None]
    assert store.status().running

    store.stop()
    newer = pd.DataFrame({"user_id": ["44"], "count": [9], "at": [pd.Timestamp("2026-01-01T00:00Z")]})

    async def write_and_read() -> list[int | None]:
        await reader.write_to_online_store_async("visits", df=newer)
        reply = await reader.get_online_features_async(["visits:count"], users)
        await reader.close()
        counts: list[int | None] = reply.to_dict()["count"]
        return counts

    assert asyncio.run(write_and_read()) == [7, 8, 9]

    reader.teardown()
    assert store.status().keys == 0


def test_without_a_folder_feast_is_told_what_to_do() -> None:
    from feast import RepoConfig

    from rules_engine.features.online_store import embedded_store

    config = RepoConfig(
        project="shop",
        provider="local",
        registry="registry.db",
        online_store={"type": "rules_engine.features.online_store.EmbeddedOnlineStore"},
        entity_key_serialization_version=3,
    )
    with pytest.raises(ProjectError, match="needs to know the project's folder"):
        embedded_store(config)
