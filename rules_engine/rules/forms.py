"""The forms a condition can take in YAML: which key heads it, which keys may stand beside it.

The parser and the JSON Schema for editors read this one table.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from rules_engine.rules.aggregates import PROPERTY_AGGREGATES, Aggregation
from rules_engine.rules.arithmetic import Operation


class Shape(Enum):
    """Names what is written after a form's first key."""

    CONDITIONS = "a list of conditions"
    CONDITION = "a condition"
    FEATURE = "VIEW:NAME of a feature"
    NAME = "a name"
    CLOCK = "time_of_day or day_of_week"
    EVENT = "the name of an event"
    EVENT_PROPERTY = "{event: NAME, of: PROPERTY, where: {...}}"
    FIRST_EVENT = "the name of an event, of which the first counts"
    NTH_EVENT = "{event: NAME, n: NUMBER, of: PROPERTY, where: {...}}"
    EVENTS = "a list of events"
    TERMS = "a list of values, e.g. {sum: {event: purchase, of: amount}, within: 30d}"
    EVENT_DAYS = "{event: NAME, where: {...}, timezone: ZONE}"
    SHARE = "{percent: NUMBER, seed: TEXT}"
    STEPS = "a list of steps, each {did: EVENT} or {did_not: EVENT or a list}"
    SEGMENT = "the name of a segment"


@dataclass(frozen=True, slots=True)
class Form:
    """One form: its first key, what follows it, and the other keys. ``takes_operator`` adds one operator."""

    head: str
    shape: Shape
    summary: str
    example: str
    required: tuple[str, ...] = ()
    optional: tuple[str, ...] = ()
    takes_operator: bool = False

    @property
    def keys(self) -> tuple[str, ...]:
        return (self.head, *self.required, *self.optional)


_VALUE_OPTIONS = ("ignore_case", "or_missing")


def _aggregate(row: Aggregation) -> Form:
    head = row.function.value
    example = f"{{{head}: {row.example}}}"
    return Form(head, Shape.EVENT_PROPERTY, row.summary, example, ("within",), row.options, takes_operator=True)


_BOUGHT = "{sum: {event: purchase, of: amount}, within: 30d}"
_BOUGHT_BEFORE = "{sum: {event: purchase, of: amount}, within: {between_ago: [30d, 60d]}}"

_CALCULATIONS = (
    (Operation.TOTAL, "what several values add up to", f"[{_BOUGHT}, {{sum: {{event: view, of: price}}, within: 7d}}]"),
    (Operation.DIFFERENCE, "one value less another one", f"[{_BOUGHT}, {_BOUGHT_BEFORE}]"),
    (Operation.PRODUCT, "several values multiplied", f"[{_BOUGHT}, {{count: {{event: view}}, within: 7d}}]"),
    (Operation.RATIO, "one value divided by another one", f"[{_BOUGHT}, {_BOUGHT_BEFORE}]"),
)


def _calculation(operation: Operation, summary: str, terms: str) -> Form:
    head = operation.value
    example = f"{{{head}: {terms}, at_least: 0.5}}"
    return Form(head, Shape.TERMS, summary, example, optional=("or_missing",), takes_operator=True)


_TABLE = (
    Form(
        "all", Shape.CONDITIONS, "every condition is true",
        "all: [{feature: user:age, at_least: 18}, {feature: user:country, equals: NO}]",
    ),
    Form(
        "any", Shape.CONDITIONS, "at least one condition is true",
        "any: [{feature: user:plan, equals: pro}, {in_segment: vip}]",
    ),
    Form(
        "none", Shape.CONDITIONS, "every condition is false",
        "none: [{in_segment: employees}, {feature: user:tags, includes: banned}]",
    ),
    Form("not", Shape.CONDITION, "the condition is false", "not: {feature: user:plan, equals: free}"),
    Form(
        "feature", Shape.FEATURE, "the feature's value now", "{feature: user:country, equals: NO}",
        optional=_VALUE_OPTIONS, takes_operator=True,
    ),
    Form(
        "context", Shape.NAME, "a value passed with the request", "{context: device, equals: mobile, default: web}",
        optional=("default", *_VALUE_OPTIONS), takes_operator=True,
    ),
    Form(
        "clock", Shape.CLOCK, "the local time of evaluation", "{clock: day_of_week, in: [saturday, sunday]}",
        optional=("timezone",), takes_operator=True,
    ),
    Form(
        "sample", Shape.SHARE, "the entity is in a share of all, always the same ones for a seed",
        "{sample: {percent: 10, seed: spring}}",
    ),
    Form(
        "did", Shape.EVENT, "how many such events lie in the window; at least 1 if `count` is not given",
        "{did: purchase, within: 30d, count: {at_least: 3}}", required=("within",), optional=("where", "count"),
    ),
    Form(
        "did_not", Shape.EVENT, "no such event lies in the window", "{did_not: purchase, within: 30d}",
        required=("within",), optional=("where",),
    ),
    *map(_aggregate, PROPERTY_AGGREGATES),
    Form(
        "did_any", Shape.EVENTS, "how many events of several names lie in the window; at least 1 without `count`",
        "{did_any: [view, add_to_cart], within: 7d, count: {at_least: 5}}",
        required=("within",), optional=("where", "count"),
    ),
    *(_calculation(*row) for row in _CALCULATIONS),
    Form(
        "nth", Shape.NTH_EVENT, "the property of the n-th such event",
        "{nth: {event: purchase, n: 2, of: amount}, within: ever, at_least: 50}",
        required=("within",), optional=("ignore_case", "or_missing"), takes_operator=True,
    ),
    Form(
        "first_time", Shape.FIRST_EVENT, "the first such event ever lies in the window",
        "{first_time: purchase, within: 7d}", required=("within",), optional=("where",),
    ),
    Form(
        "distinct_days", Shape.EVENT_DAYS, "on how many different days such events happened",
        "{distinct_days: {event: purchase, timezone: Europe/Oslo}, within: 30d, at_least: 3}",
        required=("within",), takes_operator=True,
    ),
    Form(
        "sequence", Shape.STEPS, "the steps happened in this order",
        "{sequence: [{did: add_to_cart}, {did_not: purchase, within: 30m}], within: 24h}",
        optional=("within", "match_on", "anchor"),
    ),
    Form("in_segment", Shape.SEGMENT, "the other segment's answer is true", "in_segment: vip"),
    Form("not_in_segment", Shape.SEGMENT, "the other segment's answer is false", "not_in_segment: employees"),
)  # fmt: skip

#: Every form by its first key.
FORMS: dict[str, Form] = {form.head: form for form in _TABLE}

#: The keys of one step of a sequence, besides ``did`` or ``did_not``.
STEP_OPTIONS = ("within", "where")

#: The keys inside an aggregate of a property.
AGGREGATE_REQUIRED = ("event", "of")
AGGREGATE_OPTIONAL = ("where",)

#: The keys inside ``nth``.
NTH_REQUIRED = ("event", "n", "of")
NTH_OPTIONAL = ("where",)

#: How many events ``nth`` counts at most.
MAX_NTH = 1000

#: The keys inside ``distinct_days``.
DAYS_REQUIRED = ("event",)
DAYS_OPTIONAL = ("where", "timezone")

#: The keys beside the operator of a property predicate in ``where``.
PROPERTY_OPTIONS = ("ignore_case", "or_missing")

#: The keys of ``where`` that are no properties: groups of conditions, and the instant of the event.
WHERE_GROUPS = ("all", "any", "none")
EVENT_INSTANT = "at"
WHERE_WORDS = (*WHERE_GROUPS, "not", EVENT_INSTANT)

#: What ``at`` in ``where`` says of the local time of an event, and the keys beside it.
TIME_PARTS = ("time_of_day", "day_of_week")
TIME_OPTIONS = ("timezone",)
#: The operators after which another value may stand instead of a literal.
TWO_SIDED = ("equals", "not_equals", "greater_than", "at_least", "less_than", "at_most", "before", "after")

#: The keys beside ``of`` on a right side.
SCALED_OPTIONAL = ("times", "divided_by")

ANCHORS = ("any", "latest")
CLOCKS = ("time_of_day", "day_of_week")
WEEKDAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
