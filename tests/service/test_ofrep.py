"""OpenFeature's remote protocol, as its specification says it, over HTTP against the real service."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from rules_engine import SegmentClient
from rules_engine.folders import Project
from tests.service.conftest import RunningService

FLAGS = "/ofrep/v1/evaluate/flags"


def test_a_segment_is_a_boolean_flag(service: RunningService) -> None:
    found = service.evaluate("adults", "ada")
    version = found["metadata"].pop("definitions_version")
    assert found.pop("metadata").keys() <= {"changes_at"}
    assert found == {"key": "adults", "value": True, "reason": "TARGETING_MATCH", "variant": "in"}
    assert len(version) == 12
    other = service.evaluate("adults", "bob")
    assert (other["value"], other["reason"], other["variant"]) == (False, "TARGETING_MATCH", "out")


def test_a_decision_is_a_flag_of_its_type(service: RunningService) -> None:
    found = service.evaluate("discount", "ada")
    assert found["metadata"].pop("because") == "rule 1"
    assert found.pop("metadata").keys() == {"definitions_version", "changes_at"}
    assert found == {"key": "discount", "value": 12.5, "reason": "TARGETING_MATCH", "variant": "high"}
    assert service.evaluate("discount", "bob")["value"] == 5
    assert service.evaluate("banner", "ada", role="evaluate")["value"] == {"text": "Hello"}
    hidden = service.evaluate("discount", "ada", role="evaluate")
    assert hidden["errorCode"] == "FLAG_NOT_FOUND"


def test_a_variant_without_a_value_leaves_it_to_the_caller(service: RunningService) -> None:
    found = service.evaluate("banner", "bob")
    assert "value" not in found
    assert (found["variant"], found["reason"]) == ("none", "TARGETING_MATCH")


def test_shares_are_splits(service: RunningService) -> None:
    found = [service.evaluate("banner", f"stranger {number}", device="mobile") for number in range(20)]
    assert {one["reason"] for one in found} == {"SPLIT"}
    assert {one["variant"] for one in found} == {"none", "halves"}
    assert "bucket 0." in found[0]["metadata"]["because"]


def test_the_context_is_that_of_conditions(service: RunningService) -> None:
    assert service.evaluate("mobile", "ada", device="mobile")["value"] is True
    assert service.evaluate("mobile", "ada")["value"] is False
    soon = (datetime.now(UTC) + timedelta(hours=1)).isoformat()
    assert service.evaluate("leaves_soon", "ada", departure=soon)["value"] is True
    refused = service.evaluate("leaves_soon", "ada", departure="tomorrow")
    assert refused["errorCode"] == "INVALID_CONTEXT"
    assert "tomorrow" in refused["errorDetails"]


def test_an_event_is_seen_by_the_next_evaluation_which_says_until_when(
    service: RunningService, shop_project: Project
) -> None:
    at = datetime.now(UTC) - timedelta(minutes=1)
    with SegmentClient(shop_project) as client:
        for number in range(2):
            client.track("viewer", "view", {"page": "a"}, at=at + timedelta(seconds=number))
    found = service.evaluate("keen", "viewer")
    assert found["value"] is True
    until = datetime.fromisoformat(found["metadata"]["changes_at"])
    assert until == at + timedelta(hours=1)


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (b"{", 400, "PARSE_ERROR"),
        (b"[]", 400, "PARSE_ERROR"),
        (b"", 400, "PARSE_ERROR"),
        (b"{}", 400, "INVALID_CONTEXT"),
        (b'{"context": []}', 400, "INVALID_CONTEXT"),
        (b'{"context": {}}', 400, "TARGETING_KEY_MISSING"),
        (b'{"context": {"targetingKey": ""}}', 400, "TARGETING_KEY_MISSING"),
        (b'{"context": {"targetingKey": 5}}', 400, "INVALID_CONTEXT"),
        (b'{"context": {"targetingKey": "' + b"a" * 70_000 + b'"}}', 413, "GENERAL"),
    ],
)
def test_what_is_wrong_with_a_request_is_said(service: RunningService, body: bytes, status: int, code: str) -> None:
    single = service.post(f"{FLAGS}/adults", "read", content=body)
    bulk = service.post(FLAGS, "read", content=body)
    assert (single.status_code, bulk.status_code) == (status, status)
    assert single.json()["key"] == "adults"
    assert single.json()["errorCode"] == bulk.json()["errorCode"] == code
    assert single.json()["errorDetails"]


def test_a_segment_that_does_not_exist_is_not_found(service: RunningService) -> None:
    answer = service.post(f"{FLAGS}/adlts", "read", json={"context": {"targetingKey": "ada"}})
    assert answer.status_code == 404
    assert answer.json()["errorCode"] == "FLAG_NOT_FOUND"
    assert "did you mean `adults`?" in answer.json()["errorDetails"]


def test_all_segments_at_once_are_not_sent_twice(service: RunningService) -> None:
    body = {"context": {"targetingKey": "ada", "device": "mobile"}}
    answer = service.post(FLAGS, "read", json=body)
    found = answer.json()
    values = {flag["key"]: flag["value"] for flag in found["flags"]}
    segments = {"adults": True, "norwegians": True, "mobile": True, "keen": False, "leaves_soon": False}
    assert values == {**segments, "banner": {"text": "Hello"}, "discount": 12.5}
    assert found["metadata"]["definitions_version"]
    tag = answer.headers["etag"]
    for given in (tag, f"W/{tag}", f'"other", {tag}', "*"):
        same = service.post(FLAGS, "read", json=body, headers={"if-none-match": given})
        assert (same.status_code, same.content, same.headers["etag"]) == (304, b"", tag)
    other = service.post(FLAGS, "read", json={"context": {"targetingKey": "ada"}}, headers={"if-none-match": tag})
    assert other.status_code == 200
    assert other.headers["etag"] != tag


def test_a_browser_key_sees_public_segments_only(service: RunningService) -> None:
    body = {"context": {"targetingKey": "ada"}}
    flags = service.post(FLAGS, "evaluate", json=body).json()["flags"]
    assert [flag["key"] for flag in flags] == ["adults", "keen", "mobile", "banner"]
    assert service.evaluate("adults", "ada", role="evaluate")["value"] is True
    hidden = service.evaluate("norwegians", "ada", role="evaluate")
    missing = service.evaluate("absent", "ada", role="evaluate")
    assert hidden["errorCode"] == missing["errorCode"] == "FLAG_NOT_FOUND"
    assert hidden["errorDetails"].replace("norwegians", "absent") == missing["errorDetails"]


def test_without_a_key_nothing_is_answered(service: RunningService) -> None:
    body = {"context": {"targetingKey": "ada"}}
    assert service.post(f"{FLAGS}/adults", json=body).status_code == 401
    unknown = service.post(f"{FLAGS}/adults", json=body, headers={"x-api-key": "wrong-key-of-the-shop"})
    assert unknown.status_code == 401
    assert unknown.json() == {"key": "adults", "errorCode": "GENERAL", "errorDetails": "the key is not known"}
    assert service.post(f"{FLAGS}/adults", "track", json=body).status_code == 403
    for header in ({"x-api-key": "read-key-of-the-shop"}, {"authorization": "bearer read-key-of-the-shop"}):
        assert service.post(f"{FLAGS}/adults", json=body, headers=header).status_code == 200
