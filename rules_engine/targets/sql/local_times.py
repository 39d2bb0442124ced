"""The local time of events, by arithmetic: the offsets of the zone are constants of the query.

So every engine gives the answers of :mod:`rules_engine.rules.one_event`, however old its own zone data is.
"""

from __future__ import annotations

from sqlglot import exp

from rules_engine.clock import DAY
from rules_engine.rules.forms import WEEKDAYS
from rules_engine.rules.nodes import EventTime, TimePart
from rules_engine.rules.types import INTEGER, Kind, ValueType
from rules_engine.rules.zone_offsets import zone_offsets
from rules_engine.targets.sql.expressions import Sql, case, compare, integer
from rules_engine.targets.sql.values import Stored

#: From the Monday before 1970 to its first instant, which was a Thursday.
_SINCE_MONDAY = 3 * DAY


def local_time_of(time: EventTime, at: Sql, now: int) -> Stored:
    """Return the local time at an instant, in microseconds, that is not later than now.

    >>> from rules_engine.targets.sql.expressions import own
    >>> local_time_of(EventTime(TimePart.TIME_OF_DAY), own("at"), 0).sql.sql()
    '(at % 86400000000 + 86400000000) % 86400000000'
    """
    local = _local(time.timezone, at, now)
    match time.part:
        case TimePart.TIME_OF_DAY:
            return Stored(ValueType(Kind.TIME_OF_DAY), remainder(local, DAY))
        case TimePart.DAY:
            return Stored(INTEGER, exp.Sub(this=_term(local), expression=remainder(local.copy(), DAY)))
        case TimePart.DAY_OF_WEEK:
            passed = remainder(exp.Add(this=_term(local), expression=integer(_SINCE_MONDAY)), 7 * DAY)
            days = [
                (compare(exp.LT, passed.copy(), integer((number + 1) * DAY)), exp.Literal.string(day))
                for number, day in enumerate(WEEKDAYS)
            ]
            return Stored(ValueType(Kind.DAY_OF_WEEK), case(*days))


def _local(zone: str, at: Sql, now: int) -> Sql:
    offsets = zone_offsets(zone, now)
    last = integer(offsets[-1][1])
    if len(offsets) == 1:
        return exp.Add(this=at, expression=last) if offsets[0][1] else at
    branches = [(compare(exp.LT, at.copy(), integer(until)), integer(offset)) for until, offset in offsets[:-1]]
    return exp.Add(this=at, expression=case(*branches, default=last))


def remainder(value: Sql, divisor: int) -> Sql:
    """Return the remainder from 0 on, also of what is below 0."""
    truncated = exp.Mod(this=_term(value), expression=integer(divisor))
    shifted = exp.Paren(this=exp.Add(this=truncated, expression=integer(divisor)))
    return exp.Mod(this=shifted, expression=integer(divisor))


def _term(value: Sql) -> Sql:
    return exp.Paren(this=value) if isinstance(value, exp.Binary) else value
