"""The place of a date in its year, by arithmetic on microseconds: no engine's own calendar is asked.

The steps are those of :func:`rules_engine.rules.calendar_spans.place_in_year`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from itertools import pairwise

from sqlglot import exp

from rules_engine.clock import DAY
from rules_engine.rules.calendar_spans import CENTURY, ERA, MARCH_0, OLYMPIAD, YEAR
from rules_engine.targets.sql.expressions import Sql, all_of, any_of, case, compare, integer
from rules_engine.targets.sql.local_times import remainder


def is_at_one_of(at: Sql, places: Collection[int]) -> Sql:
    """Say whether the date of an instant, in UTC, is at one of some places in its year.

    >>> from rules_engine.targets.sql.expressions import own
    >>> "CASE" in is_at_one_of(own("at"), {0, 1, 365}).sql()
    True
    """
    place = _place_in_year(at)
    return any_of([_is_between(place, first, last) for first, last in _runs(places)])


def _place_in_year(at: Sql) -> Sql:
    """Return the microseconds from the beginning of the year to an instant."""
    in_era = remainder(exp.Paren(this=exp.Add(this=at, expression=integer(MARCH_0 * DAY))), ERA * DAY)
    in_century = _split(in_era, ERA - 1, CENTURY)
    return _split(remainder(in_century, OLYMPIAD * DAY), OLYMPIAD - 1, YEAR)


def _split(within: Sql, last_day: int, part: int) -> Sql:
    """Return the microseconds since the beginning of a part, of which the last one is a day longer."""
    over = exp.Sub(this=exp.Paren(this=within), expression=integer((last_day - part) * DAY))
    return case(
        (compare(exp.GTE, exp.Paren(this=within.copy()), integer(last_day * DAY)), over),
        default=exp.Mod(this=exp.Paren(this=within.copy()), expression=integer(part * DAY)),
    )


def _is_between(place: Sql, first: int, last: int) -> Sql:
    return all_of(
        [
            compare(exp.GTE, place.copy(), integer(first * DAY)),
            compare(exp.LT, place.copy(), integer((last + 1) * DAY)),
        ]
    )


def _runs(places: Collection[int]) -> Iterator[tuple[int, int]]:
    """Yield the first and last of neighbouring places."""
    ordered = sorted(places)
    gaps = [(before, after) for before, after in pairwise(ordered) if after > before + 1]
    yield from zip(
        [ordered[0], *(after for _, after in gaps)], [*(before for before, _ in gaps), ordered[-1]], strict=True
    )
