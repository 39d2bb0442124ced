"""Events over HTTP: what SDKs send is seen by the next evaluation, and what is wrong never fails a batch."""

from __future__ import annotations

import gzip
import json
import logging
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
import redis
import segment.analytics as analytics_python

from rules_engine import SegmentClient
from rules_engine.events.streams import partition_of, stream_key, stream_keys
from rules_engine.folders import Project
from rules_engine.redis.embedded import EmbeddedStore
from rules_engine.stream.event_sink import EventSink
from rules_engine.stream.ledger import Ledger
from rules_engine.stream.refused import refused_events
from rules_engine.stream.worker import Worker
from tests.service import shop
from tests.service.conftest import RunningService

WRITE_KEY = shop.KEYS["track"]


@pytest.fixture
def client(shop_project: Project) -> Iterator[SegmentClient]:
    with SegmentClient(shop_project) as client:
        yield client


def track(user: str, event: str, **more: Any) -> dict[str, Any]:
    return {"type": "track", "userId": user, "event": event, **more}


def test_an_event_is_seen_by_the_next_evaluation(service: RunningService) -> None:
    for number in range(2):
        assert service.evaluate("keen", "t1")["value"] is False
        reply = service.post("/v1/track", "track", json=track("t1", "View", messageId=f"m{number}"))
        assert (reply.status_code, reply.json()["taken"]) == (200, 1)
    assert service.evaluate("keen", "t1")["value"] is True


def test_the_key_may_be_in_the_header_in_the_body_or_in_the_query(service: RunningService) -> None:
    message = track("t2", "view")
    assert service.client.post("/v1/track", json=message, auth=(WRITE_KEY, "")).status_code == 200
    assert service.client.post("/v1/t", json={**message, "writeKey": WRITE_KEY}).status_code == 200
    assert service.client.post("/t", json=message, params={"writeKey": WRITE_KEY}).status_code == 200
    assert service.client.post("/v1/track", json=message).status_code == 401
    assert service.client.post("/v1/track", json={**message, "writeKey": "x" * 20}).status_code == 401
    assert service.post("/v1/track", "read", json=message).status_code == 403
    assert service.client.post("/v1/track", json=[]).status_code == 401


def test_every_path_of_the_protocol(service: RunningService) -> None:
    for path in ("track", "identify", "page", "screen", "group", "alias"):
        for place in (f"/v1/{path}", f"/{path[0]}", f"/v1/{path[0]}"):
            reply = service.post(place, "track", json={"userId": "t3", "event": "view"})
            assert reply.json()["success"], place
    for path in ("/v1/m", "/m"):
        assert service.client.post(path, json={}).status_code == 200
    settings = service.get(f"/v1/projects/{WRITE_KEY}/settings").json()["integrations"]["Segment.io"]
    assert service.url == f"{settings['protocol']}://{settings['apiHost'].removesuffix('/v1')}"
    assert service.get("/v1/projects/nobody/settings").status_code == 401


def test_what_is_wrong_never_fails_a_batch(
    service: RunningService, shop_project: Project, client: SegmentClient
) -> None:
    messages = [
        track("t4", "Order Completed", messageId="o1", properties={"revenue": 1, "amount": 5, "orderId": "A"}),
        track("t4", "purchase", messageId="o2", properties={"amount": "much"}),
        track("t4", "Never Declared", messageId="o3"),
        {"type": "page", "userId": "t4", "name": "Home"},
        "no message",
        track("t4", "view", context={"trail": "x" * 40_000}),
    ]
    reply = service.post("/v1/batch", "track", json={"batch": messages}).json()
    assert (reply["success"], reply["taken"], reply["refused"]) == (True, 2, 4)
    codes = {reason["index"]: reason["code"] for reason in reply["reasons"]}
    assert codes == {1: "invalid-property", 2: "unknown-event", 4: "invalid-event", 5: "event-too-large"}
    found = client.features("t4", ["events:orders", "events:spend", "events:last_order", "events:last_page"])
    assert list(found.values()) == [1, 5.0, "A", "Home"]
    sink = EventSink(shop_project, client._current[0])
    set_aside = [reason["code"] for reason in refused_events(sink, 4)[1]]
    sink.close()
    assert sorted(set_aside) == sorted(codes.values())
    counted = service.get("/metrics", "read").text
    for code in codes.values():
        assert f'segments_events_reported_total{{outcome="{code}",source="segment"}}' in counted


def test_a_message_that_is_sent_again_counts_once(service: RunningService, client: SegmentClient) -> None:
    at = datetime.now(UTC).isoformat()
    messages = [track("t5", "purchase", messageId=f"m{n}", timestamp=at, properties={"amount": 2}) for n in range(3)]
    for _ in range(3):
        body = {"batch": messages, "sentAt": datetime.now(UTC).isoformat()}
        assert service.post("/v1/batch", "track", json=body).json()["taken"] == 3
    assert client.features("t5", ["events:orders", "events:spend"]) == {"events:orders": 3, "events:spend": 6.0}


def test_traits_are_features_at_once_and_start_transitions(
    service: RunningService, shop_project: Project, client: SegmentClient
) -> None:
    Worker(shop_project).run(once=True)
    assert service.evaluate("adults", "t6")["value"] is False
    body = {"userId": "t6", "traits": {"age": 40, "Country": "NO", "email": "t6@example.com"}}
    assert service.post("/v1/identify", "track", json=body).json()["taken"] == 1
    assert service.evaluate("adults", "t6")["value"] is True
    assert client.features("t6", ["profile:country"]) == {"profile:country": "NO"}
    refused = service.post("/v1/identify", "track", json={"userId": "t6", "traits": {"age": "40"}}).json()
    assert refused["reasons"][0]["code"] == "invalid-trait"
    Worker(shop_project).run(once=True)
    moves = Ledger.of(shop_project).transitions(entity="t6", segment="adults")
    assert [(move["change"], move["cause"]) for move in moves] == [("enter", "push")]


def test_packed_bodies_are_unpacked_within_bounds(service: RunningService) -> None:
    def send(body: bytes, encoding: str = "gzip") -> Any:
        return service.post("/v1/batch", "track", content=body, headers={"content-encoding": encoding})

    batch = json.dumps({"batch": [track("t7", "view")]}).encode()
    assert send(gzip.compress(batch)).json()["taken"] == 1
    assert send(gzip.compress(b" " * 100_000_000)).status_code == 413
    assert send(gzip.compress(batch)[:-4]).json()["code"] == "invalid-gzip"
    assert send(b"what").json()["code"] == "invalid-gzip"
    assert send(batch, "br").status_code == 415
    assert service.post("/v1/batch", "track", content=b"{" + b" " * 600_000).status_code == 413
    assert service.post("/v1/batch", "track", json={"batch": [{}] * 2_501}).json()["code"] == "too-many-messages"


@pytest.mark.parametrize("body", [b"", b"{}", b"[]", b"null", b'{"batch": 5}', b"{", b"\xff"])
def test_what_is_no_batch_is_said(service: RunningService, body: bytes) -> None:
    reply = service.post("/v1/batch", "track", content=body)
    assert (reply.status_code, reply.json()["code"]) in [(400, "invalid-json"), (400, "invalid-body")]


def test_cloud_events_in_three_modes(service: RunningService, client: SegmentClient) -> None:
    attributes = {"specversion": "1.0", "source": "/shop", "type": "com.example.order.completed", "subject": "t8/ä"}

    def send(content: object, kind: str, **headers: str) -> int:
        reply = service.post(
            "/v1/cloudevents", "track", content=json.dumps(content), headers={"content-type": kind, **headers}
        )
        return int(reply.json()["taken"])

    structured = {**attributes, "id": "1", "data": {"amount": 1}}
    assert send(structured, "application/cloudevents+json; charset=utf-8") == 1
    batch = [{**structured, "id": str(number)} for number in (1, 2, 3)]
    assert send(batch, "application/cloudevents-batch+json") == 3
    binary = {f"ce-{name}": value.replace("ä", "%C3%A4") for name, value in {**attributes, "id": "4"}.items()}
    assert send({"amount": 10}, "application/json", **binary) == 1
    assert client.features("t8/ä", ["events:orders", "events:spend"]) == {"events:orders": 4, "events:spend": 13.0}
    assert send({"amount": 10}, "application/json") == 0


def test_analytics_python(service: RunningService, caplog: pytest.LogCaptureFixture) -> None:
    errors: list[Any] = []
    sdk = analytics_python.Client(
        WRITE_KEY, host=service.url, gzip=True, upload_interval=0.05, on_error=lambda *args: errors.append(args)
    )
    with caplog.at_level(logging.ERROR, "segment"):
        sdk.identify("t9", {"age": 33})
        sdk.page("t9", name="Home")
        sdk.track("t9", "View", {"page": "a"})
        sdk.track("t9", "View", {"page": "b"})
        sdk.flush()
    sdk.shutdown()
    assert (errors, caplog.records) == ([], [])
    assert service.evaluate("keen", "t9")["value"] is True
    assert service.evaluate("adults", "t9")["value"] is True


def test_what_an_sdk_reported_of_somebody_unknown_counts_for_the_person(service: RunningService) -> None:
    sdk = analytics_python.Client(WRITE_KEY, host=service.url, upload_interval=0.05)
    sdk.track(anonymous_id="browser-1", event="View", properties={"page": "a"})
    sdk.track(anonymous_id="browser-2", event="View", properties={"page": "b"})
    sdk.flush()
    assert service.evaluate("keen", "t10")["value"] is False
    sdk.identify("t10", {"age": 33}, anonymous_id="browser-1")
    sdk.alias("browser-2", "t10")
    sdk.flush()
    sdk.shutdown()
    assert service.evaluate("keen", "t10")["value"] is True
    explained = service.get("/v1/users/t10/explain/keen", "read").json()
    assert set(explained["joined"]) == {"browser-1", "browser-2"}


def test_an_sdk_in_trouble_is_asked_to_wait(shop_project: Project, service: RunningService) -> None:
    """While as many events wait as may, the answer is 503 with the seconds after which to try."""
    Worker(shop_project).run(once=True)
    store = EmbeddedStore(shop_project.root)
    stream = stream_key("shop", partition_of("waits"))
    batch = [track("waits", "view")] * 100
    with redis.Redis.from_url(store.url) as connection:
        assert sum(connection.xlen(key) for key in stream_keys("shop")) == 0
        with connection.pipeline() as pipeline:
            for _ in range(70_000):
                pipeline.xadd(stream, {"event": "x"})
            pipeline.execute()
        replies = [service.post("/v1/batch", "track", json={"batch": batch}) for _ in range(2)]
        connection.delete(stream)
    assert [(reply.status_code, reply.headers["retry-after"]) for reply in replies] == [(503, "1")] * 2
