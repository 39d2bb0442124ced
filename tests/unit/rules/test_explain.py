# ruff: noqa: E501 - the explanations are shown as they are
"""Explanations: every value with its age, every missing value with its reason, what counted, and the nearest miss."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from rules_engine.clock import from_micros, to_micros
from rules_engine.errors import UnknownNameError
from rules_engine.rules.explain import explain
from rules_engine.rules.explanation import MAX_EVENTS, Explanation, Reason
from rules_engine.rules.inputs import Inputs
from rules_engine.testing import CONDITION, Scenario
from tests.conformance.cases import Case, load_cases

NOW = datetime(2026, 3, 2, 12, tzinfo=UTC)


def why(condition: Mapping[str, Any] | str, entity: str = "ada", **given: Any) -> Explanation:
    scenario = Scenario(condition, now=NOW, **given)
    return explain(scenario.program, CONDITION, scenario.inputs, scenario.now, entity)


def only(condition: Mapping[str, Any] | str, **given: Any) -> str:
    """The line of a condition without groups."""
    return why(condition, **given).reason.line()


def test_a_tree_with_everything_in_it() -> None:
    condition = """
    all:
      - {feature: user:country, in: [NO, SE]}
      - {feature: user:signup, in_last: 30d}
      - {feature: score:value, at_least: 80}
      - none:
          - {in_segment: staff}
          - {context: device, equals: bot}
      - not: {feature: user:plan, equals: free}
      - any:
          - {did: view, within: 1h, count: {at_least: 3}}
          - sequence: [{did: cart}, {did_not: buy, within: 30m, where: {sku: A1}}]
            within: 1d
            match_on: sku
    """
    explanation = why(
        condition,
        features={"user:country": "NO", "user:signup": datetime(2026, 2, 20, 12, tzinfo=UTC), "score:value": 91, "user:plan": "pro", "user:email": "ada@mail.example"},
        context={"device": "mobile"},
        segments={"staff": {"feature": "user:email", "ends_with": "@SHOP.example", "ignore_case": True}},
        events=[
            {"event": "view", "at": NOW - timedelta(minutes=50)},
            {"event": "view", "at": NOW - timedelta(minutes=10)},
            {"event": "cart", "at": NOW - timedelta(minutes=20), "sku": "A1"},
        ],
        updated_at={"score": NOW - timedelta(days=6), "user": NOW - timedelta(hours=3)},
        ttl={"score": "7d"},
    )  # fmt: skip
    assert str(explanation) == """\
ada is not in condition at 2026-03-02T12:00:00Z, until 2026-03-02T12:10:00Z
└─ false: all
   ├─ true: user:country in ["NO", "SE"] (is "NO"; observed 3h ago)
   ├─ true: user:signup in_last 30d (is 2026-02-20T12:00:00Z, 10d ago; observed 3h ago; until 2026-03-22T12:00:00Z)
   ├─ true: score:value at_least 80 (is 91; observed 6d ago; until 2026-03-03T12:00:00.000001Z)
   ├─ true: none
   │  ├─ false: in_segment staff
   │  │  └─ false: user:email ends_with "@shop.example" ignore_case (is "ada@mail.example"; observed 3h ago)
   │  └─ false: context device equals "bot" (is "mobile")
   ├─ true: not
   │  └─ false: user:plan equals "free" (is "pro"; observed 3h ago)
   └─ false: any
      ├─ false: count view in 1h at_least 3 (is 2; short by 1; events at 2026-03-02T11:10:00Z, 2026-03-02T11:50:00Z)
      └─ false: sequence: cart, then no buy where sku equals "A1" within 30m; all within 1d; same sku (events at 2026-03-02T11:40:00Z; until 2026-03-02T12:10:00Z)
nearest miss: one condition would have to change
  - false: count view in 1h at_least 3 (is 2; short by 1; events at 2026-03-02T11:10:00Z, 2026-03-02T11:50:00Z)"""  # fmt: skip


# --- why a value is missing -----------------------------------------------------------------------------------------


def missing(features: Mapping[str, Any] | None = None, **given: Any) -> str | None:
    scenario = Scenario("{feature: user:age, at_least: 18}", now=NOW, types={"user:age": "Int64"}, **given)
    inputs = Inputs(features or {}, updated_at=scenario.inputs.updated_at, expires_at=scenario.inputs.expires_at)
    explanation = explain(scenario.program, CONDITION, inputs, scenario.now)
    assert explanation.verdict is None
    assert explanation.reason.value is None
    return explanation.reason.missing


def test_a_feature_without_a_row_with_null_expired_or_of_another_type() -> None:
    observed = {"user": NOW - timedelta(days=8)}
    assert missing() == "absent"
    assert missing({"user:age": None}) == "null"
    assert missing({"user:age": float("nan")}) == "null"
    assert missing(updated_at=observed) == "null"  # there was a row, without this value
    assert missing({"user:age": 30}, updated_at=observed, ttl={"user": "7d"}) == "expired 1d ago"
    assert missing({"user:age": "30"}) == "of another type"
    assert missing({"user:age": True}) == "of another type"


@pytest.mark.parametrize(
    ("context", "reason"),
    [({}, "not passed"), ({"n": None}, "null"), ({"n": float("nan")}, "null"), ({"n": "5"}, "of another type")],
)
def test_a_context_value(context: dict[str, Any], reason: str) -> None:
    assert only("{context: n, at_least: 5}", context=context) == f"unknown: context n at_least 5 (missing: {reason})"


def test_a_default_stands_in_for_a_context_value() -> None:
    assert only("{context: n, at_least: 5, default: 9}") == "true: context n at_least 5 (is 9)"
    assert only("{context: n, at_least: 5, default: 9}", context={"n": "x"}).endswith("(missing: of another type)")


@pytest.mark.parametrize(
    ("events", "reason"),
    [
        ([], "no such event"),
        ([{"event": "visit", "at": NOW}], "absent from the event"),
        ([{"event": "visit", "at": NOW, "source": None}], "absent from the event"),
        ([{"event": "visit", "at": NOW, "source": 5}], "of another type"),
        ([{"event": "visit", "at": NOW - timedelta(hours=1), "source": "ad"}, {"event": "visit", "at": NOW}], "absent from the event"),
    ],
)  # fmt: skip
def test_the_property_of_an_event(events: list[dict[str, Any]], reason: str) -> None:
    explanation = why("{last: {event: visit, of: source}, within: 1d, equals: ad}", events=events)
    assert (explanation.verdict, explanation.reason.missing) == (None, reason)


def test_a_mean_of_values_that_are_no_numbers() -> None:
    events = [{"event": "buy", "at": NOW, "amount": "9"}, {"event": "buy", "at": NOW}]
    explanation = why("{avg: {event: buy, of: amount}, within: 1d, at_least: 5}", events=events)
    assert (explanation.verdict, explanation.reason.missing) == (None, "of another type")
    assert explanation.reason.event_count == 2


def test_a_time_zone() -> None:
    condition = "{clock: time_of_day, at_least: '09:00', timezone: {feature: user:zone}}"
    assert only(condition, features={"user:zone": "Mars/Olympus"}).endswith(
        "(missing: there is no time zone `Mars/Olympus`)"
    )
    assert only(condition).endswith("(missing: no time zone in user:zone)")
    assert only(condition, features={"user:zone": "Asia/Tokyo"}) == (
        "true: time_of_day in user:zone at_least 09:00 (is 21:00; until 2026-03-02T15:00:00Z)"
    )


def test_a_missing_value_that_counts() -> None:
    assert only("{feature: user:age, at_least: 18, or_missing: true}") == (
        "true: user:age at_least 18 or_missing (missing: absent)"
    )
    assert only("{feature: user:age, exists: false}") == "true: user:age exists false (missing: absent)"


# --- values and distances -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("condition", "value", "note"),
    [
        ("at_least: 18", 16, "is 16; short by 2"),
        ("less_than: 5", 7.25, "is 7.25; over by 2.25"),
        ("less_than: 5", 5, "is 5; exactly the bound"),
        ("greater_than: 5", 5, "is 5; exactly the bound"),
        ("between: [10, 20]", 7, "is 7; short by 3"),
        ("between: [10, 20]", 21, "is 21; over by 1"),
        ("at_most: 1.5", 10**400, "is 1" + "0" * 400),
        ("equals: 5", 7, "is 7"),
        ("in: [5, 6]", 7, "is 7"),
        ("at_least: 18", 18, "is 18"),
        ("at_least: 9007199254740993", 2**53, "is 9007199254740992; short by 1"),
    ],
)
def test_how_far_a_number_is_from_it(condition: str, value: float, note: str) -> None:
    assert only(f"{{feature: u:x, {condition}}}", features={"u:x": value}).split(" (")[1] == f"{note})"


def test_how_far_a_time_is_from_it() -> None:
    features = {"u:t": NOW - timedelta(days=3)}
    assert only("{feature: u:t, after: 2026-03-01T12:00:00Z}", features=features) == (
        "false: u:t after 2026-03-01T12:00:00Z (is 2026-02-27T12:00:00Z, 3d ago; short by 2d)"
    )
    assert only("{feature: u:t, in_next: 5d}", features={"u:t": NOW + timedelta(days=9)}) == (
        "false: u:t in_next 5d (is 2026-03-11T12:00:00Z, in 9d; until 2026-03-06T12:00:00Z)"
    )


def test_a_date_that_no_calendar_holds() -> None:
    scenario = Scenario("{feature: u:t, after: 2026-03-01T12:00:00Z}", now=NOW, types={"u:t": "UnixTimestamp"})
    text = str(explain(scenario.program, CONDITION, Inputs({"u:t": 2**60}), scenario.now))
    assert "is after the year 9999, in " in text


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("a\nb\"\x1b", r'"a\nb\"\u001b"'),
        ("é", '"é"'),
        (["x", "y"], '["x", "y"]'),
        ([], "[]"),
        (True, "true"),
        (b"\x00\x01", "2 bytes"),
        (0.1, "0.1"),
    ],
)  # fmt: skip
def test_values_as_people_write_them(value: Any, shown: str) -> None:
    types = {"u:x": "Array(String)"} if isinstance(value, list) else None
    explanation = why("{feature: u:x, exists: true}", features={"u:x": value}, types=types)
    assert explanation.reason.value == shown
    assert "\x1b" not in str(explanation)


# --- events that counted --------------------------------------------------------------------------------------------


def test_only_the_latest_events_are_named() -> None:
    events = [{"event": "view", "at": NOW - timedelta(minutes=minute), "event_id": str(minute)} for minute in range(9)]
    reason = why("{did: view, within: 1h, count: {at_least: 10}}", events=events).reason
    assert reason.event_count == 9
    assert [event.id for event in reason.events] == ["4", "3", "2", "1", "0"][-MAX_EVENTS:]
    assert "latest events at 2026-03-02T11:56:00Z, " in reason.line()


def test_events_outside_the_window_that_do_not_match_or_are_to_come_do_not_count() -> None:
    events = [
        {"event": "view", "at": NOW - timedelta(hours=1), "sku": "A"},
        {"event": "view", "at": NOW, "sku": "A"},
        {"event": "view", "at": NOW, "sku": "B"},
        {"event": "view", "at": NOW + timedelta(seconds=1), "sku": "A"},
    ]
    reason = why("{did: view, within: 1h, where: {sku: A}}", events=events).reason
    assert [event.at for event in reason.events] == [to_micros(NOW)]
    assert reason.line() == (
        'true: count view where sku equals "A" in 1h at_least 1 (is 1; events at 2026-03-02T12:00:00Z; until 2026-03-02T13:00:01Z)'
    )


def test_a_sequence_that_never_began() -> None:
    assert only("sequence: [{did: cart}, {did: buy, within: 2h}]") == (
        "false: sequence: cart, then buy within 2h (missing: no event `cart` to start with)"
    )


# --- the nearest miss -----------------------------------------------------------------------------------------------


def blocking(condition: str, **features: Any) -> list[str]:
    explanation = why(condition, features={f"u:{name}": value for name, value in features.items()})
    return [f"{reason.verdict}: {reason.text}" for reason in explanation.blocking]


def test_a_member_has_no_nearest_miss() -> None:
    assert blocking("{feature: u:a, equals: 1}", a=1) == []
    assert "nearest miss" not in str(why("{feature: u:a, equals: 1}", features={"u:a": 1}))


def test_of_all_every_failing_part() -> None:
    text = "all: [{feature: u:a, equals: 1}, {feature: u:b, equals: 1}, {feature: u:c, equals: 1}]"
    assert blocking(text, a=1, b=2) == ["False: u:b equals 1", "None: u:c equals 1"]


def test_of_any_the_part_that_takes_the_fewest_changes() -> None:
    text = "any: [{all: [{feature: u:a, equals: 1}, {feature: u:b, equals: 1}]}, {feature: u:c, equals: 1}]"
    assert blocking(text, a=2, b=2, c=2) == ["False: u:c equals 1"]
    assert blocking(text, a=1, b=2, c=2) == ["False: u:b equals 1"]


def test_under_a_negation_it_is_the_other_way_round() -> None:
    assert blocking("none: [{feature: u:a, equals: 1}, {feature: u:b, equals: 1}]", a=1, b=1) == [
        "True: u:a equals 1",
        "True: u:b equals 1",
    ]
    assert blocking("not: {all: [{feature: u:a, equals: 1}, {feature: u:b, equals: 1}]}", a=1, b=1) == [
        "True: u:a equals 1"
    ]
    assert blocking("not: {feature: u:a, equals: 1}") == ["None: u:a equals 1"]


def test_through_another_segment() -> None:
    given = {"segments": {"staff": "{feature: u:a, equals: 1}"}, "features": {"u:a": 1}}
    [reason] = why("not_in_segment: staff", **given).blocking
    assert reason.text == "u:a equals 1"


# --- the whole ------------------------------------------------------------------------------------------------------


def test_json() -> None:
    events = [{"event": "view", "at": NOW - timedelta(minutes=1), "event_id": "e1"}]
    condition = "all: [{did: view, within: 10m, count: {at_least: 2}}, {feature: u:x, exists: true}]"
    data = why(condition, events=events, features={"u:x": 1.5}, updated_at={"u": NOW - timedelta(seconds=90)}).to_dict()
    leaf = {"missing": None, "age_seconds": None, "distance": None, "events": [], "event_count": None, "note": None, "changes_at": None, "children": []}  # fmt: skip
    count = {
        **leaf,
        "condition": "count view in 10m at_least 2",
        "verdict": False,
        "value": "1",
        "threshold": "at_least 2",
        "distance": "short by 1",
        "events": [{"event": "view", "at": "2026-03-02T11:59:00Z", "id": "e1"}],
        "event_count": 1,
    }
    exists = {**leaf, "condition": "u:x exists true", "verdict": True, "value": "1.5", "threshold": "exists true", "age_seconds": 90.0}  # fmt: skip
    assert json.loads(json.dumps(data)) == {
        "entity": "ada",
        "segment": "condition",
        "verdict": False,
        "at": "2026-03-02T12:00:00Z",
        "changes_at": None,
        "joined": {},
        "reason": {
            **leaf,
            "condition": "all",
            "verdict": False,
            "value": None,
            "threshold": None,
            "children": [count, exists],
        },
        "nearest_miss": [count],
    }


def test_the_headline() -> None:
    assert why("{feature: u:x, exists: true}").headline() == "ada is not in condition at 2026-03-02T12:00:00Z"
    assert why("{feature: u:x, equals: 1}").headline() == "ada is not known to be in condition at 2026-03-02T12:00:00Z"
    assert why("{did: e, within: 1h}", events=[{"event": "e", "at": NOW}]).headline() == (
        "ada is in condition at 2026-03-02T12:00:00Z, until 2026-03-02T13:00:00Z"
    )


def test_ages_and_instants_are_public_types() -> None:
    reason = why(
        "{feature: u:x, equals: 1}", features={"u:x": 1}, updated_at={"u": NOW - timedelta(hours=2)}, ttl={"u": "1d"}
    ).reason
    assert reason.age == timedelta(hours=2)
    assert reason.changes_at == NOW + timedelta(hours=22, microseconds=1)


def test_a_segment_that_does_not_exist() -> None:
    scenario = Scenario("{feature: u:x, exists: true}", now=NOW)
    with pytest.raises(UnknownNameError) as caught:
        explain(scenario.program, "conditon", scenario.inputs, scenario.now)
    assert caught.value.hint == "did you mean `condition`?"


@pytest.mark.parametrize("case", load_cases(), ids=str)
def test_every_conformance_case_can_be_explained(case: Case) -> None:
    scenario = Scenario(case.condition, **case.data())
    explanation = explain(scenario.program, CONDITION, scenario.inputs, scenario.now, "x")
    assert explanation.verdict is case.expect
    change = scenario.changes_at()
    assert explanation.changes_at == (None if change is None else from_micros(change))
    assert str(explanation).startswith("x is ")
    json.dumps(explanation.to_dict())
    assert bool(explanation.blocking) is (case.expect is not True)
    for reason in leaves(explanation.reason):
        missing_value = reason.missing is not None
        assert not (missing_value and reason.value is not None)
        assert reason.verdict is not None or missing_value


def leaves(reason: Reason) -> list[Reason]:
    return [leaf for child in reason.children for leaf in leaves(child)] if reason.children else [reason]


def test_two_sides_show_both_values_and_the_events_of_both() -> None:
    spent, before = (
        "{event: buy, of: amount}, within: 30d",
        "{event: buy, of: amount}, within: {between_ago: [30d, 60d]}",
    )
    events = [
        {"event": "buy", "at": NOW - timedelta(days=age), "amount": amount} for age, amount in ((40, 100), (10, 70))
    ]
    reason = why(f"{{sum: {spent}, less_than: {{of: {{sum: {before}}}, times: 0.5}}}}", events=events).reason
    assert reason.line() == (
        "false: sum amount of buy in 30d less_than 0.5 × (sum amount of buy between 30d and 60d ago) (is 70 against 50.0; over by 20; "
        "events at 2026-01-21T12:00:00Z, 2026-02-20T12:00:00Z; until 2026-03-22T12:00:00Z)"
    )
    assert reason.threshold == "less_than 0.5 × (sum amount of buy between 30d and 60d ago)"


@pytest.mark.parametrize(
    ("features", "expected"),
    [
        ({"p:price": 5, "p:list": None}, "missing: null, p:list"),
        ({"p:list": 5}, "missing: absent, p:price"),
        ({"p:price": 5, "p:list": 5, "p:n": 0}, "missing: division by zero, p:list / (p:n)"),
        ({"p:price": 5, "p:list": 5, "p:n": 2}, "is 5 against 2.5; over by 2.5"),
    ],
)
def test_two_sides_say_which_one_is_missing(features: dict[str, Any], expected: str) -> None:
    types = dict.fromkeys(("p:price", "p:list", "p:n"), "Float64")
    condition = "{feature: p:price, less_than: {of: {feature: p:list}, divided_by: {feature: p:n}}}"
    assert expected in only(condition, features=features, types=types)
