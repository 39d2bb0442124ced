"""Forms that count events in further ways."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

from rules_engine.definitions.source import Entry, Items, Mapping, Scalar
from rules_engine.diagnostics import listing, nearest
from rules_engine.rules.aggregates import Aggregate
from rules_engine.rules.arithmetic import Operation
from rules_engine.rules.forms import DAYS_OPTIONAL, DAYS_REQUIRED, FORMS, MAX_NTH, NTH_OPTIONAL, NTH_REQUIRED
from rules_engine.rules.nodes import AllOf, AnyOf, Calculation, EventAggregate, EventTime, Predicate, Source, TimePart
from rules_engine.rules.parsing.arithmetic import terms_of
from rules_engine.rules.parsing.event_operands import EventParser
from rules_engine.rules.parsing.literals import Refusal, describe
from rules_engine.rules.parsing.operand_checks import at_key
from rules_engine.rules.parsing.right_sides import RightSides
from rules_engine.rules.parsing.sides import value_in
from rules_engine.rules.parsing.windows import fixed_zone
from rules_engine.rules.types import FLOAT, INTEGER
from rules_engine.rules.windows import before


def did_any(events: EventParser, node: Mapping) -> AnyOf | Predicate | None:
    """Return a count of the events of several names together; None after a problem that was reported.

    Raises
    ------
    Refusal
        if it is not written so.
    """
    names = node.entry("did_any").value
    if not isinstance(names, Items) or len(names.items) < 2:
        hint = "write e.g. `did_any: [view, add_to_cart]`; for one event `did`"
        raise Refusal("wrong-shape", names, "`did_any` takes a list of two or more events", hint)
    operator, number = events.number_of(node.entry("count").value) if "count" in node else ("at_least", 1)
    others = [entry for entry in node if entry.key not in ("did_any", "count")]
    predicates = [
        events.did(Mapping((Entry("did", item.span, item), *others), node.span), negated=False) for item in names.items
    ]
    counts = tuple(predicate for predicate in predicates if predicate is not None)
    if len(counts) < len(predicates):
        return None
    terms = tuple(event_operand(predicate) for predicate in counts)
    if len(set(terms)) < len(terms):
        raise Refusal("wrong-shape", names, "an event stands twice in `did_any`, and would count twice", "name it once")
    if (operator, number) == ("at_least", 1):
        return AnyOf(counts, node.span)
    return Predicate(Calculation(Operation.TOTAL, terms), operator, number, FLOAT, span=node.span)


def event_operand(predicate: Predicate) -> EventAggregate:
    """Return the count that a predicate compares."""
    assert isinstance(predicate.operand, EventAggregate), predicate
    return predicate.operand


def calculation_in(node: Mapping, operation: Operation, right: RightSides) -> Calculation | None:
    """Return what several values come to; None after a problem that was reported.

    Raises
    ------
    Refusal
        if one of them is no number.
    """
    terms: list[Source] = []
    items = terms_of(operation, node.entry(operation.value).value)
    for item in items:
        if not isinstance(item, Mapping):
            hint = f"for example `{FORMS[operation.value].example}`"
            raise Refusal("wrong-shape", item, f"`{operation.value}` takes values, not {describe(item)}", hint)
        parsed = value_in(item, right.values)
        if parsed is None:
            continue
        if parsed[1] is not None and (parsed[1].is_list or not parsed[1].kind.is_number):
            raise Refusal("operator-type", item, f"numbers are calculated with, and this is a {parsed[1]}")
        terms.append(right.typed(parsed[0], FLOAT))
    return Calculation(operation, tuple(terms)) if len(terms) == len(items) else None


def first_time(events: EventParser, node: Mapping) -> AllOf | None:
    """Return that there is an event in the window and none before it; None after a problem that was reported.

    Raises
    ------
    Refusal
        if it is not written so.
    """
    entry = node.entry("within")
    match = events.match(node, "first_time")
    within, window = events.window(entry.value, match)
    earlier = before(within, window)
    if earlier is None:
        hint = "write e.g. `within: 7d`; whether it happened at all is `did`"
        raise Refusal("wrong-shape", entry.value, "a first time is looked for in a window that has a start", hint)
    if match is None:
        return None
    events.check_retention(entry.value, None, match.event)
    happened = EventAggregate(Aggregate.COUNT, match, within, window=window)
    happened_before = EventAggregate(Aggregate.COUNT, match, None, window=earlier)
    return AllOf(
        (
            Predicate(happened, "at_least", 1, INTEGER, span=node.span),
            Predicate(happened_before, "equals", 0, INTEGER, span=node.span),
        ),
        node.span,
    )


def nth(events: EventParser, node: Mapping) -> EventAggregate | None:
    """Return the property of the n-th event; None after a problem that was reported.

    Raises
    ------
    Refusal
        if it is not written so.
    """
    inner = _inner(node, "nth", NTH_REQUIRED, NTH_OPTIONAL, "{event: purchase, n: 2, of: amount}")
    number = inner.entry("n").value
    n = number.value if isinstance(number, Scalar) else None
    if type(n) is not int or not 1 <= n <= MAX_NTH:
        message = f"`n` is a whole number from 1 to {MAX_NTH:,}, not {describe(number)}"
        raise Refusal("invalid-choice", number, message, "the second event is `n: 2`")
    aggregate = events.of_property(inner, Aggregate.FIRST, node.entry("within").value)
    return None if aggregate is None else replace(aggregate, skip=n - 1)


def distinct_days(events: EventParser, node: Mapping) -> EventAggregate | None:
    """Return the number of days with an event; None after a problem that was reported.

    Raises
    ------
    Refusal
        if it is not written so.
    """
    inner = _inner(node, "distinct_days", DAYS_REQUIRED, DAYS_OPTIONAL, "{event: purchase, timezone: Europe/Oslo}")
    zone = fixed_zone(inner.entry("timezone").value) if "timezone" in inner else "UTC"
    match = events.match(inner, "event")
    within, window = events.window(node.entry("within").value, match)
    if match is None:
        return None
    day = EventTime(TimePart.DAY, zone)
    return EventAggregate(Aggregate.DISTINCT, match, within, day, INTEGER, window)


def _inner(node: Mapping, head: str, required: Collection[str], optional: Collection[str], example: str) -> Mapping:
    """Return the mapping after a form's first key, with its keys checked."""
    inner = node.entry(head).value
    if not isinstance(inner, Mapping):
        hint = f"for example `{head}: {example}`"
        raise Refusal("wrong-shape", inner, f"`{head}` takes a mapping, not {describe(inner)}", hint)
    keys = (*required, *optional)
    for entry in inner:
        if entry.key not in keys:
            hint = nearest(entry.key, keys) or f"there are {listing(keys)}"
            raise at_key("unknown-key", entry, f"`{entry.key}` has no place in `{head}`", hint)
    for key in required:
        if key not in inner:
            raise Refusal("missing-key", inner, f"`{head}` needs `{key}`", f"for example `{head}: {example}`")
    return inner
