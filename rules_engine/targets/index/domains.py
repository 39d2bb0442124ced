"""Sets of the values that a condition allows on one operand, including the missing value. Conjunctions consist of them.

A set of ordered values is described by its cuts: the places on the line of all values where membership switches. Every
scalar operator is a few cuts, so "and", "or" and "not" are one small sweep for all operators.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

from rules_engine.rules.types import Value

#: A place on the line: just before a value (0) or just after it (1). Values of one line compare with each other.
Cut = tuple[Value, int]


@dataclass(frozen=True, slots=True)
class Ranges:
    """A set of values on a line, and whether a missing value is in it.

    Attributes
    ----------
    cuts
        where membership switches, ascending.
    low
        whether values below every cut are in.
    missing
        whether a missing value is in.

    >>> above, below = Ranges(((18, 0),)), Ranges(((65, 1),), low=True)
    >>> above.intersect(below)
    Ranges(cuts=((18, 0), (65, 1)), low=False, missing=False)
    """

    cuts: tuple[Cut, ...] = ()
    low: bool = False
    missing: bool = False

    def intersect(self, other: Ranges) -> Ranges:
        return _combine(self, other, operator.and_)

    def union(self, other: Ranges) -> Ranges:
        return _combine(self, other, operator.or_)

    def complement(self) -> Ranges:
        """Return the values that are not in, without the missing one."""
        return Ranges(self.cuts, not self.low, missing=False)

    def with_missing(self, missing: bool) -> Ranges:
        return self if missing == self.missing else Ranges(self.cuts, self.low, missing)

    @property
    def nothing_present(self) -> bool:
        """Say whether no value is in; a missing one may be."""
        return not self.low and not self.cuts

    @property
    def all_present(self) -> bool:
        """Say whether every value is in; a missing one may be out."""
        return self.low and not self.cuts


def _combine(first: Ranges, second: Ranges, both: Callable[[bool, bool], bool]) -> Ranges:
    in_first, in_second = first.low, second.low
    state = low = both(in_first, in_second)
    missing = both(first.missing, second.missing)
    first_cuts, second_cuts = set(first.cuts), set(second.cuts)
    cuts = []
    for cut in sorted(first_cuts | second_cuts):
        in_first ^= cut in first_cuts
        in_second ^= cut in second_cuts
        if both(in_first, in_second) != state:
            state = not state
            cuts.append(cut)
    return Ranges(tuple(cuts), low, missing)


def from_cuts(cuts: Iterable[Cut], low: bool = False) -> Ranges:
    """Return the set that switches at each of these cuts; two switches at one place cancel out.

    >>> from_cuts([(3, 0), (4, 0), (4, 0), (5, 0)])
    Ranges(cuts=((3, 0), (5, 0)), low=False, missing=False)
    """
    switches: list[Cut] = []
    for cut in sorted(cuts):
        if switches and switches[-1] == cut:
            switches.pop()
        else:
            switches.append(cut)
    return Ranges(tuple(switches), low)


EMPTY = Ranges()
FULL = Ranges(low=True)


@dataclass(frozen=True, slots=True)
class Lists:
    """A set of lists: those with an element of each of ``anys`` and none of ``none``.

    ``present`` False takes every list out, so that only a missing value may be in.

    >>> vip, unbanned = Lists(anys=frozenset({frozenset({"vip"})})), Lists(none=frozenset({"banned"}))
    >>> vip.intersect(unbanned).none
    frozenset({'banned'})
    >>> vip.intersect(Lists(none=frozenset({"vip"}))).nothing_present
    True
    """

    anys: frozenset[frozenset[Value]] = frozenset()
    none: frozenset[Value] = frozenset()
    present: bool = True
    missing: bool = False

    def intersect(self, other: Lists) -> Lists:
        anys, none = self.anys | other.anys, self.none | other.none
        present = self.present and other.present and all(elements - none for elements in anys)
        missing = self.missing and other.missing
        return Lists(anys, none, True, missing) if present else Lists(present=False, missing=missing)

    def union(self, other: Lists) -> Lists | None:
        """Return the union of both sets, or None if it does not have this form."""
        missing = self.missing or other.missing
        for first, second in ((self, other), (other, self)):
            if first.nothing_present or second.all_present:
                return second.with_missing(missing)
        if self.none or other.none or len(self.anys) != 1 or len(other.anys) != 1:
            return None
        return Lists(frozenset({frozenset().union(*self.anys, *other.anys)}), missing=missing)

    def with_missing(self, missing: bool) -> Lists:
        return replace(self, missing=missing)

    @property
    def nothing_present(self) -> bool:
        return not self.present

    @property
    def all_present(self) -> bool:
        return self.present and not self.anys and not self.none


Domain = Ranges | Lists
