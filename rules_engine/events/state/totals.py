"""Totals: the number and the exact sum of events that were counted and are gone."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction

from rules_engine.rules.aggregates import Aggregate, exact_sum, quotient
from rules_engine.rules.types import Value

_LARGEST = Fraction(sys.float_info.max)


@dataclass(frozen=True, slots=True)
class Total:
    """Events that became a total.

    Attributes
    ----------
    events
        how many there were.
    values
        how many of them had a value.
    integers
        the exact sum of the values that were integers.
    floats
        how many values were floats.
    exact
        the exact sum of all finite values, as floats.
    endless
        the infinities among the values, each once.

    >>> total = Total().plus([0.1, 0.2, None])
    >>> total.events, total.sum([0.3]), total.mean([])
    (3, 0.6, 0.15000000000000002)
    """

    events: int = 0
    values: int = 0
    integers: int = 0
    floats: int = 0
    exact: Fraction = Fraction(0)
    endless: tuple[float, ...] = ()

    def plus(self, values: Iterable[Value]) -> Total:
        """Add further events, each given by its value; None is a missing one."""
        added = list(values)
        numbers = [value for value in added if value is not None]
        finite = [Fraction(float(number)) for number in numbers if math.isfinite(number)]
        return Total(
            self.events + len(added),
            self.values + len(numbers),
            self.integers + sum(number for number in numbers if isinstance(number, int)),
            self.floats + sum(isinstance(number, float) for number in numbers),
            sum(finite, self.exact),
            tuple(sorted({*self.endless, *(number for number in numbers if math.isinf(number))})),
        )

    def also(self, other: Total) -> Total:
        """Return the total of these events and others.

        >>> Total().plus([1, 0.5]).also(Total().plus([2, None])).sum([])
        3.5
        """
        return Total(
            self.events + other.events,
            self.values + other.values,
            self.integers + other.integers,
            self.floats + other.floats,
            self.exact + other.exact,
            tuple(sorted({*self.endless, *other.endless})),
        )

    def sum(self, values: Sequence[int | float]) -> int | float | None:
        """Return the sum with further values: what the sum over all the values would be."""
        if not self.floats and all(isinstance(value, int) for value in values):
            return self.integers + sum(values)
        return exact_sum([*self._parts(), *self.endless, *values, 0.0])

    def mean(self, values: Sequence[int | float]) -> float | None:
        """Return the mean with further values; None of nothing."""
        return quotient(self.sum(values), self.values + len(values))

    def _parts(self) -> Iterator[float]:
        """Return floats with exactly this sum, the greatest first."""
        rest = self.exact
        while rest:
            part = float(max(-_LARGEST, min(_LARGEST, rest)))
            yield part
            rest -= Fraction(part)

    def value(self, function: Aggregate, further: Sequence[Value]) -> Value:
        """Return an aggregate over these and further events, which are given by their values."""
        if function is Aggregate.COUNT:
            return self.events + len(further)
        numbers = [value for value in further if value is not None]
        return self.sum(numbers) if function is Aggregate.SUM else self.mean(numbers)
