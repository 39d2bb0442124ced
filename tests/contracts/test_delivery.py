"""Delivery, on a real store and to real receivers: once for each key, and where somebody is killed at least once."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest
import redis

from rules_engine.clock import SECOND
from rules_engine.delivery import courier as couriers
from rules_engine.delivery.courier import Courier
from rules_engine.delivery.dispatch import Delivery, enqueue
from rules_engine.delivery.metrics import MetricsRegistry
from rules_engine.delivery.queues import queue_key, resend, undelivered, undelivered_key
from rules_engine.redis.embedded import EmbeddedStore
from rules_engine.sinks.kinds.file import FileSettings
from rules_engine.sinks.kinds.webhook import WebhookSettings
from rules_engine.sinks.settings import SinkSettings
from rules_engine.triggers.actions import Action, action_key
from tests.receivers import Answer, Receiver, Request, receiver, wait_until

PROJECT = "shop"


def action(number: int, sink: str = "webhook:crm", entity: str = "") -> Action:
    key = action_key(f"mail:{number}:enter:vip:0", sink)
    return Action(key, sink, "mail", entity or f"u{number}", "enter", 0, "vip", payload={"number": number})


def numbers(requests: list[Request]) -> list[int]:
    return [request.action["payload"]["number"] for request in requests]


@pytest.fixture
def deliver(client: redis.Redis, tmp_path: Path) -> Iterator[Callable[..., Delivery]]:
    """Starts deliveries, and stops them at the end."""
    started: list[Delivery] = []

    def start(*sinks: SinkSettings, metrics: MetricsRegistry | None = None) -> Delivery:
        delivery = Delivery(client, PROJECT, tmp_path, metrics)
        started.append(delivery)
        delivery.serve({sink.name: sink for sink in sinks})
        return delivery

    yield start
    for delivery in started:
        delivery.stop()


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """A tenth of the times, so that the tests do not wait."""
    monkeypatch.setattr("rules_engine.delivery.circuit.FIRST_PAUSE", 0.1)
    monkeypatch.setattr("rules_engine.delivery.circuit.backoff.__defaults__", (0.1, 1.0))


def left(client: Any, sink: str = "webhook:crm") -> int:
    return int(client.xlen(queue_key(PROJECT, sink)))


# --- what works -----------------------------------------------------------------------------------------------------


def test_what_waits_and_what_comes_is_delivered_once(
    client: redis.Redis, server: Receiver, deliver: Callable[..., Delivery]
) -> None:
    enqueue(client, PROJECT, [action(number) for number in range(150)])
    delivery = deliver(WebhookSettings("crm", server.url, allow=("127.0.0.1",)))
    enqueue(client, PROJECT, [action(number) for number in range(100, 300)])
    assert delivery.drain() == 0
    assert sorted(numbers(server.accepted())) == list(range(300))
    assert (left(client), client.xlen(undelivered_key(PROJECT))) == (0, 0)


def test_an_action_is_on_its_way_at_once(
    client: redis.Redis, server: Receiver, deliver: Callable[..., Delivery]
) -> None:
    delivery = deliver(WebhookSettings("crm", server.url, allow=("127.0.0.1",)))
    delivery.drain()
    took = []
    for number in range(10):
        time.sleep(0.05)
        sent = time.time()
        enqueue(client, PROJECT, [action(number)])
        took.append(server.wait_for(number + 1)[-1].at - sent)
    assert sorted(took)[2] < 0.5, f"{took}: on a busy machine not each of them"


def test_a_sink_that_is_down_delays_only_itself(
    client: redis.Redis, server: Receiver, deliver: Callable[..., Delivery], tmp_path: Path
) -> None:
    server.answer = lambda _: Answer(after=1.0)
    deliver(
        WebhookSettings("crm", server.url, timeout=SECOND // 5, allow=("127.0.0.1",)), FileSettings("audit", "a.jsonl")
    )
    enqueue(client, PROJECT, [one for n in range(200) for one in (action(n), action(n, "file:audit"))])
    path = tmp_path / "a.jsonl"
    wait_until(lambda: path.exists() and path.read_bytes().count(b"\n") == 200, timeout=20)  # the other one needs 40
    assert left(client) == 200


def test_definitions_that_change_change_the_sinks(
    client: redis.Redis, server: Receiver, deliver: Callable[..., Delivery], tmp_path: Path
) -> None:
    delivery = deliver(FileSettings("crm", "old.jsonl"))
    enqueue(client, PROJECT, [action(1)])
    delivery.drain()
    delivery.serve({"crm": WebhookSettings("crm", server.url, allow=("127.0.0.1",))})
    enqueue(client, PROJECT, [action(2)])
    delivery.drain()
    assert numbers(server.accepted()) == [2]
    delivery.serve({})
    enqueue(client, PROJECT, [action(3)])
    assert delivery.drain() == 0
    assert left(client) == 1  # it waits until somebody configures the sink again


# --- what fails -----------------------------------------------------------------------------------------------------


def test_a_failure_is_tried_again_with_its_key_and_the_order_of_an_entity_is_kept(
    client: redis.Redis, server: Receiver, deliver: Callable[..., Delivery]
) -> None:
    tries: Counter[str] = Counter()

    def answer(request: Request) -> Answer:
        tries[request.key] += 1
        return Answer(500 if request.action["payload"]["number"] % 7 == 3 and tries[request.key] < 3 else 200)

    server.answer = answer
    deliver(WebhookSettings("crm", server.url, allow=("127.0.0.1",)))
    enqueue(client, PROJECT, [action(number, entity=f"u{number % 5}") for number in range(60)])
    wait_until(lambda: left(client) == 0)
    assert set(tries.values()) == {1, 3}
    assert len(tries) == 60
    worked: dict[str, list[int]] = {}
    for request in server.accepted():
        number = request.action["payload"]["number"]
        if number not in worked.setdefault(request.action["entity"], []):
            worked[request.action["entity"]].append(number)
    assert all(found == sorted(found) for found in worked.values())


def test_what_is_refused_is_set_aside_and_can_be_resent_with_its_key(
    client: redis.Redis, server: Receiver, deliver: Callable[..., Delivery]
) -> None:
    server.answer = lambda request: Answer(422 if request.action["payload"]["number"] == 2 else 200)
    metrics = MetricsRegistry()
    delivery = deliver(WebhookSettings("crm", server.url, allow=("127.0.0.1",)), metrics=metrics)
    enqueue(client, PROJECT, [action(1), action(2), action(3)])
    assert delivery.drain() == 0
    total, [one] = undelivered(client, PROJECT)
    assert (total, one.action, one.reason["code"], one.reason["tries"]) == (1, action(2), "http-422", 1)
    assert metrics.value("segments_actions_total", sink="webhook:crm", result="delivered") == 2
    assert metrics.value("segments_actions_total", sink="webhook:crm", result="given_up") == 1
    server.answer = lambda _: Answer()
    assert resend(client, PROJECT, sinks=["file:audit"]) == 0
    assert resend(client, PROJECT, identities=["1-1"]) == 0
    assert resend(client, PROJECT, identities=[one.identity]) == 1
    assert delivery.drain() == 0
    assert undelivered(client, PROJECT) == (0, [])
    keys = [request.key for request in server.accepted() if request.action["payload"]["number"] == 2]
    assert keys == [action(2).key] * 2


def test_what_cannot_be_delivered_for_long_is_given_up(
    client: redis.Redis, server: Receiver, deliver: Callable[..., Delivery]
) -> None:
    server.answer = lambda _: Answer(503)
    deliver(WebhookSettings("crm", server.url, give_up_after=SECOND, allow=("127.0.0.1",)))
    enqueue(client, PROJECT, [action(number) for number in range(30)])
    wait_until(lambda: left(client) == 0)
    total, found = undelivered(client, PROJECT)
    assert total == 30
    assert {one.reason["code"] for one in found} == {"gave-up"}
    assert found[0].reason["message"] == "not delivered within 1s; at last: the answer is 503"


def test_a_sink_that_fails_is_left_alone_and_tried_with_one_action(
    client: redis.Redis, server: Receiver, deliver: Callable[..., Delivery]
) -> None:
    server.answer = lambda _: Answer(500)
    metrics = MetricsRegistry()
    deliver(WebhookSettings("crm", server.url, allow=("127.0.0.1",)), metrics=metrics)
    enqueue(client, PROJECT, [action(number) for number in range(100)])
    wait_until(lambda: metrics.value("segments_sink_circuit", sink="webhook:crm", state="open"))
    time.sleep(1.5)
    tried = len(server.accepted())
    assert 100 <= tried <= 120  # the first batch, and then one by one
    server.answer = lambda _: Answer()
    wait_until(lambda: left(client) == 0)
    assert metrics.value("segments_sink_circuit", sink="webhook:crm", state="closed") == 1
    delivered = Counter(numbers(server.accepted()[tried:]))
    assert set(delivered.values()) == {1}
    assert len(delivered) == 100


def test_a_sink_that_asks_to_wait_is_left_alone(
    client: redis.Redis, server: Receiver, deliver: Callable[..., Delivery]
) -> None:
    server.answer = lambda _: Answer(429, {"retry-after": "1"}) if len(server.requests) == 1 else Answer()
    deliver(WebhookSettings("crm", server.url, allow=("127.0.0.1",)))
    enqueue(client, PROJECT, [action(1)])
    server.wait_for(1)
    time.sleep(0.1)
    enqueue(client, PROJECT, [action(2)])
    first, *others = server.wait_for(3)
    assert all(request.at - first.at >= 0.95 for request in others)


def test_one_bad_action_does_not_stop_the_others(
    client: redis.Redis, server: Receiver, deliver: Callable[..., Delivery]
) -> None:
    server.answer = lambda request: Answer(500 if request.action["entity"] == "poison" else 200)
    deliver(WebhookSettings("crm", server.url, allow=("127.0.0.1",)))
    enqueue(client, PROJECT, [action(0, entity="poison")])
    wait_until(lambda: len(server.requests) >= 6)  # the circuit was open by then
    for number in range(1, 5):
        enqueue(client, PROJECT, [action(number)])
        wait_until(lambda number=number: number in numbers(server.accepted()))  # type: ignore[misc]
    wait_until(lambda: left(client) == 1)


def test_a_sink_with_a_flaw_is_tried_with_single_actions(
    client: redis.Redis, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    courier = Courier(client, PROJECT, FileSettings("audit", "a.jsonl"), tmp_path)
    whole = Action.body

    def flawed(self: Action) -> bytes:
        if self.entity == "u1":
            raise ZeroDivisionError
        return whole(self)

    enqueue(client, PROJECT, [action(number, "file:audit") for number in range(3)])
    monkeypatch.setattr(Action, "body", flawed)
    courier.step()
    assert (tmp_path / "a.jsonl").read_bytes().count(b"\n") == 2
    assert left(client, "file:audit") == 1
    courier.release()


def test_a_secret_that_is_not_set_is_waited_for(
    client: redis.Redis, server: Receiver, deliver: Callable[..., Delivery], monkeypatch: pytest.MonkeyPatch
) -> None:
    deliver(WebhookSettings("crm", server.url, "${LATE_SECRET}", allow=("127.0.0.1",)))
    enqueue(client, PROJECT, [action(1)])
    time.sleep(0.3)
    assert server.accepted() == []
    monkeypatch.setenv("LATE_SECRET", "hunter2")
    assert "webhook-signature" in server.wait_for(1)[0].headers


def test_what_is_no_action_is_set_aside(
    client: redis.Redis, server: Receiver, deliver: Callable[..., Delivery]
) -> None:
    client.xadd(queue_key(PROJECT, "webhook:crm"), {"action": b"nonsense"})
    client.xadd(queue_key(PROJECT, "webhook:crm"), {"other": b"1"})
    enqueue(client, PROJECT, [action(1)])
    deliver(WebhookSettings("crm", server.url, allow=("127.0.0.1",))).drain()
    assert numbers(server.accepted()) == [1]
    entries: Any = client.xrange(undelivered_key(PROJECT))
    reasons = [orjson.loads(fields[b"reason"])["code"] for _, fields in entries]
    assert reasons == ["invalid-action"] * 2


# --- who dies -------------------------------------------------------------------------------------------------------


def test_two_workers_do_not_both_send(client: redis.Redis, server: Receiver, deliver: Callable[..., Delivery]) -> None:
    first, second = (
        deliver(WebhookSettings("crm", server.url, allow=("127.0.0.1",))),
        deliver(WebhookSettings("crm", server.url, allow=("127.0.0.1",))),
    )
    for start in range(0, 300, 50):
        enqueue(client, PROJECT, [action(number) for number in range(start, start + 50)])
        wait_until(lambda: left(client) == 0)
        if start == 100:
            first.stop()  # the other takes over at once
    second.drain()
    assert sorted(numbers(server.accepted())) == list(range(300))


def test_stopping_leaves_what_is_not_delivered(
    client: redis.Redis, server: Receiver, deliver: Callable[..., Delivery]
) -> None:
    server.answer = lambda _: Answer(after=0.2)
    delivery = deliver(WebhookSettings("crm", server.url, allow=("127.0.0.1",)))
    enqueue(client, PROJECT, [action(number) for number in range(500)])
    server.wait_for(20)
    delivery.stop()
    sent = numbers(server.accepted())
    assert len(sent) < 60  # the requests that were under way, and not the whole batch
    server.answer = lambda _: Answer()
    assert len(sent) + left(client) == 500
    assert len(set(sent)) == len(sent)
    deliver(WebhookSettings("crm", server.url, allow=("127.0.0.1",))).drain()
    assert sorted(numbers(server.accepted())) == list(range(500))


WORKER = """
import sys, redis
from pathlib import Path
from rules_engine.sinks.kinds.file import FileSettings
from rules_engine.sinks.kinds.webhook import WebhookSettings
from rules_engine.delivery.dispatch import Delivery
delivery = Delivery(redis.Redis.from_url(sys.argv[1]), "shop", Path(sys.argv[2]))
crm = WebhookSettings("crm", sys.argv[3], allow=("127.0.0.1",))
delivery.serve({"crm": crm, "audit": FileSettings("audit", "a.jsonl")})
import time; time.sleep(60)
"""


def test_a_killed_worker_loses_nothing_and_keys_stay(
    client: redis.Redis,
    store: EmbeddedStore,
    server: Receiver,
    deliver: Callable[..., Delivery],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(couriers, "LEASE", 1.0)
    monkeypatch.setattr("rules_engine.delivery.dispatch.LEASE", 1.0)
    script = "import rules_engine.delivery.courier as c, rules_engine.delivery.dispatch as d\nc.LEASE = d.LEASE = 1.0\n"
    server.answer = lambda _: Answer(after=0.01)
    actions = [one for n in range(800) for one in (action(n), action(n, "file:audit"))]
    enqueue(client, PROJECT, actions)
    for wanted in (150, 450):
        code = script + textwrap.dedent(WORKER)
        worker = subprocess.Popen([sys.executable, "-c", code, store.url, str(tmp_path), server.url])
        wait_until(lambda wanted=wanted: len(server.requests) >= wanted)  # type: ignore[misc]
        os.kill(worker.pid, signal.SIGKILL)
        worker.wait()
    deliver(WebhookSettings("crm", server.url, allow=("127.0.0.1",)), FileSettings("audit", "a.jsonl"))
    wait_until(lambda: left(client) == left(client, "file:audit") == 0, timeout=60)
    keys: dict[int, set[str]] = {}
    for request in server.accepted():
        keys.setdefault(request.action["payload"]["number"], set()).add(request.key)
    assert keys == {number: {action(number).key} for number in range(800)}
    assert len(server.accepted()) <= 800 + 2 * couriers.BATCH  # at most the batch of each that died, twice
    lines = [orjson.loads(line) for line in (tmp_path / "a.jsonl").read_bytes().splitlines()]
    assert [line["payload"]["number"] for line in lines] == list(range(800))  # the file has each once


def test_the_store_may_go_away_and_come_back(
    make_store: Callable[..., EmbeddedStore], server: Receiver, tmp_path: Path
) -> None:
    own = make_store()
    own.ensure_running()
    with redis.Redis.from_url(own.url) as connected:
        delivery = Delivery(connected, PROJECT, tmp_path)
        delivery.serve({"crm": WebhookSettings("crm", server.url, allow=("127.0.0.1",))})
        enqueue(connected, PROJECT, [action(1)])
        server.wait_for(1)
        wait_until(lambda: left(connected) == 0)
        own.stop()
        time.sleep(0.5)
        own.ensure_running()
        enqueue(connected, PROJECT, [action(2)])
        assert numbers(server.wait_for(2)) == [1, 2]
        delivery.stop()


def test_memory_of_what_waits_is_bounded(client: redis.Redis, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(couriers, "WINDOW", 50)
    with receiver() as gone:
        url = gone.url
    courier = Courier(client, PROJECT, WebhookSettings("crm", url, allow=("127.0.0.1",)), tmp_path)
    enqueue(client, PROJECT, [action(number) for number in range(500)])
    for _ in range(20):
        courier.step()
    assert len(courier._window) == 50
    assert left(client) == 500
    courier.release()
    courier.close()
