"""Raw events: what is taken, as what, and why others are not."""

from __future__ import annotations

import math
import sys
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from rules_engine.clock import DAY, parse_instant
from rules_engine.events.declarations.events_yaml import parse_events
from rules_engine.events.declarations.schemas import schema_validator
from rules_engine.events.declarations.validation import (
    MAX_BYTES,
    MAX_ID_LENGTH,
    MAX_PROPERTIES,
    EventValidator,
    Rejection,
)
from rules_engine.rules.inputs import Event

DECLARED = parse_events("""\
events:
  purchase:
    properties:
      amount: {type: number, minimum: 0}
      items: {type: integer}
      at_store: {type: boolean}
      sku: {type: string, pattern: '^[A-Z]+[0-9]*$', maxLength: 10}
      coupon: {type: [string, "null"], enum: [spring, summer, null]}
      paid: {type: string, format: date-time}
      refunds: {type: array, items: {type: string, format: date-time}}
      sizes: {type: array, items: {type: integer}, maxItems: 3}
    required: [amount]
    retention: 400d
  order: {properties: {number: {type: integer}}, id: number, retention: 400d}
""")
VALIDATOR = EventValidator(DECLARED)
NOON = "2026-01-31T12:00:00Z"
RECEIVED = parse_instant(NOON)


def check(properties: Any = None, **given: Any) -> Event | Rejection:
    event = {
        "name": "purchase",
        "at": NOON,
        "event_id": "a1",
        "properties": {"amount": 5} if properties is None else properties,
    }
    return VALIDATOR.check(**(event | given), received=RECEIVED)


def taken(**properties: Any) -> Any:
    event = check({"amount": 5, **properties})
    assert isinstance(event, Event), event
    return {name: value for name, value in event.properties.items() if name != "amount"}


def refused(properties: Any = None, **given: Any) -> str:
    rejection = check(properties, **given)
    assert isinstance(rejection, Rejection), rejection
    assert len(rejection.message) < 400
    return rejection.code


def test_a_good_event() -> None:
    event = check({"amount": 12.5, "sku": "A1", "at_store": True})
    assert event == Event("purchase", RECEIVED, "purchase:a1", {"amount": 12.5, "sku": "A1", "at_store": True})


@pytest.mark.parametrize(
    "at",
    [
        "2026-01-31T13:00:00+01:00",
        datetime(2026, 1, 31, 12, tzinfo=UTC),
        datetime(2026, 1, 31, 7, tzinfo=timezone(timedelta(hours=-5))),
        RECEIVED,
    ],
)
def test_instants(at: object) -> None:
    event = check(at=at)
    assert isinstance(event, Event)
    assert event.at == RECEIVED


@pytest.mark.parametrize(
    "at",
    [
        *("2026-01-31T12:00:00", "2026-01-31", "yesterday", "2026-02-30T00:00:00Z", "", None, True, 1.5),
        *(datetime(2026, 1, 31), RECEIVED // 1_000, RECEIVED // 1_000_000, -1, 2**70),  # noqa: DTZ001
    ],
)
def test_what_is_no_instant(at: object) -> None:
    assert refused(at=at) == "invalid-instant"


@pytest.mark.parametrize(
    ("at", "is_taken"),
    [
        ("1900-01-01T00:00:00Z", True),
        ("1899-12-31T23:59:59.999999Z", False),
        ("0001-01-01T00:00:00Z", False),
        ("0999-12-31T00:00:00+14:00", False),
        (datetime(1899, 12, 31, tzinfo=UTC), False),
        (datetime(1950, 1, 1, tzinfo=UTC), True),
        ("9999-12-31T23:59:59Z", False),
        (2**70, False),
        (-(10**40), False),
        ("2026-01-31T12:00:00" + "0" * 5_000 + "Z", False),
    ],
)
def test_events_are_of_the_years_1900_to_9999(at: object, is_taken: bool) -> None:
    found = check(at=at)
    assert isinstance(found, Event) is is_taken, found
    assert is_taken or found.code == "invalid-instant"  # type: ignore[union-attr]


def test_digits_beyond_microseconds_are_cut_off() -> None:
    found = check(at="2026-01-31T11:00:00.123456999Z")
    assert isinstance(found, Event)
    assert found.at == parse_instant("2026-01-31T11:00:00.123456Z")
    assert taken(paid="2026-01-31T11:00:00.123456999Z")["paid"] == found.at


def test_a_number_with_thousands_of_digits() -> None:
    huge = 10**5000
    assert refused(at=huge) == "invalid-instant"
    assert refused(event_id=huge) == "invalid-id"
    assert refused({"amount": huge}) == "invalid-event"


def test_an_instant_of_the_future() -> None:
    assert isinstance(check(at=RECEIVED + DAY), Event)
    assert refused(at=RECEIVED + DAY + 1) == "future-instant"


def test_values_as_rules_read_them() -> None:
    assert taken(paid="1970-01-01T01:00:01+01:00") == {"paid": 1_000_000}
    assert taken(paid=datetime(1970, 1, 1, 0, 0, 1, tzinfo=UTC)) == {"paid": 1_000_000}
    assert taken(refunds=["1970-01-01T00:00:01Z"]) == {"refunds": (1_000_000,)}
    assert taken(sizes=[1, None, 2.0]) == {"sizes": (1, 2)}
    assert [type(value) for value in taken(items=5.0).values()] == [int]
    assert [type(value) for value in taken(at_store=True).values()] == [bool]


def test_null_and_nan_are_missing() -> None:
    assert taken(items=None, coupon=None, sku=math.nan) == {}
    assert refused({"amount": None}) == "missing-property"
    assert refused({"amount": math.nan}) == "missing-property"
    assert refused({}) == "missing-property"


def test_what_is_not_declared_is_kept_as_it_is() -> None:
    assert taken(colour="red", extra={"a": [1]}) == {"colour": "red", "extra": {"a": [1]}}


@pytest.mark.parametrize(
    "properties",
    [
        *({"amount": value} for value in (-1, "5", True, math.inf, [5], {}, datetime(2026, 1, 1, tzinfo=UTC))),
        *({"amount": 5, "items": value} for value in (1.5, "1", True)),
        *({"amount": 5, "at_store": value} for value in (1, "true", 0)),
        *({"amount": 5, "sku": value} for value in ("a1", "A1\n", "ABCDEFGHIJK", 5)),
        *({"amount": 5, "paid": value} for value in ("2026-01-31T12:00:00", "now", 5, datetime(2026, 1, 1))),  # noqa: DTZ001
        *({"amount": 5, "sizes": value} for value in ([1, "2"], [1, 2, 3, 4], 1, "12")),
        {"amount": 5, "coupon": "winter"},
        {"amount": 5, "colour": -math.inf},
    ],
)
def test_what_the_schema_forbids(properties: Any) -> None:
    assert refused(properties) == "invalid-property"


@pytest.mark.parametrize(
    "properties", [[], "amount", 5, {5: 5}, {"amount": 5, "x": {1}}, {"amount": 5, "x": "\ud800"}, {"amount": 2**64}]
)
def test_what_is_no_json(properties: Any) -> None:
    assert refused(properties) == "invalid-event"


def test_size_is_bounded() -> None:
    deep: Any = 1
    for _ in range(sys.getrecursionlimit() * 2):
        deep = [deep]
    assert refused({"amount": 5, "x": deep}) == "invalid-event"
    assert refused({"amount": 5, "x": "x" * MAX_BYTES}) == "event-too-large"
    assert refused({"amount": 5, **{f"x{number}": 1 for number in range(MAX_PROPERTIES)}}) == "event-too-large"


def test_names_of_events() -> None:
    assert refused(name="refund") == refused(name=None) == refused(name=["purchase"]) == "unknown-event"
    rejection = check(name="purchas")
    assert "did you mean `purchase`?" in str(rejection)


def test_ids() -> None:
    ids = [check(event_id=given) for given in ("x", 7, "7")]
    assert [event.id for event in ids if isinstance(event, Event)] == ["purchase:x", "purchase:7", "purchase:7"]
    assert refused(event_id=None) == refused(event_id="") == "missing-id"
    for wrong in (True, 1.5, ["x"], "x" * (MAX_ID_LENGTH + 1), "\ud800", 2**80):
        assert refused(event_id=wrong) == "invalid-id"


def test_an_id_from_a_property_is_one_of_its_event_only() -> None:
    order = VALIDATOR.check("order", NOON, None, {"number": 17}, received=RECEIVED)
    assert isinstance(order, Event)
    assert order.id == "order:17"
    assert VALIDATOR.check("order", NOON, "ignored", {}, received=RECEIVED) == Rejection(
        "missing-property", "`number` is required, and missing"
    )


SCHEMAS = [
    declaration.schemas[name]
    for declaration in DECLARED.events.values()
    for name in declaration.schemas
    if "format" not in str(declaration.schemas[name])
]
VALUES = st.one_of(
    st.none(), st.booleans(), st.integers(-3, 300), st.floats(allow_nan=False), st.text("AZ19a\n", max_size=12),
    st.lists(st.integers(-1, 3) | st.none() | st.just("x"), max_size=5), st.sampled_from(["spring", "autumn", {}]),
)  # fmt: skip


@given(st.sampled_from(SCHEMAS), VALUES)
def test_schemas_mean_what_jsonschema_says(schema: Any, value: Any) -> None:
    # Python's `$` also matches before a last line break, RE2's does not: nothing here ends in one.
    if isinstance(value, str) and value.endswith("\n"):
        value = value.rstrip("\n")
    assert schema_validator(schema).is_valid(value) == Draft202012Validator(schema).is_valid(value)


def test_a_pattern_takes_linear_time() -> None:
    assert not schema_validator({"type": "string", "pattern": "^(a+)+$"}).is_valid("a" * 5_000 + "b")


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary() | st.datetimes(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text() | st.integers(), inner) | st.sets(st.integers()),
    max_leaves=10,
)


@given(st.fixed_dictionaries({}, optional=dict.fromkeys(("name", "at", "event_id", "properties"), ANYTHING)))
def test_nothing_that_a_sender_gives_raises(given_event: dict[str, Any]) -> None:
    assert isinstance(check(**given_event), Event | Rejection)


def test_a_multiple_is_one_of_decimals() -> None:
    amount = schema_validator({"type": "number", "multipleOf": 0.01})
    assert all(amount.is_valid(value) for value in (0.29, 0.7, 19.99, 4.35, 1_000_000.01, 5, -0.29))
    assert not any(amount.is_valid(value) for value in (0.295, 1e-3, 0.1 + 0.2))
    assert schema_validator({"type": "number", "multipleOf": 2.5}).is_valid(7.5)


def test_a_multiple_of_cents_is_a_decimal_number() -> None:
    units = ("0.01", "0.05", "0.25", "1", "2.5", "1e-9", "1e-10")
    text = "".join(f"p{place}: {{type: number, multipleOf: {unit}}}, " for place, unit in enumerate(units))
    declared = parse_events(f"events: {{buy: {{properties: {{{text}}}, retention: 1d}}}}")
    found = [declared.events["buy"].type.properties[f"p{place}"].decimals for place in range(len(units))]
    assert found == [2, 2, 2, 0, 1, 9, None]
