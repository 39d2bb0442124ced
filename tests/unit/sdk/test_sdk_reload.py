"""Clients notice what was applied while they are in use, and no request fails for it."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import redis

from rules_engine.errors import StoreUnavailableError
from rules_engine.folders import Project
from rules_engine.read_plan import Connection, PlanFeature, PlanView, ReadPlan
from rules_engine.redis.embedded import EmbeddedStore
from rules_engine.redis.feast_layout import KeyMaker, field_bytes
from rules_engine.rules.load import load_text
from rules_engine.sdk import AsyncSegmentClient, SegmentClient
from rules_engine.sdk.applied import LOOK_EVERY
from rules_engine.sdk.rules import encode_definitions
from tests.stores import put_into_effect

WAIT = 30.0


def plan_for(connection: str, segment: str, threshold: int) -> ReadPlan:
    """A plan of one segment, which reads a feature of its own: the layouts of two plans differ."""
    features = (PlanFeature("age", "Int64", 1), PlanFeature("height", "Int64", 2))
    view = PlanView("user", "user", features)
    empty = ReadPlan("shop", "user", "user_id", 3, Connection("redis", connection), (view,))
    feature = "age" if threshold % 2 else "height"
    text = f"segment: {segment}\nwhen: {{feature: user:{feature}, at_least: {threshold}}}"
    definitions = encode_definitions(load_text(text, empty.catalog()))
    return ReadPlan("shop", "user", "user_id", 3, empty.connection, (view,), definitions)


@pytest.fixture
def project(tmp_path: Path, store: EmbeddedStore, client: redis.Redis) -> Project:
    contents = {field_bytes(1): b"\x20\x28", field_bytes(2): b"\x20\x28", b"_ts:user": b"\x08\x01"}  # both are 40
    client.hset(KeyMaker("shop", "user_id", 3)("a"), mapping=contents)
    made = Project(tmp_path / "shop")
    put_into_effect(plan_for(store.connection_string, "first", 1), made)
    return made


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WAIT
    while not condition():
        assert time.monotonic() < deadline, "it did not come to pass"
        time.sleep(0.01)


@pytest.fixture
def errors(caplog: pytest.LogCaptureFixture) -> Iterator[Callable[[], list[str]]]:
    with caplog.at_level(logging.ERROR, "rules_engine.sdk"):
        yield lambda: [record.getMessage() for record in caplog.records]


def test_newly_applied_definitions_answer_the_next_requests(project: Project, store: EmbeddedStore) -> None:
    with SegmentClient.from_repo(project.root) as client:
        assert client.lookup("a").segments == {"first"}
        put_into_effect(plan_for(store.connection_string, "second", 2), project)
        time.sleep(LOOK_EVERY)
        assert client.lookup("a").segments == {"second"}
        assert list(client.program.names) == ["second"]
        assert client.explain("a", "second").verdict is True
        put_into_effect(plan_for(store.connection_string, "third", 99), project)
        until(lambda: client.lookup_many(["a", "nobody"])[0].segments == frozenset())
        assert list(client.program.names) == ["third"]


def test_a_broken_plan_changes_nothing_and_is_an_error_in_the_log(
    project: Project, store: EmbeddedStore, errors: Callable[[], list[str]]
) -> None:
    with SegmentClient.from_repo(project.root) as client:
        client.lookup("a")
        for content in (b"{", b"", b'{"format": 99}'):
            before = len(errors())
            project.read_plan.write_bytes(content)
            until(lambda before=before: client.lookup("a").segments == {"first"} and len(errors()) > before)
            time.sleep(LOOK_EVERY)
            client.lookup("a")
            assert len(errors()) == before + 1, "it is said once"
        assert "the newly applied read plan cannot be used" in errors()[0]
        project.read_plan.unlink()
        until(lambda: client.lookup("a").segments == {"first"} and len(errors()) == 4)
        put_into_effect(plan_for(store.connection_string, "second", 2), project)
        until(lambda: client.lookup("a").segments == {"second"})


def test_a_plan_with_another_store_takes_its_connections_there(
    project: Project, store: EmbeddedStore, make_store: Callable[..., EmbeddedStore]
) -> None:
    other = make_store()
    other.ensure_running()
    with SegmentClient.from_repo(project.root, timeout=20) as client:
        assert client.lookup("a").segments == {"first"}
        put_into_effect(plan_for(other.connection_string, "second", 2), project)
        until(lambda: client.lookup("a").segments == frozenset())  # the other store knows nobody
        plan_for("127.0.0.1:1", "third", 3).save(project.read_plan)
        time.sleep(LOOK_EVERY)
        with pytest.raises(StoreUnavailableError, match=r"127\.0\.0\.1:1"):
            client.lookup("a")
        put_into_effect(plan_for(store.connection_string, "fourth", 4), project)
        time.sleep(LOOK_EVERY)
        assert client.lookup("a").segments == {"fourth"}


def test_reloads_under_load_lose_no_request(project: Project, store: EmbeddedStore) -> None:
    """Each answer is that of one plan, whole, and of none before the one seen last."""
    wrong: list[object] = []
    last = [0] * 4
    end = threading.Event()
    with SegmentClient.from_repo(project.root) as client:

        def work(offset: int) -> None:
            newest = 0
            try:
                while not end.is_set():
                    found = client.lookup("a") if offset % 2 else client.lookup_many(["a"] * 20)[7]
                    (name,) = found.segments
                    number = int(name.removeprefix("segment_").replace("first", "0"))
                    if number < newest:
                        wrong.append((number, newest))
                    last[offset] = newest = number
            except Exception as error:  # noqa: BLE001 -- whatever it is, it is a failed request
                wrong.append(error)

        threads = [threading.Thread(target=work, args=(offset,)) for offset in range(4)]
        for thread in threads:
            thread.start()
        for number in range(1, 16):
            put_into_effect(plan_for(store.connection_string, f"segment_{number}", number % 30 + 1), project)
            time.sleep(0.1)
        until(lambda: last == [15] * 4 or bool(wrong))
        end.set()
        for thread in threads:
            thread.join()
    assert wrong == []


def test_asyncio_reloads_under_load_lose_no_request(project: Project, store: EmbeddedStore) -> None:
    async def main() -> None:
        end = False
        last = [0] * 8
        async with AsyncSegmentClient.from_repo(project.root) as client:

            async def work(place: int) -> None:
                newest = 0
                while not end:
                    (name,) = (await client.lookup("a")).segments
                    number = int(name.removeprefix("segment_").replace("first", "0"))
                    assert number >= newest
                    last[place] = newest = number

            tasks = [asyncio.create_task(work(place)) for place in range(8)]
            for number in range(1, 11):
                plan = plan_for(store.connection_string, f"segment_{number}", number % 30 + 1)
                await asyncio.to_thread(plan.save, project.read_plan)
                await asyncio.sleep(0.1)
            await asyncio.to_thread(until, lambda: last == [10] * 8 or any(task.done() for task in tasks))
            end = True
            await asyncio.gather(*tasks)

    asyncio.run(main())


def test_asyncio_a_cancelled_reload_is_made_up_for(project: Project, store: EmbeddedStore) -> None:
    async def main() -> None:
        async with AsyncSegmentClient.from_repo(project.root) as client:
            await client.lookup("a")
            put_into_effect(plan_for(store.connection_string, "second", 2), project)
            await asyncio.sleep(LOOK_EVERY)
            noticing = asyncio.create_task(client.lookup("a"))
            await asyncio.sleep(0)
            noticing.cancel()
            with pytest.raises(asyncio.CancelledError):
                await noticing
            deadline = time.monotonic() + WAIT
            while (await client.lookup("a")).segments != {"second"}:
                assert time.monotonic() < deadline
                await asyncio.sleep(0.01)

    asyncio.run(main())
