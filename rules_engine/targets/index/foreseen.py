"""Gives the index what events say from an outlook: answers that were worked out ahead."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from rules_engine.events.state.outlook import ANSWERS, FALSE, TRUE, UNKNOWN, Change, Outlook
from rules_engine.rules.nodes import EventAggregate, Predicate
from rules_engine.rules.nodes import Sequence as SequenceNode
from rules_engine.rules.predicates import Truth
from rules_engine.rules.types import Value
from rules_engine.targets.index.event_values import EventSource
from rules_engine.targets.index.tables import Table

_TRUTHS: dict[int, Truth] = {TRUE: True, FALSE: False, UNKNOWN: None}

#: From the text of a condition to its place in outlooks.
Places = Mapping[str, int]


class Foreseen:
    """Answers from an outlook, for an index that is compiled ``by_answers``.

    Parameters
    ----------
    places
        where the conditions stand in outlooks.
    answers
        four in a byte, before the first change.
    outlook
        None if nothing ever changes.
    """

    def __init__(self, places: Places, answers: bytes, outlook: Outlook | None) -> None:
        self._places = places
        self._answers = answers
        self._outlook = outlook

    def aggregate(self, aggregate: EventAggregate, now: int) -> Value:
        raise TypeError(f"outlooks know answers, not values: {aggregate} at {now}")

    def sequence(self, sequence: SequenceNode, now: int) -> bool | None:
        return self._answer(sequence, now)

    def answer(self, predicate: Predicate, now: int) -> Truth:
        return self._answer(predicate, now)

    def _answer(self, condition: Predicate | SequenceNode, now: int) -> Truth:
        place = self._places[repr(condition)]
        answers = self._answers if self._outlook is None else self._outlook.at(now)
        return _TRUTHS[ANSWERS[answers[place >> 2]][place & 3]]

    def instants(self, source: EventSource) -> Iterable[int]:
        place = self._places[repr(source)]
        return (
            []
            if self._outlook is None
            else [at for at, changed, _ in self._outlook.changes(-(2**62)) if changed == place]
        )


class AnswerMasks:
    """From the answers of an outlook to the conjunctions that they leave, four answers at a time.

    Parameters
    ----------
    tables
        of the event conditions that are asked for.
    places
        where the conditions stand in outlooks.
    """

    def __init__(self, tables: Iterable[Table], places: Places) -> None:
        rows = [(-1, -1, -1)] * (-(-len(places) // 4) * 4)
        for table in tables:
            rows[places[repr(table.slot.source)]] = (table.present(False), table.present(True), table.missing)
        fours = [_Four(rows[at : at + 4]) for at in range(0, len(rows), 4)]
        #: Bytes whose conditions nobody asks for are passed over.
        self._fours = [(at, four) for at, four in enumerate(fours) if four.is_asked_for]

    def narrow(self, alive: int, answers: bytes | bytearray) -> int:
        """Return what answers leave of conjunctions."""
        for at, four in self._fours:
            alive &= four[answers[at]]
        return alive


class _Four(dict[int, int]):
    """The masks of four conditions by the byte that holds their answers, made when one comes by."""

    __slots__ = ("_masks",)

    def __init__(self, masks: Sequence[tuple[int, int, int]]) -> None:
        self._masks = masks
        super().__init__()

    @property
    def is_asked_for(self) -> bool:
        return any(mask != (-1, -1, -1) for mask in self._masks)

    def __missing__(self, byte: int) -> int:
        mask = -1
        for masks, answer in zip(self._masks, ANSWERS[byte], strict=True):
            mask &= masks[answer]
        self[byte] = mask
        return mask


class Following:
    """The answers of an outlook as time goes on, from the answers at an instant. Goes forward only."""

    __slots__ = ("_answers", "_at", "_changes", "_masks")

    def __init__(self, masks: AnswerMasks, answers: bytes, changes: Iterable[Change]) -> None:
        self._masks = masks
        self._answers = bytearray(answers)
        self._changes = list(changes)
        self._at = 0

    @property
    def instants(self) -> list[int]:
        """Return the instants of the changes."""
        return [at for at, _, _ in self._changes]

    def narrow(self, alive: int, now: int) -> int:
        """Return what the answers at an instant leave of conjunctions."""
        changes, answers = self._changes, self._answers
        while self._at < len(changes) and changes[self._at][0] <= now:
            _, place, answer = changes[self._at]
            shift = 2 * (place & 3)
            answers[place >> 2] = answers[place >> 2] & ~(3 << shift) | answer << shift
            self._at += 1
        return self._masks.narrow(alive, answers)
