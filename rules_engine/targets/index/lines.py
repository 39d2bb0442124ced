"""The lines on which operands lie: for each type, how its values are ordered and where one ends and the next begins."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from rules_engine.clock import DAY
from rules_engine.rules.forms import WEEKDAYS
from rules_engine.rules.types import Kind, Value
from rules_engine.targets.index.domains import Cut, Ranges, from_cuts


@dataclass(frozen=True, slots=True)
class Line:
    """An order of values.

    Attributes
    ----------
    encode
        from a value to its place on the line.
    before, after
        the cut just before, and just after, a place.
    first, end
        the least place, and the one that is out of reach above; None where there is none. They make it known that
        a count is never below 0, and that there is no third truth value.
    """

    before: Callable[[Value], Cut]
    after: Callable[[Value], Cut]
    encode: Callable[[Value], Value] | None = None
    first: Value = None
    end: Value = None

    def point(self, value: Value) -> tuple[Cut, Cut]:
        """Return the cuts around one value."""
        place = self.encode(value) if self.encode else value
        return self.before(place), self.after(place)

    def ranges(self, cuts: Iterable[Cut], low: bool = False) -> Ranges:
        """Return the set that switches at these cuts, as far as values can lie there."""
        within = []
        for cut in cuts:
            if self.first is not None and cut[0] <= self.first:
                low = not low
            elif self.end is None or cut[0] < self.end:
                within.append(cut)
        return from_cuts(within, low)


def _exactly(value: Value) -> Cut:
    return value, 0


def _past(value: Value) -> Cut:
    return value, 1


def _whole_from(value: int | float) -> Cut:
    return math.ceil(value), 0


def _whole_above(value: int | float) -> Cut:
    return math.floor(value) + 1, 0


def _string_after(value: str) -> Cut:
    """Return the cut of the first string after one: that string and the least character."""
    return value + "\0", 0


NUMBERS = Line(_exactly, _past)
WHOLE = Line(_whole_from, _whole_above)
COUNTS = Line(_whole_from, _whole_above, first=0)
STRINGS = Line(_exactly, _string_after, first="")
TRUTH = Line(_whole_from, _whole_above, encode=int, first=0, end=2)
TIMES_OF_DAY = Line(_whole_from, _whole_above, first=0, end=DAY)
DAYS = Line(_whole_from, _whole_above, encode=WEEKDAYS.index, first=0, end=len(WEEKDAYS))

#: The line of each kind of value. Bytes have none: rules can only ask whether they exist.
OF_KIND = {
    Kind.BOOLEAN: TRUTH,
    Kind.INTEGER: NUMBERS,
    Kind.FLOAT: NUMBERS,
    Kind.STRING: STRINGS,
    Kind.TIME: WHOLE,
    Kind.TIME_OF_DAY: TIMES_OF_DAY,
    Kind.DAY_OF_WEEK: DAYS,
}


def prefix_end(prefix: str) -> str | None:
    r"""Return the first string after all those that begin with a prefix; None if there is none.

    >>> prefix_end("ab"), prefix_end("a\U0010ffff"), prefix_end("\U0010ffff")
    ('ac', 'b', None)
    """
    stem = prefix.rstrip("\U0010ffff")
    return stem[:-1] + chr(ord(stem[-1]) + 1) if stem else None


def first_integer(cut: Cut) -> int:
    """Return the least integer at or above a cut between numbers.

    >>> first_integer((2.5, 0)), first_integer((3, 0)), first_integer((3, 1))
    (3, 3, 4)
    """
    value, side = cut
    whole: int = math.floor(value) + 1 if side else math.ceil(value)
    return whole


def first_float(cut: Cut) -> float:
    """Return the least float at or above a cut between numbers; integers beyond a float's precision are judged exactly.

    >>> first_float((2**53 + 1, 0)) == 2.0**53 + 2, first_float((0.5, 1)) > 0.5
    (True, True)
    """
    value, side = cut
    near = _nearest_float(value)
    return math.nextafter(near, math.inf) if near < value or (side and near == value) else near


def _nearest_float(value: int | float) -> float:
    try:
        return float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf
