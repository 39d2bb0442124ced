"""What event conditions say of an entity's ordered events at an instant: windows, aggregates and sequences."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction

from rules_engine.rules.inputs import Event, KeptEvents
from rules_engine.rules.nodes import Aggregate, EventAggregate, EventMatch
from rules_engine.rules.nodes import Sequence as SequenceNode
from rules_engine.rules.types import Value, conform


def matching(match: EventMatch, events: Sequence[Event]) -> list[Event]:
    """The events that a match means, in their order."""
    return [event for event in events if event.is_meant_by(match)]


def in_window(events: Sequence[Event], now: int, within: int | None) -> Sequence[Event]:
    """Of ordered events those in (now - within, now]; with ``within`` None all up to now.

    >>> [event.at for event in in_window([Event("a", at, str(at)) for at in (0, 1, 5, 6)], now=5, within=5)]
    [1, 5]
    """
    end = bisect_right(events, now, key=lambda event: event.at)
    start = 0 if within is None else bisect_right(events, now - within, key=lambda event: event.at)
    return events[start:end]


# --- aggregates -----------------------------------------------------------------------------------------------------


def aggregate_value(aggregate: EventAggregate, events: Sequence[Event], now: int) -> Value:
    """The aggregate over the matching events in its window; None where it is missing.

    >>> from rules_engine.clock import HOUR
    >>> views = [Event("view", at * HOUR, str(at)) for at in range(5)]
    >>> aggregate_value(EventAggregate(Aggregate.COUNT, EventMatch("view"), 2 * HOUR), views, now=4 * HOUR)
    2
    """
    if isinstance(events, KeptEvents):
        return events.aggregate_value(aggregate, now)
    return reduce_events(aggregate, in_window(matching(aggregate.match, events), now, aggregate.within))


def reduce_events(aggregate: EventAggregate, counted: Sequence[Event]) -> Value:
    """The aggregate over exactly these events, which are in order."""
    if aggregate.function is Aggregate.COUNT:
        return len(counted)
    values = [conform(event.properties.get(aggregate.of or ""), aggregate.of_type) for event in counted]
    return reduce_values(aggregate.function, values)


def reduce_values(function: Aggregate, values: Sequence[Value]) -> Value:
    """The aggregate over the values of the events that count, which are in order; None is a missing value.

    >>> reduce_values(Aggregate.MAX, [1, None, 3]), reduce_values(Aggregate.LAST, [1, None])
    (3, None)
    """
    if function is Aggregate.COUNT:
        return len(values)
    if function is Aggregate.FIRST:
        return values[0] if values else None
    if function is Aggregate.LAST:
        return values[-1] if values else None
    return _REDUCTIONS[function]([value for value in values if value is not None])


def exact_sum(values: Sequence[int | float]) -> int | float | None:
    """The sum: of integers exact, with floats correctly rounded; infinite where it leaves the range of a float.

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
    """The mean; None of nothing.

    >>> mean([1, 2]), mean([]) is None
    (1.5, True)
    """
    return quotient(exact_sum(values), len(values))


def quotient(total: int | float | None, number: int) -> float | None:
    """A mean from a sum and the number of its terms, correctly rounded; None of nothing."""
    if total is None or number == 0:
        return None
    return _round(Fraction(total, number)) if isinstance(total, int) else total / number


def _distinct(values: Sequence[Value]) -> int:
    """1 and 1.0 are one value; True is another."""
    return len({(isinstance(value, bool), value) for value in values})


_REDUCTIONS: dict[Aggregate, Callable[[Sequence[Value]], Value]] = {
    Aggregate.SUM: exact_sum,
    Aggregate.AVG: mean,
    Aggregate.MIN: lambda values: min(values, default=None),
    Aggregate.MAX: lambda values: max(values, default=None),
    Aggregate.DISTINCT: _distinct,
}


# --- sequences ------------------------------------------------------------------------------------------------------


def sequence_matches(sequence: SequenceNode, events: Sequence[Event], now: int) -> bool:
    """Whether some choice of events takes every step, completes at or before now, and starts within the own window.

    >>> from rules_engine.clock import MINUTE
    >>> from rules_engine.rules.nodes import SequenceStep
    >>> steps = (SequenceStep(EventMatch("cart")), SequenceStep(EventMatch("buy"), negated=True, within=30 * MINUTE))
    >>> cart = [Event("cart", 0, "1")]
    >>> [sequence_matches(SequenceNode(steps), cart, minute * MINUTE) for minute in (29, 30)]
    [False, True]
    """
    past = in_window(events, now, None)
    starts = first_events(sequence, past)
    if sequence.within is not None:
        starts = [event for event in starts if event.at > now - sequence.within]
    return any(_completes(_Chain(sequence, start, past, now), 1, start) for start in starts)


def first_events(sequence: SequenceNode, past: Sequence[Event]) -> list[Event]:
    """The events that the first step may take: all, or with ``anchor: latest`` those of the latest instant."""
    starts = matching(sequence.steps[0].match, past)
    if sequence.match_on is not None:
        starts = [event for event in starts if _property(event, sequence.match_on) is not None]
    return [event for event in starts if event.at == starts[-1].at] if sequence.latest_only else starts


def _property(event: Event, name: str) -> Value:
    return conform(event.properties.get(name), None)


class _Chain:
    """One start of a sequence: the events that its later steps may look at."""

    def __init__(self, sequence: SequenceNode, start: Event, past: Sequence[Event], now: int) -> None:
        self.steps = sequence.steps
        self.now = now
        later = past[bisect_right(past, start.at, key=lambda event: event.at) :]
        if sequence.match_on is not None:
            wanted = _identity(_property(start, sequence.match_on))
            later = [event for event in later if _identity(_property(event, sequence.match_on)) == wanted]
        self._candidates = [matching(step.match, later) for step in sequence.steps]

    def events(self, step: int, after: int) -> Iterator[Event]:
        """The events of a step in (after, after + its within]."""
        within = self.steps[step].within
        for event in self._candidates[step]:
            if after < event.at and (within is None or event.at <= after + within):
                yield event


def _identity(value: Value) -> tuple[bool, Value]:
    return isinstance(value, bool), value


def _completes(chain: _Chain, step: int, previous: Event) -> bool:
    """Whether the steps from ``step`` on can be taken, the last event taken being ``previous``."""
    forbidden = []
    while step < len(chain.steps) and chain.steps[step].negated:
        forbidden.append(step)
        step += 1
    if step == len(chain.steps):
        return all(_stayed_away(chain, absent, previous.at) for absent in forbidden)
    return any(
        _completes(chain, step + 1, event)
        for event in chain.events(step, previous.at)
        if not any(found.at < event.at for absent in forbidden for found in chain.events(absent, previous.at))
    )


def _stayed_away(chain: _Chain, step: int, since: int) -> bool:
    """Whether a last ``did_not`` step has completed: its time has passed and no such event came."""
    within = chain.steps[step].within
    assert within is not None, "the parser requires `within` on a last did_not step"
    return since + within <= chain.now and not any(chain.events(step, since))


def sequence_instants(sequence: SequenceNode, events: Sequence[Event]) -> Iterator[int]:
    """Instants at which the answer of a sequence may change: an event comes, a wait ends, the own window closes."""
    waits = {step.within for step in sequence.steps if step.negated and step.within is not None}
    for event in events:
        yield event.at
        yield from (event.at + wait for wait in waits)
        if sequence.within is not None:
            yield event.at + sequence.within
