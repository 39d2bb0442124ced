"""Works out the outlooks of event states: what each event condition says from an instant on if nothing more happens."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from functools import cached_property
from hashlib import blake2b

from rules_engine.events.state.entity_state import EventState, empty_state
from rules_engine.events.state.outlook import (
    FALSE,
    FOREVER,
    MAX_CONDITIONS,
    TRUE,
    UNKNOWN,
    Change,
    changes_at_most,
    encode_outlook,
    packed,
    read_outlook,
    stamp_of,
    unpacked,
)
from rules_engine.events.state.reading import StateLayout, StateReader
from rules_engine.features.online.selection import EntityFeatures
from rules_engine.rules.aggregates import AGGREGATES
from rules_engine.rules.nodes import Condition, EventAggregate
from rules_engine.rules.nodes import Sequence as SequenceNode
from rules_engine.rules.program import Program
from rules_engine.rules.walk import event_sources
from rules_engine.targets.stepwise.compile import Checks
from rules_engine.targets.stepwise.view import Check, View

#: Raised by one when outlooks are worked out or encoded differently: older ones are then not read.
OUTLOOK_VERSION = 1

#: How many instants are looked at for one condition, at most and at least, and how many events for all of them beyond
#: the least; then its outlook ends.
_LOOKS, _FEWEST, _EVENTS = 64, 4, 4_096

_NOBODY = EntityFeatures("")

#: Whether a condition is true; whether it is false, None where it is if it is not true; and what it reads.
_Pair = tuple[Check, Check | None, tuple[EventAggregate | SequenceNode, ...]]


class Outlooks:
    """Makes the outlooks of states by the segments of a program. Safe to share between threads.

    Parameters
    ----------
    program
        the segments.
    layout
        how event conditions are read from states.

    Attributes
    ----------
    conditions
        the conditions that outlooks are of, in order.
    stamp
        what tells outlooks of these conditions from others.

    >>> from rules_engine.events.state.entity_state import update
    >>> from rules_engine.events.state.outlook import read_outlook
    >>> from rules_engine.events.state.requirements import requirements_of
    >>> from rules_engine.rules.aggregates import Aggregate
    >>> from rules_engine.rules.inputs import Event
    >>> from rules_engine.rules.nodes import EventMatch, Predicate, Segment
    >>> viewed = Predicate(EventAggregate(Aggregate.COUNT, EventMatch("view"), within=10), "at_least", 1)
    >>> program = Program({"viewed": Segment("viewed", viewed)})
    >>> requirements = requirements_of(program)
    >>> outlooks = Outlooks(program, StateLayout(requirements))
    >>> state = update(empty_state(requirements), [Event("view", 3, "a")], requirements)
    >>> outlook = read_outlook(outlooks.of(state, begins_at=5), outlooks.stamp, 1)
    >>> outlook.answers == packed([TRUE]), outlook.changes(5)
    (True, [(13, 0, 0)])
    """

    def __init__(self, program: Program, layout: StateLayout) -> None:
        self.conditions = program.event_conditions
        self._layout = layout
        checks = Checks(program, layout)
        self._checks: list[_Pair] = [
            (
                checks.condition(condition),
                checks.condition(condition, positive=False) if _may_be_unknown(condition) else None,
                tuple(event_sources(condition)),
            )
            for condition in self.conditions
        ]
        self._reads = [frozenset().union(*map(layout.places_of, sources)) for *_, sources in self._checks]
        self.stamp = _stamp(self.conditions, layout.requirements.fingerprint)

    @cached_property
    def places(self) -> Mapping[str, int]:
        """Return the place of each condition, by its text."""
        return {repr(condition): place for place, condition in enumerate(self.conditions)}

    @cached_property
    def of_nothing(self) -> bytes:
        """Return the answers, four in a byte, of an entity without events: they are the same at every instant."""
        view = View(_NOBODY, StateReader(empty_state(self._layout.requirements), self._layout))
        return packed([_answer(pair, view, 0)[0] for pair in self._checks])

    def of(self, state: EventState, begins_at: int) -> bytes:
        """Return the outlook of a state from an instant on; nothing where there can be none.

        There is none where more events came than the state keeps and an answer is not known therefore: that it is so
        is to be told to those who ask, and the state tells it.
        """
        return self._outlook(state, begins_at, {}, (), (), self._view(state))

    def renewed(
        self, stored: bytes, state: EventState, begins_at: int, changed: Collection[int], view: View | None = None
    ) -> bytes:
        """Return the same as :meth:`of`, made of an earlier outlook as far as nothing happened to it.

        Parameters
        ----------
        stored
            what was stored, with the earlier outlook at its end.
        state
            what is to be stored.
        changed
            the places of the requirements of which events came.
        view
            on the same events, or on more, as the state was before it was pruned; answers on it are taken over.
        """
        if view is None or not view.reader.is_whole or any(kept.lost for kept in state.kept):
            view = self._view(state)
        else:
            view = view.without_features()
        earlier = read_outlook(stored, self.stamp, len(self.conditions))
        if earlier is None or earlier.ends_at < FOREVER or begins_at < earlier.begins_at:
            return self._outlook(state, begins_at, {}, (), (), view)
        kept = {place: 0 for place, reads in enumerate(self._reads) if reads.isdisjoint(changed)}
        return self._outlook(state, begins_at, kept, unpacked(earlier.at(begins_at)), earlier.changes(begins_at), view)

    def is_of_these(self, stored: bytes) -> bool:
        """Say whether what is stored ends with an outlook of these conditions."""
        return stamp_of(stored) == self.stamp

    def _view(self, state: EventState) -> View:
        return View(_NOBODY, StateReader(state, self._layout))

    def _outlook(
        self,
        state: EventState,
        begins_at: int,
        kept: Collection[int],
        answers: Sequence[int],
        later: Iterable[Change],
        view: View,
    ) -> bytes:
        """Make an outlook; ``kept`` are the places of conditions whose answers and later changes are known."""
        if len(self._checks) > MAX_CONDITIONS or (state.pruned_at is not None and begins_at < state.pruned_at):
            return b""
        reader = view.reader
        current = list(answers) or [UNKNOWN] * len(self._checks)
        changes = [change for change in later if change[1] in kept]
        until = FOREVER
        for place, pair in enumerate(self._checks):
            if place in kept:
                continue
            if _lacks(reader, pair, begins_at):
                return b""
            current[place], lasts = _answer(pair, view, begins_at)
            if lasts < FOREVER:
                until = min(until, _follow(pair, view, place, current[place], lasts, changes))
        changes.sort()
        return self._encoded(current[: len(self._checks)], changes, begins_at, until)

    def _encoded(self, answers: list[int], changes: list[Change], begins_at: int, until: int) -> bytes:
        """Encode an outlook, as far as there is room for its changes."""
        most = changes_at_most(len(answers))
        if len(changes) > most:
            until = min(until, changes[most][0])
        if until < FOREVER:
            changes = [change for change in changes if change[0] < until]
        return encode_outlook(self.stamp, answers, changes, begins_at, until) if begins_at < until else b""


def _lacks(reader: StateReader, pair: _Pair, now: int) -> bool:
    """Say whether events that a condition reads were dropped because of the bound."""
    return not reader.is_whole and any(reader.dropped_until(source, now) is not None for source in pair[2])


def _may_be_unknown(condition: Condition) -> bool:
    """Say whether a condition may be unknown though all its events are kept."""
    if isinstance(condition, SequenceNode):
        return False
    *others, source = event_sources(condition)
    return bool(others) or (isinstance(source, EventAggregate) and not AGGREGATES[source.function].is_count)


def _stamp(conditions: tuple[Condition, ...], fingerprint: int) -> int:
    text = f"{OUTLOOK_VERSION} {fingerprint} {conditions!r}"
    return int.from_bytes(blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "little")


def _answer(pair: _Pair, view: View, now: int) -> tuple[int, int]:
    """Return the answer of a condition, and until when it lasts at least."""
    holds, until = pair[0](view, now)
    if holds:
        return TRUE, until
    if pair[1] is None:
        return FALSE, until
    fails, lasts = pair[1](view, now)
    return FALSE if fails else UNKNOWN, min(until, lasts)


def _follow(pair: _Pair, view: View, place: int, answer: int, at: int, changes: list[Change]) -> int:
    """Note the changes of an answer from an instant on, and return before which one all of them are noted."""
    reader = view.reader
    looks = min(_LOOKS, _FEWEST + _EVENTS // (1 + sum(map(reader.events_behind, pair[2]))))
    for _ in range(looks):
        if _lacks(reader, pair, at):
            return at
        now, lasts = _answer(pair, view, at)
        if now != answer:
            changes.append((at, place, now))
            answer = now
        if lasts >= FOREVER:
            return FOREVER
        at = lasts
    return at
