"""The queues of actions, on a real server: handed over twice, queued once; full queues refuse and say so."""

from __future__ import annotations

import orjson
import pytest
import redis

from rules_engine.delivery import queues
from rules_engine.delivery.dispatch import Enqueued, enqueue
from rules_engine.triggers.actions import Action, action_key

PROJECT = "shop"


def action(number: int, sink: str = "webhook:crm") -> Action:
    key = action_key(f"mail:{number}:enter:vip:0", sink)
    return Action(key, sink, "mail", str(number), "enter", 0, "vip", payload={"number": number})


def waiting(client: redis.Redis, sink: str) -> list[Action]:
    return [Action.decode(fields[b"action"]) for _, fields in client.xrange(queues.queue_key(PROJECT, sink))]


def test_actions_wait_in_order_and_once(client: redis.Redis) -> None:
    actions = [action(number) for number in range(1_200)]
    assert enqueue(client, PROJECT, actions[:700]) == Enqueued(700)
    assert enqueue(client, PROJECT, actions) == Enqueued(500, 700)
    assert waiting(client, "webhook:crm") == actions


def test_a_stream_gets_what_applications_read(client: redis.Redis) -> None:
    enqueue(client, PROJECT, [action(1, "stream:mails"), action(1, "file:audit")])
    [(_, fields)] = client.xrange("segments:{shop}:actions:mails")
    assert orjson.loads(fields[b"action"])["payload"] == {"number": 1}
    assert len(waiting(client, "file:audit")) == 1


def test_a_full_queue_gives_up_and_says_so(client: redis.Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queues, "MAX_QUEUED", 2)
    assert enqueue(client, PROJECT, [action(number) for number in range(3)]) == Enqueued(2, 0, 1)
    [(_, fields)] = client.xrange(queues.undelivered_key(PROJECT))
    assert Action.decode(fields[b"action"]) == action(2)
    assert orjson.loads(fields[b"reason"])["code"] == "queue-full"
    assert enqueue(client, PROJECT, [action(2, "file:audit")]) == Enqueued(1)
