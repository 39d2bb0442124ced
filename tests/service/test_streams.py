"""Server-sent events: who waits is told at once, misses nothing for being cut off, and hears nothing of others."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
import redis

from rules_engine.folders import Project
from rules_engine.redis.embedded import EmbeddedStore
from rules_engine.service.push.hub import MAX_PENDING, MAX_REMEMBERED
from rules_engine.stream.worker import Worker
from rules_engine.triggers.record import MembershipChange, Transition
from rules_engine.triggers.transition_stream import announce, transitions_key
from tests.service import shop
from tests.service.conftest import MakeService, RunningService

#: The shop, with a segment that ends by itself.
SEGMENTS = (
    shop.SEGMENTS
    + """\
---
segment: glimpsed
public: true
when: {did: view, within: 2s}
---
segment: secret
when: {did: purchase, within: 1h}
"""
)


@dataclass
class Message:
    id: str
    event: str
    data: Any


def messages(response: httpx.Response) -> Iterator[Message]:
    """The messages of a stream, by the rules of server-sent events; a block without data only moves the id on."""
    message = Message("", "message", None)
    for line in response.iter_lines():
        name, _, value = line.partition(": ")
        if name == "id":
            message.id = value
        elif name == "event":
            message.event = value
        elif name == "data":
            message.data = json.loads(value)
        elif not line:
            if message.data is not None or message.id:
                yield message
            message = Message(message.id, "message", None)


@contextmanager
def stream(service: RunningService, entity: str, role: str = "read", **headers: str) -> Iterator[Iterator[Message]]:
    """An open stream, after the message that says where it begins."""
    given = {"authorization": f"Bearer {shop.KEYS[role]}", **headers}
    with service.client.stream("GET", f"/v1/users/{entity}/stream", headers=given) as response:
        assert (response.status_code, response.headers["content-type"]) == (200, "text/event-stream")
        yield messages(response)


@contextmanager
def working(project: Project) -> Iterator[None]:
    worker = Worker(project)
    thread = threading.Thread(target=worker.run)
    thread.start()
    try:
        yield
    finally:
        worker.stop()
        thread.join()


@pytest.fixture
def running(make_project: Callable[..., Project], make_service: MakeService) -> Iterator[RunningService]:
    project = make_project({**shop.FILES, "segments/a.yaml": SEGMENTS})
    shop.put_into_effect(project)
    with working(project):
        yield make_service(project)


def track(service: RunningService, user: str, event: str = "view", **more: Any) -> None:
    body = {"userId": user, "event": event, "properties": {"page": "a"}, **more}
    assert service.post("/v1/track", "track", json=body).json()["taken"] == 1


def changes(found: Iterator[Message], number: int) -> list[tuple[str, str]]:
    """The next enters and exits."""
    wanted: list[tuple[str, str]] = []
    for message in found:
        if message.event in ("enter", "exit"):
            wanted.append((message.event, message.data["segment"]))
        if len(wanted) == number:
            break
    return wanted


def test_a_stream_tells_what_an_event_and_what_time_does(running: RunningService) -> None:
    with stream(running, "s1") as mine, stream(running, "s2", "evaluate") as other:
        assert next(mine).data is None
        assert next(other).data is None
        track(running, "s1")
        entered, refetch = next(mine), next(mine)
        assert (entered.event, entered.data["segment"]) == ("enter", "glimpsed")
        assert entered.data["cause"].startswith("event:view:")
        assert (refetch.event, refetch.id, refetch.data) == ("message", entered.id, {"type": "refetchEvaluation"})
        left = next(mine)  # nobody asked and nothing came: two seconds went by
        assert (left.event, left.data["segment"], left.data["cause"]) == ("exit", "glimpsed", "timer")
        assert running.evaluate("glimpsed", "s1")["value"] is False
        track(running, "s2")
        told = next(other)
        assert (told.event, told.data.keys()) == ("enter", {"segment", "at"})


def test_a_reader_that_was_cut_off_misses_nothing(running: RunningService) -> None:
    with stream(running, "s3") as mine:
        begin = next(mine).id
        track(running, "s3", timestamp=(datetime.now(UTC) - timedelta(minutes=9)).isoformat())
        track(running, "s3", timestamp=(datetime.now(UTC) - timedelta(minutes=8)).isoformat())
        assert changes(mine, 1) == [("enter", "keen")]
        last = next(mine).id
    with stream(running, "s3", **{"last-event-id": begin}) as mine:
        assert changes(mine, 1) == [("enter", "keen")]
    track(running, "s3")
    with stream(running, "s3", **{"last-event-id": last}) as mine:
        assert changes(mine, 2) == [("enter", "glimpsed"), ("exit", "glimpsed")]
    assert running.get("/v1/users/s3/stream", "read", headers={"last-event-id": "x"}).status_code == 400


def test_a_key_of_a_browser_hears_of_public_segments_only(running: RunningService) -> None:
    params = {"key": shop.KEYS["evaluate"]}
    with running.client.stream("GET", "/v1/users/s4/stream", params=params) as response, stream(running, "s4") as whole:
        public = messages(response)
        assert next(public).data is None
        assert next(whole).data is None
        track(running, "s4", "purchase")
        track(running, "s4", "view")
        assert changes(whole, 2) == [("enter", "secret"), ("enter", "glimpsed")]
        assert changes(public, 1) == [("enter", "glimpsed")]
    assert running.get("/v1/users/s4/stream").status_code == 401
    assert running.get("/v1/users/s4/stream", "track").status_code == 403


def test_new_definitions_are_a_reason_to_ask_anew(running: RunningService) -> None:
    with stream(running, "s5") as mine:
        assert next(mine).data is None
        plan = Project.open(project_of(running)).read_plan
        plan.write_bytes(plan.read_bytes())
        assert next(mine).data == {"type": "refetchEvaluation"}


def project_of(service: RunningService) -> str:
    command = service.process.args
    assert isinstance(command, list)
    return str(command[command.index("--repo") + 1])


def test_a_service_that_ends_says_so_to_open_streams(running: RunningService) -> None:
    with stream(running, "s6") as mine:
        assert next(mine).data is None
        ended = threading.Thread(target=running.stop)
        ended.start()
        assert [(message.event, message.data) for message in mine][-1] == ("end", {"reason": "draining"})
        ended.join()


def wait_until_read(service: RunningService) -> None:
    """Wait until the service has read all that was announced: a new stream then begins behind it."""
    with redis.Redis.from_url(EmbeddedStore(Path(project_of(service))).url) as connection:
        ((last, _),) = connection.xrevrange(transitions_key("shop"), count=1)
    deadline = time.monotonic() + 60
    begin = ""
    while begin != last.decode():
        assert time.monotonic() < deadline
        with stream(service, "nobody") as other:
            begin = next(other).id


def announce_many(service: RunningService, entity: str, number: int) -> None:
    moves = [(entity, Transition("secret", MembershipChange.ENTER, place, "timer")) for place in range(number)]
    with redis.Redis.from_url(EmbeddedStore(Path(project_of(service))).url) as connection:
        announce(connection, "shop", moves)


def test_a_reader_that_does_not_keep_up_loses_its_stream_and_nobody_else_does(running: RunningService) -> None:
    with stream(running, "s7") as mine, stream(running, "s8") as other:
        begin = next(mine).id
        assert next(other).data is None
        announce_many(running, "s7", 3 * MAX_PENDING)
        (*_, last) = mine
        assert (last.event, last.data) == ("end", {"reason": "slow-reader"})
        track(running, "s8")
        assert changes(other, 1) == [("enter", "glimpsed")]
    with stream(running, "s7", **{"last-event-id": begin}) as mine:
        assert [next(mine).data, next(mine).data] == [None, {"type": "refetchEvaluation"}]


def test_who_was_away_for_too_long_is_asked_to_evaluate_anew(running: RunningService) -> None:
    with stream(running, "s9") as mine:
        begin = next(mine).id
        track(running, "s9")
        first = next(mine).id
    announce_many(running, "s10", MAX_REMEMBERED + 5)
    wait_until_read(running)
    with stream(running, "s9", **{"last-event-id": begin}) as mine:
        newest = next(mine)
        assert [newest.data, next(mine).data] == [None, {"type": "refetchEvaluation"}]
    assert first > begin
    with stream(running, "s9", **{"last-event-id": newest.id}) as mine:
        assert next(mine).data is None
        track(running, "s9", "purchase")
        # The glimpse may end meanwhile.
        assert next(message for message in mine if message.event == "enter").data["segment"] == "secret"
