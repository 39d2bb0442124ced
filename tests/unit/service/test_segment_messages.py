"""Test what messages of Segment's tracking API, and CloudEvents, say."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rules_engine.clock import HOUR, SECOND, format_instant, to_micros
from rules_engine.events.declarations.events_yaml import parse_events
from rules_engine.events.declarations.vocabulary import Vocabulary
from rules_engine.events.refused import Refused
from rules_engine.sdk.tracking import Report
from rules_engine.service.tracking.cloudevents import read_cloud_event
from rules_engine.service.tracking.segment import Arrival, read_message, size_problem

RECEIVED = to_micros(datetime(2026, 3, 1, 12, tzinfo=UTC))

EVENTS = """\
events:
  product_viewed: {retention: 30d, properties: {product_id: {type: string}, skuCode: {type: string}}}
  purchase: {retention: 30d, aliases: [Order Completed], properties: {amount: {type: number}}}
  visit: {retention: 30d, aliases: [page], properties: {name: {type: string}}}
  identify: {retention: 30d, properties: {plan: {type: string}}}
"""
WORDS = Vocabulary(parse_events(EVENTS))
WITH_TRAITS = Vocabulary(parse_events(EVENTS + "traits: profile\n"))
TRAITS_ONLY = Vocabulary(parse_events("events: {}\ntraits: profile\n"))


def read(message: object, kind: str | None = None, words: Vocabulary = WORDS, **arrival: Any) -> Report:
    report = read_message(message, kind, Arrival(RECEIVED, **arrival), words)
    assert isinstance(report, Report), report
    return report


def refusal(message: object, kind: str | None = None) -> str:
    refused = read_message(message, kind, Arrival(RECEIVED), WORDS)
    assert isinstance(refused, Refused)
    return refused.rejection.code


@pytest.mark.parametrize(
    ("name", "declared"),
    [
        ("purchase", "purchase"),
        ("Order Completed", "purchase"),
        ("order_completed", "purchase"),
        ("Product Viewed", "product_viewed"),
        ("productViewed", "product_viewed"),
        ("Cart Emptied!", "cart_emptied"),
    ],
)
def test_events_by_the_names_of_senders(name: str, declared: str) -> None:
    assert read({"type": "track", "userId": "u", "event": name}).event == declared


def test_properties_by_the_names_of_senders() -> None:
    properties = {"productId": "A1", "skuCode": "s", "Colour": "red"}
    report = read({"type": "track", "userId": "u", "event": "Product Viewed", "properties": properties})
    assert report.properties == {"product_id": "A1", "skuCode": "s", "Colour": "red"}


def test_the_user_counts_before_the_anonymous_id() -> None:
    assert read({"userId": "u", "anonymousId": "a", "event": "purchase"}, "track").entity == "u"
    assert read({"userId": "", "anonymousId": "a", "event": "purchase"}, "track").entity == "a"
    assert read({"userId": 42, "event": "purchase"}, "track").entity == "42"


def test_what_each_kind_says() -> None:
    page = read({"userId": "u", "type": "page", "name": "Home", "properties": {"url": "/"}})
    assert (page.event, page.properties) == ("visit", {"url": "/", "name": "Home"})
    screen = read({"userId": "u", "type": "screen", "name": "Cart", "category": "Shop"})
    assert (screen.event, screen.properties) == ("screen", {"name": "Cart", "category": "Shop"})
    group = read({"userId": "u", "type": "group", "groupId": "g", "traits": {"size": 5}})
    assert (group.event, group.properties) == ("group", {"size": 5, "group_id": "g"})
    alias = read({"userId": "u", "type": "alias", "previousId": "a"})
    assert (alias.entity, alias.previous_id, alias.event) == ("u", "a", None)


def test_traits_may_be_in_the_context_as_rudderstack_sends_them() -> None:
    message = {"userId": "u", "type": "identify", "context": {"traits": {"plan": "pro"}}}
    assert read(message).properties == {"plan": "pro"}
    assert read({**message, "traits": {"plan": "free"}}).properties == {"plan": "free"}
    assert read({**message, "context": "x"}).properties == {}


def test_identify_is_traits_an_event_or_both() -> None:
    message = {"userId": "u", "type": "identify", "traits": {"plan": "pro"}}
    assert (read(message).event, read(message).traits) == ("identify", None)
    both = read(message, words=WITH_TRAITS)
    assert (both.event, both.properties, both.traits) == ("identify", {"plan": "pro"}, {"plan": "pro"})
    traits = read(message, words=TRAITS_ONLY)
    assert (traits.event, traits.traits) == (None, {"plan": "pro"})


def test_a_clock_that_is_off_is_corrected() -> None:
    """A sender whose clock is an hour ahead sends, a minute later, what happened ten minutes before it sent."""
    wrong = RECEIVED + HOUR
    message = {"userId": "u", "event": "purchase", "timestamp": format_instant(wrong - 600 * SECOND)}
    sent = format_instant(wrong)
    assert read(message, "track", sent=sent).at == RECEIVED - 600 * SECOND
    assert read({**message, "sentAt": sent}, "track").at == RECEIVED - 600 * SECOND
    assert read(message, "track").at == wrong - 600 * SECOND
    assert read(message, "track", sent=sent, corrects_clock=False).at == wrong - 600 * SECOND
    assert read({"userId": "u", "event": "purchase"}, "track", sent=sent).at == RECEIVED


def test_a_message_without_an_id_has_one_from_its_content_if_it_says_when() -> None:
    message = {"userId": "u", "event": "purchase", "timestamp": "2026-03-01T10:00:00Z", "properties": {"amount": 1}}
    first = read({**message, "sentAt": "2026-03-01T10:00:01Z"}, "track").event_id
    assert first == read({**message, "sentAt": "2026-03-01T10:00:09Z"}, "track").event_id
    assert first != read({**message, "properties": {"amount": 2}}, "track").event_id
    without = {"userId": "u", "event": "purchase"}
    assert read(without, "track").event_id != read(without, "track").event_id


@pytest.mark.parametrize(
    ("message", "code"),
    [
        ([], "invalid-event"),
        (None, "invalid-event"),
        ({"userId": "u"}, "unknown-type"),
        ({"userId": "u", "type": ["track"]}, "unknown-type"),
        ({"userId": "u", "type": "track"}, "missing-event"),
        ({"type": "page"}, "missing-entity"),
        ({"type": "page", "userId": True}, "invalid-entity"),
        ({"type": "page", "userId": "u", "timestamp": "yesterday"}, "invalid-instant"),
        ({"type": "page", "userId": "u", "timestamp": "2026-03-01T10:00:00Z", "sentAt": 5}, "invalid-instant"),
        ({"type": "page", "userId": "u", "properties": []}, "invalid-event"),
        ({"type": "identify", "userId": "u", "traits": "x"}, "invalid-event"),
    ],
)
def test_what_cannot_be_meant_is_refused(message: object, code: str) -> None:
    assert refusal(message) == code


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=12),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=12), inner, max_size=3),
    max_leaves=8,
)
keys = st.sampled_from(
    ["type", "userId", "anonymousId", "event", "properties", "traits", "timestamp", "sentAt", "messageId", "name"]
) | st.sampled_from(["specversion", "id", "source", "subject", "time", "data"])
words = st.sampled_from(["track", "identify", "page", "u", "1.0", "purchase", "2026-03-01T10:00:00Z"])


@given(st.dictionaries(keys, words | json_values) | json_values)
def test_whatever_comes_is_a_report_or_set_aside(content: object) -> None:
    for outcome in (
        read_message(content, None, Arrival(RECEIVED), WITH_TRAITS),
        read_cloud_event(content, RECEIVED, WORDS),
    ):
        assert isinstance(outcome.raw, bytes)
        if isinstance(outcome, Refused):
            assert outcome.rejection.message


def test_a_large_message_is_refused_by_itself() -> None:
    message = {"userId": "u", "event": "purchase", "context": {"trail": "x" * 33_000}}
    problem = size_problem(message)
    assert problem is not None
    assert problem.code == "event-too-large"
    around = len(orjson.dumps({"context": ""}))
    assert size_problem({"context": "x" * (32_768 - around)}) is None
    assert size_problem({"context": "x" * (32_769 - around)}) is not None


def test_cloud_events() -> None:
    event = {"specversion": "1.0", "id": "7", "source": "/shop", "type": "Order Completed", "subject": "u"}
    report = read_cloud_event({**event, "time": "2026-03-01T10:00:00Z", "data": {"amount": 5}}, RECEIVED, WORDS)
    assert isinstance(report, Report)
    assert (report.entity, report.event, report.event_id, report.properties) == (
        "u",
        "purchase",
        "/shop#7",
        {"amount": 5},
    )
    assert report.at == to_micros(datetime(2026, 3, 1, 10, tzinfo=UTC))
    for changed in ({"specversion": "0.3"}, {"subject": ""}, {"id": 7}, {"data": []}, {"data_base64": "eA=="}):
        refused = read_cloud_event({**event, **changed}, RECEIVED, WORDS)
        assert isinstance(refused, Refused), changed
        assert refused.rejection.code == "invalid-event"
