"""Units of the calendar around now, as `in_calendar` and `anniversary_in` take them."""

from __future__ import annotations

from rules_engine.definitions.source import Mapping, Node
from rules_engine.diagnostics import nearest
from rules_engine.rules.calendar_spans import CalendarSpan
from rules_engine.rules.forms import WEEKDAYS
from rules_engine.rules.parsing.literals import Refusal, describe
from rules_engine.rules.parsing.operand_checks import at_key
from rules_engine.rules.parsing.windows import choice, fixed_zone, units
from rules_engine.rules.windows import UNITS

#: The keys of a span, the first of which is needed.
SPAN_KEYS = ("calendar", "last", "next", "timezone", "first_day")

_HINT = "write e.g. `{calendar: month}`, `{calendar: month, last: 1}` or `{calendar: day, next: 7}`"


def calendar_span(node: Node, operator: str) -> CalendarSpan:
    """Return the units of the calendar that follow an operator.

    Raises
    ------
    Refusal
        if they are none.
    """
    if not isinstance(node, Mapping):
        raise Refusal("wrong-shape", node, f"`{operator}` takes units of the calendar, not {describe(node)}", _HINT)
    for entry in node:
        if entry.key not in SPAN_KEYS:
            hint = nearest(entry.key, SPAN_KEYS) or _HINT
            raise at_key("unknown-key", entry, f"`{entry.key}` has no place beside `calendar`", hint)
    if "calendar" not in node:
        raise Refusal("missing-key", node, f"`{operator}` needs `calendar`, the unit", _HINT)
    if "last" in node and "next" in node:
        hint = "make two conditions of them, inside `any:`"
        raise at_key("option-not-allowed", node.entry("next"), "`last` and `next` cannot stand together", hint)
    unit = choice(node.entry("calendar"), tuple(UNITS))
    last, following = (units(node.entry(key)) if key in node else 0 for key in ("last", "next"))
    first, end = (-last, -1) if last else (1, following) if following else (0, 0)
    zone = fixed_zone(node.entry("timezone").value) if "timezone" in node else "UTC"
    if "first_day" not in node:
        return CalendarSpan(unit, first, end, zone)
    if unit != "week":
        raise at_key("option-not-allowed", node.entry("first_day"), "`first_day` is for weeks", "remove it")
    return CalendarSpan(unit, first, end, zone, choice(node.entry("first_day"), WEEKDAYS))
