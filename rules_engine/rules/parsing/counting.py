"""Forms that count events in further ways."""

from __future__ import annotations

from collections.abc import Collection

from rules_engine.definitions.source import Mapping
from rules_engine.diagnostics import listing, nearest
from rules_engine.rules.aggregates import Aggregate
from rules_engine.rules.forms import DAYS_OPTIONAL, DAYS_REQUIRED
from rules_engine.rules.nodes import EventAggregate, EventTime, TimePart
from rules_engine.rules.parsing.event_operands import EventParser
from rules_engine.rules.parsing.literals import Refusal, describe
from rules_engine.rules.parsing.operand_checks import at_key
from rules_engine.rules.parsing.windows import fixed_zone
from rules_engine.rules.types import INTEGER


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
