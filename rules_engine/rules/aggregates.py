"""THE table of aggregates: how the events of a window become one value, and everything that follows from it.

The parser, the forms and their schema, the plain evaluator, what an event state keeps, SQL and the reference in docs/
read it, or are checked against it when they are imported.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from fractions import Fraction

from rules_engine.rules.types import FLOAT, INTEGER, Kind, Value, ValueType

NUMBERS = frozenset({Kind.INTEGER, Kind.FLOAT})
NUMBERS_AND_TIMES = NUMBERS | {Kind.TIME}
ANY = frozenset(Kind)

#: How many decimals a mean of decimal numbers has beyond those.
MEAN_DECIMALS = 6


class Aggregate(Enum):
    """The ways in which the matching events of a window become one value."""

    COUNT = "count"
    SUM = "sum"
    AVG = "avg"
    MIN = "min"
    MAX = "max"
    DISTINCT = "distinct"
    FIRST = "first"
    LAST = "last"


class Result(Enum):
    """The type of an aggregate's value."""

    COUNT = "a whole number from 0"
    FLOAT = "a float"
    PROPERTY = "the type of the property"


@dataclass(frozen=True, slots=True)
class Aggregation:
    """One aggregate.

    Attributes
    ----------
    function
        the aggregate.
    reduce
        ``(values) ->`` its value, from the property of each event in order, None where the property is missing.
    result
        the type of its value.
    summary, example
        for documentation; the example is the text after the first key of a condition.
    kinds
        the kinds of property that it takes; None if it takes no property.
    takes_lists
        True if the property may be a list.
    never_missing
        True if it has a value even of no events.
    options
        the further keys that a condition with it may have.
    """

    function: Aggregate
    reduce: Callable[[Sequence[Value]], Value]
    result: Result
    summary: str
    example: str
    kinds: frozenset[Kind] | None = ANY
    takes_lists: bool = False
    never_missing: bool = False
    options: tuple[str, ...] = ()

    @property
    def is_count(self) -> bool:
        """Say whether its value is a count: whole, and never missing."""
        return self.result is Result.COUNT

    def type_of_property(self, declared: ValueType | None) -> ValueType | None:
        """Return the type as which the property is read: undeclared, it is read as a number if numbers are reduced."""
        return FLOAT if declared is None and self.kinds is not None and self.kinds <= NUMBERS_AND_TIMES else declared

    def type_of_value(self, of_type: ValueType | None) -> ValueType | None:
        """Return the type of the value for a property of this type."""
        if self.result is Result.FLOAT and of_type is not None and of_type.decimals is not None:
            return replace(FLOAT, decimals=of_type.decimals + MEAN_DECIMALS)
        return {Result.COUNT: INTEGER, Result.FLOAT: FLOAT, Result.PROPERTY: of_type}[self.result]

    def takes(self, of_type: ValueType) -> bool:
        """Say whether it can be taken of a property of this type."""
        return self.kinds is not None and of_type.kind in self.kinds and (self.takes_lists or not of_type.is_list)


# --- how values are reduced -----------------------------------------------------------------------------------------


def exact_sum(values: Sequence[int | float]) -> int | float | None:
    """Return the sum: of integers exact, with floats correctly rounded; infinite where it leaves the range of a float.

    >>> exact_sum([0.1] * 10), exact_sum([2**60, 1])
    (1.0, 1152921504606846977)
    """
    if all(isinstance(value, int) for value in values):
        return sum(values)
    try:
        return math.fsum(values)
    except OverflowError:  # an intermediate sum, or the sum itself, is out of range
        return _round(sum(map(Fraction, values), Fraction(0)))
    except ValueError:  # infinities of both signs have no sum
        return None


def _round(exact: Fraction) -> float:
    try:
        return float(exact)
    except OverflowError:
        return math.inf if exact > 0 else -math.inf


def mean(values: Sequence[int | float]) -> float | None:
    """Return the mean; None of nothing.

    >>> mean([1, 2]), mean([]) is None
    (1.5, True)
    """
    return quotient(exact_sum(values), len(values))


def quotient(total: int | float | None, number: int) -> float | None:
    """Return a mean from a sum and the number of its terms, correctly rounded; None of nothing."""
    if total is None or number == 0:
        return None
    return _round(Fraction(total, number)) if isinstance(total, int) else total / number


def _distinct(values: Sequence[Value]) -> int:
    """Count the distinct values: 1 and 1.0 are one value, True is another."""
    return len({(isinstance(value, bool), value) for value in values})


def _present(reduce: Callable[[Sequence[Value]], Value]) -> Callable[[Sequence[Value]], Value]:
    """Return the reduction of the values that are not missing."""
    return lambda values: reduce([value for value in values if value is not None])


_TABLE = (
    Aggregation(
        Aggregate.COUNT, len, Result.COUNT, "how many such events there were", "{event: view}, within: 1d, at_least: 3",
        kinds=None, never_missing=True,
    ),
    Aggregation(
        Aggregate.SUM, _present(exact_sum), Result.PROPERTY, "the sum of a property",
        "{event: purchase, of: amount}, within: 30d, at_least: 200", NUMBERS, never_missing=True,
    ),
    Aggregation(
        Aggregate.AVG, _present(mean), Result.FLOAT, "the mean of a property",
        "{event: purchase, of: amount}, within: 30d, at_least: 50", NUMBERS, options=("or_missing",),
    ),
    Aggregation(
        Aggregate.MIN, _present(lambda values: min(values, default=None)), Result.PROPERTY,
        "the least value of a property", "{event: view, of: price}, within: 1d, less_than: 5", NUMBERS_AND_TIMES,
        options=("or_missing",),
    ),
    Aggregation(
        Aggregate.MAX, _present(lambda values: max(values, default=None)), Result.PROPERTY,
        "the greatest value of a property", "{event: view, of: price}, within: 1d, at_least: 500", NUMBERS_AND_TIMES,
        options=("or_missing",),
    ),
    Aggregation(
        Aggregate.DISTINCT, _present(_distinct), Result.COUNT, "how many different values a property had",
        "{event: view, of: sku}, within: 1h, at_least: 3", never_missing=True,
    ),
    Aggregation(
        Aggregate.FIRST, lambda values: values[0] if values else None, Result.PROPERTY,
        "the property of the earliest such event", "{event: visit, of: source}, within: 30d, equals: ad",
        takes_lists=True, options=("ignore_case", "or_missing"),
    ),
    Aggregation(
        Aggregate.LAST, lambda values: values[-1] if values else None, Result.PROPERTY,
        "the property of the latest such event", "{event: visit, of: source}, within: 30d, equals: mail",
        takes_lists=True, options=("ignore_case", "or_missing"),
    ),
)  # fmt: skip

#: Every aggregate by its function.
AGGREGATES: Mapping[Aggregate, Aggregation] = {row.function: row for row in _TABLE}

#: Those of a property of events.
PROPERTY_AGGREGATES = tuple(row for row in _TABLE if row.kinds is not None)


def require_aggregates(place: str, table: Iterable[Aggregate]) -> None:
    """Fail, when a module is imported, if its table lacks an aggregate.

    Raises
    ------
    TypeError
        naming the aggregates.

    >>> require_aggregates("nothing", set(Aggregate) - {Aggregate.LAST})
    Traceback (most recent call last):
    ...
    TypeError: nothing: aggregates without an entry: last
    """
    lacking = sorted(function.value for function in set(Aggregate) - set(table))
    if lacking:
        raise TypeError(f"{place}: aggregates without an entry: {', '.join(lacking)}")


require_aggregates("the table of aggregates", AGGREGATES)
