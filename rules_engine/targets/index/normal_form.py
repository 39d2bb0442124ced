"""Turns segments into alternatives of conjunctions, each of which the index gives one bit.

Negation is pushed to the leaves. Then two truth values suffice: a leaf, also a negated one, is not true on a missing
value, so the whole is true if plain and/or over its leaves is. References are replaced by the conditions that they
refer to.

Alternatives multiply under ``all``. Beyond a bound some of them become a part of their own, and the conjunction depends
on the part's answer instead; so the size stays linear in the length of the definition.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from rules_engine.rules.nodes import AllOf, AnyOf, Condition, Not, Predicate, SegmentRef, Sequence
from rules_engine.rules.program import Program
from rules_engine.rules.walk import reads_events
from rules_engine.targets.index.domains import Domain, Lists, Ranges
from rules_engine.targets.index.lowering import lower, lower_answer
from rules_engine.targets.index.slots import Slot, SlotTable

#: The most conjunctions that one ``all`` may multiply out to.
MAX_PRODUCT = 32

#: The most conjunctions of one segment that are folded by shifting; a segment with more becomes a part.
MAX_LAYERS = 8


@dataclass(frozen=True, slots=True)
class Conjunction:
    """True if every slot's value is in its domain, and every part is true."""

    domains: Mapping[Slot, Domain] = field(default_factory=dict)
    parts: frozenset[int] = frozenset()

    @property
    def is_always_true(self) -> bool:
        return not self.domains and not self.parts

    def merge(self, other: Conjunction) -> Conjunction | None:
        """Return the conjunction of both; None if no input fulfils both."""
        domains = dict(self.domains)
        for slot, domain in other.domains.items():
            mine = domains.get(slot)
            both = domain if mine is None else _intersect(mine, domain)
            if _is_empty(slot, both):
                return None
            domains[slot] = both
        return Conjunction(domains, self.parts | other.parts)

    def key(self) -> object:
        """Return a key that equal conjunctions share."""
        return frozenset(self.domains.items()), self.parts


ALWAYS = Conjunction()

#: A list of alternatives; the empty list is never true.
Alternatives = list[Conjunction]


def _intersect(first: Domain, second: Domain) -> Domain:
    if isinstance(first, Ranges):
        assert isinstance(second, Ranges)
        return first.intersect(second)
    assert isinstance(second, Lists)
    return first.intersect(second)


def _union(first: Domain, second: Domain) -> Domain | None:
    if isinstance(first, Ranges):
        assert isinstance(second, Ranges)
        return first.union(second)
    assert isinstance(second, Lists)
    return first.union(second)


def _is_empty(slot: Slot, domain: Domain) -> bool:
    return domain.nothing_present and not (domain.missing and slot.may_be_missing)


def _is_full(slot: Slot, domain: Domain) -> bool:
    return domain.all_present and (domain.missing or not slot.may_be_missing)


@dataclass(frozen=True, slots=True)
class NormalForm:
    """All segments of a program in normal form.

    Attributes
    ----------
    segments
        each segment's alternatives, at most ``MAX_LAYERS``.
    parts
        the alternatives of each part; a part depends only on parts with smaller numbers.
    slots
        all slots that are looked up.
    """

    segments: Mapping[str, Alternatives]
    parts: tuple[Alternatives, ...]
    slots: tuple[Slot, ...]


def normalize(program: Program, positive: bool = True, *, by_answers: bool = False) -> NormalForm:
    """Return the normal form of every segment, or with ``positive`` False of every segment's negation.

    With ``by_answers`` it is the answers of event conditions that are looked up, not the values that they compare.

    >>> from rules_engine.rules.nodes import FeatureRef, Segment
    >>> from rules_engine.rules.types import INTEGER
    >>> age = FeatureRef("user", "age")
    >>> adult, minor = Predicate(age, "at_least", 18, INTEGER), Predicate(age, "less_than", 18, INTEGER)
    >>> both, either = Segment("both", AllOf((adult, minor))), Segment("either", AnyOf((adult, minor)))
    >>> form = normalize(Program({"both": both, "either": either}))
    >>> len(form.segments["both"]), len(form.segments["either"])
    (0, 1)
    """
    builder = _Builder(program, by_answers)
    builder.run(positive)
    segments = {name: builder.bounded(builder.segments[name, positive], MAX_LAYERS) for name in program.names}
    return NormalForm(segments, tuple(builder.parts), tuple(builder.slots))


def never_true(program: Program) -> frozenset[str]:
    """Return the segments that no input can fulfil, as far as their own conditions contradict each other.

    >>> from rules_engine.rules.nodes import FeatureRef, Segment
    >>> from rules_engine.rules.types import STRING
    >>> country = FeatureRef("user", "country")
    >>> both = AllOf(tuple(Predicate(country, "equals", name, STRING) for name in ("NO", "SE")))
    >>> never_true(Program({"both": Segment("both", both)}))
    frozenset({'both'})
    """
    return frozenset(name for name, alternatives in normalize(program).segments.items() if not alternatives)


def never_false(program: Program) -> frozenset[str]:
    """Return the segments that no input can make false: for each, it is true or unknown."""
    return frozenset(
        name for name, alternatives in normalize(program, positive=False).segments.items() if not alternatives
    )


class _Builder:
    def __init__(self, program: Program, by_answers: bool) -> None:
        self.slots = SlotTable()
        self._by_answers = by_answers
        self.parts: list[Alternatives] = []
        self.segments: dict[tuple[str, bool], Alternatives] = {}
        self._program = program
        self._parts_by_key: dict[object, Conjunction] = {}

    def run(self, positive: bool) -> None:
        """Normalize every segment after those that it refers to, so that long chains need no deep recursion."""
        needed = {(name, positive) for name in self._program.names}
        for name in reversed(self._program.order):
            when = self._program.segments[name].when
            for polarity in (True, False):
                if (name, polarity) in needed:
                    needed |= _references(when, polarity)
        for name in self._program.order:
            for polarity in (True, False):
                if (name, polarity) in needed:
                    alternatives = self._condition(self._program.segments[name].when, polarity)
                    self.segments[name, polarity] = self.bounded(alternatives, MAX_PRODUCT)

    def bounded(self, alternatives: Alternatives, most: int) -> Alternatives:
        """Return the alternatives themselves, or if they are too many, one that depends on a part made of them."""
        return alternatives if len(alternatives) <= most else [self._part(alternatives)]

    def _part(self, alternatives: Alternatives) -> Conjunction:
        key = frozenset(alternative.key() for alternative in alternatives)
        if key not in self._parts_by_key:
            self._parts_by_key[key] = Conjunction(parts=frozenset({len(self.parts)}))
            self.parts.append(alternatives)
        return self._parts_by_key[key]

    def _condition(self, condition: Condition, positive: bool) -> Alternatives:
        if isinstance(condition, Predicate):  # most are
            return self._leaf(condition, positive)
        if isinstance(condition, Not):
            return self._condition(condition.condition, not positive)
        if isinstance(condition, SegmentRef):
            return self.segments[condition.name, positive]
        if isinstance(condition, AllOf | AnyOf):
            inner = [self._condition(child, positive) for child in condition.conditions]
            return self._product(inner) if isinstance(condition, AllOf) == positive else _sum(inner)
        return self._leaf(condition, positive)

    def _leaf(self, condition: Predicate | Sequence, positive: bool) -> Alternatives:
        if isinstance(condition, Sequence) or (self._by_answers and reads_events(condition)):
            slot, domains = lower_answer(condition, positive, self.slots)
        else:
            slot, domains = lower(condition, positive, self.slots)
        if any(_is_full(slot, domain) for domain in domains):
            return [ALWAYS]
        return [Conjunction({slot: domain}) for domain in domains if not _is_empty(slot, domain)]

    def _product(self, factors: list[Alternatives]) -> Alternatives:
        product = [ALWAYS]
        for factor in self._small_enough(factors):
            merged = (left.merge(right) for left in product for right in factor)
            product = _distinct([conjunction for conjunction in merged if conjunction is not None])
        return product

    def _small_enough(self, factors: list[Alternatives]) -> list[Alternatives]:
        """Return the factors, the smallest first; the largest ones become parts if the product would be too large."""
        factors = sorted(factors, key=len)
        size = 1
        for position, factor in enumerate(factors):
            size *= len(factor)
            if size > MAX_PRODUCT:
                return factors[:position] + [self.bounded(large, 1) for large in factors[position:]]
        return factors


def _references(condition: Condition, positive: bool) -> set[tuple[str, bool]]:
    """Return the segments referred to, each with the polarity in which it is needed."""
    if isinstance(condition, Predicate):  # most are
        return set()
    if isinstance(condition, Not):
        return _references(condition.condition, not positive)
    if isinstance(condition, SegmentRef):
        return {(condition.name, positive)}
    if isinstance(condition, AllOf | AnyOf):
        return {reference for child in condition.conditions for reference in _references(child, positive)}
    return set()


def _sum(terms: list[Alternatives]) -> Alternatives:
    """Return all alternatives; those on the same single slot are united where possible."""
    single: dict[Slot, list[Domain]] = {}
    others: Alternatives = []
    for conjunction in (conjunction for term in terms for conjunction in term):
        if conjunction.is_always_true:
            return [ALWAYS]
        if len(conjunction.domains) == 1 and not conjunction.parts:
            ((slot, domain),) = conjunction.domains.items()
            single[slot] = _united(single.get(slot, []), domain)
        else:
            others.append(conjunction)
    pairs = [(slot, domain) for slot, domains in single.items() for domain in domains]
    if any(_is_full(slot, domain) for slot, domain in pairs):
        return [ALWAYS]
    return [Conjunction({slot: domain}) for slot, domain in pairs] + _distinct(others)


def _united(domains: list[Domain], new: Domain) -> list[Domain]:
    for position, domain in enumerate(domains):
        union = _union(domain, new)
        if union is not None:
            return [*domains[:position], union, *domains[position + 1 :]]
    return [*domains, new]


def _distinct(conjunctions: Alternatives) -> Alternatives:
    if len(conjunctions) < 2:
        return conjunctions
    return list({conjunction.key(): conjunction for conjunction in conjunctions}.values())
