"""Sums over the newest of many values: exact, and without adding all of them up at every look.

Values are divided into blocks. A block knows the exact sum of its values, as a few floats with exactly that sum, and
the least and the greatest sum of its newest values. So the sum from any value on is that of a few of them and of some
blocks, and where a sum is compared with a number, most blocks are passed over without looking at their values.
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate, chain
from typing import TypeVar

from rules_engine.rules.aggregates import AGGREGATES, Aggregate, quotient
from rules_engine.rules.types import Value

#: How many values a block has.
BLOCK = 256

#: Twice the most by which a sum of two floats is wrong, as a part of it.
_WRONG = 2.0**-51

_Answer = TypeVar("_Answer")


@dataclass(frozen=True, slots=True)
class Block:
    """The sums of some values that follow each other.

    Attributes
    ----------
    number
        how many values there are, missing ones too.
    present
        how many are not missing.
    whole
        the sum, if all of them are integers; else None.
    parts
        floats with exactly the sum of the values as floats.
    low, high
        about the least and the greatest sum of the newest of them, from none of them to all.
    size
        the sum of their absolute values, which errors depend on.
    """

    number: int
    present: int
    whole: int | None
    parts: tuple[float, ...]
    low: float
    high: float
    size: float


def blocks_of(values: Sequence[Value]) -> tuple[Block, ...]:
    """Return the blocks of values; none if a sum is out of the range of floats.

    >>> [(block.number, block.whole, block.low, block.high) for block in blocks_of((5, None, -2))]
    [(3, 3, -2.0, 3.0)]
    """
    try:
        return tuple([_block(values[start : start + BLOCK]) for start in range(0, len(values), BLOCK)])
    except OverflowError:
        return ()


def _block(values: Sequence[Value]) -> Block:
    numbers = [value for value in values if value is not None]
    sums = list(accumulate(map(float, reversed(numbers)), initial=0.0))
    size = sum(map(abs, map(float, numbers)))
    if not math.isfinite(size):
        raise OverflowError
    parts: list[float] = []
    while part := math.fsum([*numbers, *(-part for part in parts)]):
        parts.append(part)
    whole = sum(numbers) if all(isinstance(number, int) for number in numbers) else None
    return Block(len(values), len(numbers), whole, tuple(parts), min(sums), max(sums), size)


class Sums:
    """The sums and means of the values of a stream, from any of them to the last.

    Parameters
    ----------
    values
        the values, in order.
    blocks
        the blocks of all of them, in order.

    >>> sums = Sums((0.1, None, 0.2, 0.3), blocks_of((0.1, None)) + blocks_of((0.2, 0.3)))
    >>> sums.value(Aggregate.SUM, 0), sums.value(Aggregate.AVG, 1), sums.value(Aggregate.AVG, 4)
    (0.6, 0.25, None)
    """

    def __init__(self, values: Sequence[Value], blocks: Sequence[Block]) -> None:
        self._values = values
        self._blocks = blocks
        self._ends = list(accumulate(block.number for block in blocks))
        self._wrong = _WRONG * len(values) * sum([block.size for block in blocks])

    @property
    def is_known(self) -> bool:
        """Say whether there are blocks of all values, and their sums are in the range of floats."""
        return (self._ends[-1] if self._ends else 0) == len(self._values) and math.isfinite(self._wrong)

    def value(self, function: Aggregate, start: int) -> Value:
        """Return the sum or the mean of the values from a place on."""
        place = bisect_left(self._ends, start)
        edge = self._ends[place] if place < len(self._ends) else len(self._values)
        numbers = [value for value in self._values[start:edge] if value is not None]
        later = self._blocks[place + 1 :]
        present = len(numbers) + sum([block.present for block in later])
        try:
            total = self._total(numbers, later)
        except OverflowError:
            return AGGREGATES[function].reduce(self._values[start:])
        return total if function is Aggregate.SUM else quotient(total, present)

    @staticmethod
    def _total(numbers: Sequence[int | float], later: Sequence[Block]) -> int | float:
        wholes = [block.whole for block in later if block.whole is not None]
        if len(wholes) == len(later) and all(isinstance(number, int) for number in numbers):
            return sum(numbers) + sum(wholes)
        return math.fsum([*numbers, *chain.from_iterable(block.parts for block in later)])

    def next_change(
        self,
        function: Aggregate,
        start: int,
        is_turn: Callable[[int], bool],
        answer_of: Callable[[Value], _Answer],
        breaks: Sequence[float],
    ) -> int | None:
        """Return the first place after ``start`` from which on the values have another answer; None if there is none.

        Parameters
        ----------
        function
            the sum or the mean.
        start
            the place of the first value now.
        is_turn
            whether values before a place, and no others, may leave.
        answer_of
            gives the answer on a sum or mean.
        breaks
            the numbers, ascending, between which it gives one answer.
        """
        here = answer_of(self.value(function, start))
        looks = _Looks(self, function, answer_of, breaks)
        first = bisect_right(self._ends, start)
        rest = list(accumulate(reversed([math.fsum(block.parts) for block in self._blocks[first:]]), initial=0.0))[::-1]
        present = list(accumulate(reversed([block.present for block in self._blocks[first:]]), initial=0))[::-1]
        wrong = self._wrong
        for number, block in enumerate(self._blocks[first:], 1):
            end = self._ends[first + number - 1]
            low, high = rest[number] + block.low - wrong, rest[number] + block.high + wrong
            counts = present[number], present[number] + block.present
            if looks.one_answer(low, high, counts, end, here):
                continue
            begin = max(start, end - block.number)
            sums = list(accumulate(map(_float, reversed(self._values[begin:end])), initial=rest[number]))
            numbers = list(
                accumulate((value is not None for value in reversed(self._values[begin:end])), initial=counts[0])
            )
            for place in range(begin + 1, end + 1):
                if not is_turn(place):
                    continue
                total, count = sums[end - place], numbers[end - place]
                if not looks.one_answer(total - wrong, total + wrong, (count, count), place, here):
                    return place
        return None


def _float(value: Value) -> float:
    return 0.0 if value is None else float(value)


class _Looks:
    """Asks for the answer on sums, once for each range between breaks."""

    def __init__(
        self, sums: Sums, function: Aggregate, answer_of: Callable[[Value], _Answer], breaks: Sequence[float]
    ) -> None:
        self._sums, self._function, self._answer_of, self._breaks = sums, function, answer_of, breaks
        self._answers: dict[int, object] = {}

    def one_answer(self, low: float, high: float, counts: tuple[int, int], place: int, answer: object) -> bool:
        """Say whether all sums in a range have this answer; if it is one place only, whether its sum has.

        Parameters
        ----------
        low, high
            the range of the sums.
        counts
            the range of the numbers of values.
        place
            one of the places; its sum is asked for.
        answer
            the answer.
        """
        if self._function is Aggregate.AVG:
            if not counts[0]:
                return counts[1] == 0 and self._exact(place) == answer
            means = [total / count for total in (low, high) for count in counts]
            low, high = min(means), max(means)
            low, high = low - abs(low) * _WRONG, high + abs(high) * _WRONG
        cell = bisect_left(self._breaks, low)
        if cell != bisect_right(self._breaks, high):
            return counts[0] == counts[1] and self._exact(place) == answer
        if cell not in self._answers:
            self._answers[cell] = self._exact(place)
        return self._answers[cell] == answer

    def _exact(self, place: int) -> object:
        return self._answer_of(self._sums.value(self._function, place))
