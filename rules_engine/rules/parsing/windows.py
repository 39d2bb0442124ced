"""The window of an event condition: the value of `within`."""

from __future__ import annotations

from rules_engine.definitions.source import Entry, Items, Mapping, Node, Scalar
from rules_engine.diagnostics import nearest
from rules_engine.rules.forms import WEEKDAYS
from rules_engine.rules.local_time import find_zone
from rules_engine.rules.parsing.literals import Refusal, describe, duration, instant, window
from rules_engine.rules.parsing.operand_checks import at_key
from rules_engine.rules.windows import MAX_UNITS, UNITS, AgoWindow, CalendarWindow, FixedWindow, Window

#: The keys of each form of a window that is a mapping, the one that names the form first.
WINDOW_FORMS = {
    "between_ago": ("between_ago",),
    "from": ("from", "to"),
    "to": ("from", "to"),
    "calendar": ("calendar", "last", "timezone", "first_day"),
}

_FORMS_HINT = (
    "write `30d`, `ever`, `{between_ago: [30d, 60d]}`, `{from: INSTANT, to: INSTANT}` or "
    "`{calendar: month, last: 1, timezone: Europe/Oslo}`"
)


def event_window(node: Node) -> tuple[int | None, Window | None]:
    """Return how old an event can be, at most, that lies in a window; and the window if it is no rolling duration.

    Raises
    ------
    Refusal
        if it is no window.
    """
    if not isinstance(node, Mapping):
        return window(node), None
    head = next((entry.key for entry in node if entry.key in WINDOW_FORMS), None)
    if head is None:
        raise Refusal("wrong-shape", node, f"this is no window: {describe(node)}", _FORMS_HINT)
    for entry in node:
        if entry.key not in WINDOW_FORMS[head]:
            hint = nearest(entry.key, WINDOW_FORMS[head]) or _FORMS_HINT
            raise at_key("unknown-key", entry, f"`{entry.key}` has no place beside `{head}`", hint)
    parsed: Window = _ago(node) if head == "between_ago" else _calendar(node) if head == "calendar" else _fixed(node)
    return parsed.horizon, parsed


def _ago(node: Mapping) -> AgoWindow:
    value = node.entry("between_ago").value
    if not isinstance(value, Items) or len(value.items) != 2:
        hint = "write the nearer one first, e.g. `between_ago: [30d, 60d]`"
        raise Refusal("wrong-shape", value, f"`between_ago` takes two durations, not {describe(value)}", hint)
    end, begin = duration(value.items[0]), window(value.items[1])
    if begin is not None and begin <= end:
        hint = "write the nearer one first, e.g. `between_ago: [30d, 60d]`"
        raise Refusal("between-order", value, "the second duration is not longer than the first", hint)
    return AgoWindow(begin, end)


def _fixed(node: Mapping) -> FixedWindow:
    start, end = (instant(node.entry(key).value) if key in node else None for key in ("from", "to"))
    if start is not None and end is not None and end <= start:
        raise Refusal("between-order", node.entry("to").value, "`to` is not later than `from`", "exchange the two")
    return FixedWindow(start, end)


def _calendar(node: Mapping) -> CalendarWindow:
    unit = choice(node.entry("calendar"), tuple(UNITS))
    zone = fixed_zone(node.entry("timezone").value) if "timezone" in node else "UTC"
    last = units(node.entry("last")) if "last" in node else 0
    if "first_day" not in node:
        return CalendarWindow(unit, last, zone)
    if unit != "week":
        raise at_key("option-not-allowed", node.entry("first_day"), "`first_day` is for weeks", "remove it")
    return CalendarWindow(unit, last, zone, choice(node.entry("first_day"), WEEKDAYS))


def choice(entry: Entry, choices: tuple[str, ...]) -> str:
    """Return one of some words.

    Raises
    ------
    Refusal
        if it is another one.
    """
    value = entry.value.value if isinstance(entry.value, Scalar) else None
    if not isinstance(value, str) or value not in choices:
        near = nearest(value, choices) if isinstance(value, str) else None
        message = f"`{entry.key}` is not {describe(entry.value)}"
        raise Refusal("invalid-choice", entry.value, message, near or f"write one of {', '.join(choices)}")
    return value


def units(entry: Entry) -> int:
    """Return how many whole units `last` or `next` means; 0 for `this`.

    Raises
    ------
    Refusal
        if it is no such number.
    """
    node = entry.value
    value = node.value if isinstance(node, Scalar) else None
    if value == "this":
        return 0
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= MAX_UNITS:
        message = f"`{entry.key}` is `this` or a whole number from 1 to {MAX_UNITS:,}, not {describe(node)}"
        side = "before" if entry.key == "last" else "after"
        raise Refusal("invalid-choice", node, message, f"write e.g. `{entry.key}: 1` for the unit {side} this one")
    return value


def fixed_zone(node: Node) -> str:
    """Return the name of a zone that is the same for everybody.

    Raises
    ------
    Refusal
        if there is none of that name.
    """
    if isinstance(node, Scalar) and isinstance(node.value, str) and find_zone(node.value) is not None:
        return node.value
    hint = "write an IANA name, e.g. `Europe/Oslo`; it is the same zone for everybody"
    raise Refusal("invalid-timezone", node, f"a time zone is not {describe(node)}", hint)
