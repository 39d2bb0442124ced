"""Forms that count events in further ways."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

from rules_engine.definitions.source import Mapping, Scalar
from rules_engine.diagnostics import listing, nearest
from rules_engine.rules.aggregates import Aggregate
from rules_engine.rules.forms import DAYS_OPTIONAL, DAYS_REQUIRED, MAX_NTH, NTH_OPTIONAL, NTH_REQUIRED
from rules_engine.rules.nodes import AllOf, EventAggregate, EventTime, Predicate, TimePart
from rules_engine.rules.parsing.event_operands import EventParser
from rules_engine.rules.parsing.literals import Refusal, describe
from rules_engine.rules.parsing.operand_checks import at_key
from rules_engine.rules.parsing.windows import fixed_zone
from rules_engine.rules.types import INTEGER
from rules_engine.rules.windows import before


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
