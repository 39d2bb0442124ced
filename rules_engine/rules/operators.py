"""THE operator table: everything that an operator is, in one place.

The parser, the checker, the JSON Schema for editors, the reference in docs/ and the completeness check of every target
are derived from it. ``meaning`` is the plain truth on a value that is not missing; a missing value never reaches it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import Enum
from functools import cache
from typing import Any

from rules_engine.rules.text import searches
from rules_engine.rules.types import Kind, Value

ORDERED = frozenset({Kind.INTEGER, Kind.FLOAT, Kind.TIME, Kind.TIME_OF_DAY})
SCALAR = frozenset(Kind) - {Kind.BYTES}
TIMES = frozenset({Kind.TIME})
STRINGS = frozenset({Kind.STRING})
EVERYTHING = frozenset(Kind)


class Argument(Enum):
    """Names what is written after the operator."""

    LITERAL = "a value of the operand's type"
    LITERALS = "a list of values of the operand's type"
    PAIR = "a list of two values, low and high"
    FLAG = "true or false"
    DURATION = "a duration, e.g. 30m or 7d"
    CALENDAR = "units of the calendar, e.g. {calendar: month, next: 1}"
    TEXT = "a string"
    PATTERN = "a regular expression"


Meaning = Callable[[Value, Any, int], bool]
Boundaries = Callable[[int, Any, int], Iterable[int]]


@dataclass(frozen=True, slots=True)
class Operator:
    """One operator.

    Attributes
    ----------
    kinds
        the kinds of operand it takes; for a list operator, of the elements.
    meaning
        ``(value, argument, now) -> bool`` for a value that is not missing.
    boundaries
        for an operator that reads the clock, ``(value, argument, now) ->`` the instants, ascending, at which its answer
        on a value may change; some of them may be past.
    on_lists
        True if the operand is a list; ``exists`` takes both.
    foldable
        True if ``ignore_case`` is allowed (on strings).
    """

    name: str
    argument: Argument
    kinds: frozenset[Kind]
    meaning: Meaning
    summary: str
    example: str
    on_lists: bool = False
    foldable: bool = False
    boundaries: Boundaries | None = None

    @property
    def missing(self) -> str:
        """Return what it gives on a missing value."""
        return "known" if self.name == "exists" else "unknown"


_TABLE = (
    Operator(
        "equals", Argument.LITERAL, SCALAR, lambda v, a, _: v == a,
        "is the same value; numbers compare as numbers", "{feature: user:country, equals: NO}", foldable=True,
    ),
    Operator(
        "not_equals", Argument.LITERAL, SCALAR, lambda v, a, _: v != a,
        "is another value", "{feature: user:plan, not_equals: free}", foldable=True,
    ),
    Operator(
        "in", Argument.LITERALS, SCALAR, lambda v, a, _: v in a,
        "is one of the values", "{feature: user:country, in: [NO, SE, DK]}", foldable=True,
    ),
    Operator(
        "not_in", Argument.LITERALS, SCALAR, lambda v, a, _: v not in a,
        "is none of the values", "{feature: user:country, not_in: [US, CA]}", foldable=True,
    ),
    Operator(
        "exists", Argument.FLAG, EVERYTHING, lambda _v, a, _: bool(a),
        "`true`: there is a value; `false`: it is missing; never unknown", "{feature: user:email, exists: true}",
    ),
    Operator(
        "greater_than", Argument.LITERAL, ORDERED, lambda v, a, _: v > a,
        "is above the value", "{feature: user:age, greater_than: 17}",
    ),
    Operator(
        "at_least", Argument.LITERAL, ORDERED, lambda v, a, _: v >= a,
        "is the value or above it", "{feature: user:age, at_least: 18}",
    ),
    Operator(
        "less_than", Argument.LITERAL, ORDERED, lambda v, a, _: v < a,
        "is below the value", "{feature: user:age, less_than: 65}",
    ),
    Operator(
        "at_most", Argument.LITERAL, ORDERED, lambda v, a, _: v <= a,
        "is the value or below it", "{feature: user:age, at_most: 64}",
    ),
    Operator(
        "between", Argument.PAIR, ORDERED, lambda v, a, _: a[0] <= v <= a[1],
        "is from low to high, both included", "{feature: user:age, between: [18, 64]}",
    ),
    Operator(
        "contains", Argument.TEXT, STRINGS, lambda v, a, _: a in v,
        "has the text in it", "{feature: user:email, contains: '@example.'}", foldable=True,
    ),
    Operator(
        "starts_with", Argument.TEXT, STRINGS, lambda v, a, _: v.startswith(a),
        "begins with the text", "{feature: user:phone, starts_with: '+47'}", foldable=True,
    ),
    Operator(
        "ends_with", Argument.TEXT, STRINGS, lambda v, a, _: v.endswith(a),
        "ends with the text", "{feature: user:email, ends_with: '.edu'}", foldable=True,
    ),
    Operator(
        "matches", Argument.PATTERN, STRINGS, lambda v, a, _: searches(a, v),
        "a part of it matches the regular expression", "{feature: user:phone, matches: '^[+]47[0-9]{8}$'}",
        foldable=True,
    ),
    Operator(
        "before", Argument.LITERAL, TIMES, lambda v, a, _: v < a,
        "is earlier than the instant", "{feature: user:signup, before: '2026-01-01T00:00:00Z'}",
    ),
    Operator(
        "after", Argument.LITERAL, TIMES, lambda v, a, _: v > a,
        "is later than the instant", "{feature: user:signup, after: '2026-01-01T00:00:00Z'}",
    ),
    Operator(
        "in_last", Argument.DURATION, TIMES, lambda v, a, now: now - a < v <= now,
        "lies in the window (now - W, now]", "{feature: user:last_seen, in_last: 30d}",
        boundaries=lambda v, a, _: (v, v + a),
    ),
    Operator(
        "not_in_last", Argument.DURATION, TIMES, lambda v, a, now: not now - a < v <= now,
        "lies outside the window (now - W, now]", "{feature: user:last_seen, not_in_last: 30d}",
        boundaries=lambda v, a, _: (v, v + a),
    ),
    Operator(
        "in_next", Argument.DURATION, TIMES, lambda v, a, now: now < v <= now + a,
        "lies in the window (now, now + W]", "{feature: user:renewal, in_next: 14d}",
        boundaries=lambda v, a, _: (v - a, v),
    ),
    Operator(
        "in_calendar", Argument.CALENDAR, TIMES, lambda v, a, now: a.contains(v, now),
        "lies in these units of the calendar", "{feature: user:renewal, in_calendar: {calendar: month, next: 1}}",
        boundaries=lambda v, a, _: a.turns(v),
    ),
    Operator(
        "anniversary_in", Argument.CALENDAR, TIMES, lambda v, a, now: a.contains_anniversary(v, now),
        "is a date, in UTC, of which an anniversary lies in these units of the calendar",
        "{feature: user:born, anniversary_in: {calendar: day, next: 7}}",
        boundaries=lambda v, a, now: a.anniversary_turns(v, now),
    ),
    Operator(
        "includes", Argument.LITERAL, SCALAR, lambda v, a, _: a in v,
        "the list has the value", "{feature: user:tags, includes: vip}", on_lists=True,
    ),
    Operator(
        "includes_any", Argument.LITERALS, SCALAR, lambda v, a, _: any(x in v for x in a),
        "the list has at least one of the values", "{feature: user:tags, includes_any: [vip, staff]}", on_lists=True,
    ),
    Operator(
        "includes_all", Argument.LITERALS, SCALAR, lambda v, a, _: all(x in v for x in a),
        "the list has every one of the values", "{feature: user:tags, includes_all: [news, sms]}", on_lists=True,
    ),
    Operator(
        "includes_none", Argument.LITERALS, SCALAR, lambda v, a, _: not any(x in v for x in a),
        "the list has none of the values", "{feature: user:tags, includes_none: [banned]}", on_lists=True,
    ),
)  # fmt: skip

#: Every operator by name.
OPERATORS: dict[str, Operator] = {operator.name: operator for operator in _TABLE}

#: The operators that ``count:`` takes: those on whole numbers.
COUNT_OPERATORS = frozenset(
    name
    for name, operator in OPERATORS.items()
    if Kind.INTEGER in operator.kinds and not operator.on_lists and name != "exists"
)


@cache
def operators_for(kind: Kind, is_list: bool) -> tuple[str, ...]:
    """Return the operators that take an operand of this type, in the table's order.

    >>> operators_for(Kind.BOOLEAN, is_list=False)
    ('equals', 'not_equals', 'in', 'not_in', 'exists')
    """
    return tuple(
        name
        for name, operator in OPERATORS.items()
        if name == "exists" or (kind in operator.kinds and operator.on_lists == is_list)
    )


def require_complete(target: str, lowered: Iterable[str]) -> None:
    """Fail, at the import of a target, if it lacks an operator or has one that does not exist.

    Raises
    ------
    TypeError
        naming the operators.

    >>> require_complete("nothing", [*OPERATORS, "like"])
    Traceback (most recent call last):
    ...
    TypeError: target nothing: operators without a lowering: none; unknown operators: like
    """
    names = set(lowered)
    lacking, unknown = sorted(OPERATORS.keys() - names), sorted(names - OPERATORS.keys())
    if lacking or unknown:
        raise TypeError(
            f"target {target}: operators without a lowering: {', '.join(lacking) or 'none'}; "
            f"unknown operators: {', '.join(unknown) or 'none'}"
        )
