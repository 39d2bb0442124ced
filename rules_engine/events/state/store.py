"""Event states in Redis: one string beside each entity's hash, and pieces beside that, replaced by compare-and-set.

Any number of workers and applications write at once. A writer reads a state, computes the next one, and replaces it
only if the stored bytes are still those that it read; otherwise it starts over. So no events are lost, nothing is
locked, and a writer that is killed leaves either the old state or the new one. Applications only append the events that
they report (:mod:`rules_engine.events.state.waiting`), which conflicts with no writer. docs/adr/0008-events-online.md
has the measurements.
"""

from __future__ import annotations

import operator
import random
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from itertools import islice
from typing import Any, Protocol

from rules_engine.clock import DAY, MINUTE
from rules_engine.errors import StoreDataError, StoreTimeoutError
from rules_engine.events.declarations.validation import MAX_AHEAD
from rules_engine.events.state.encoding import decode_state, encode_piece, encode_state, named_pieces
from rules_engine.events.state.entity_state import EventState, changed_places, empty_state, update
from rules_engine.events.state.merging import with_joined
from rules_engine.events.state.pruning import prune
from rules_engine.events.state.requirements import StateRequirements
from rules_engine.events.state.stored import WRITE_PIECES, pieces_key, reading
from rules_engine.events.state.waiting import (
    Waiting,
    decode_current,
    digests,
    encode_waiting,
    split,
    waiting_digest,
    without_pieces,
)
from rules_engine.rules.inputs import Event

#: How far a reader's clock may be behind a writer's. States keep what such a reader needs.
CLOCK_SKEW = MINUTE

#: The number of entities whose states are changed at once.
BATCH = 500

#: A state is pruned after so many new events (or a quarter of those it has, if more), or after so long.
PRUNE_EVERY, PRUNE_AFTER = 8, DAY

#: The attempts of a writer before it gives up, and the longest wait between two of them, in seconds.
_ATTEMPTS, _LONGEST_WAIT = 100, 0.05

#: Replaces a state if it is still the one that was read (an absent state is read as the empty string), and its pieces.
#: Events that were appended to it stay. 245 is the first byte of each appended event.
REPLACE = (
    WRITE_PIECES
    + """\
local stored = redis.call('GET', KEYS[1]) or ''
local next_byte = string.byte(stored, #ARGV[1] + 1)
if string.sub(stored, 1, #ARGV[1]) ~= ARGV[1] or (next_byte and next_byte ~= 245) then return 0 end
local new = ARGV[2] .. string.sub(stored, #ARGV[1] + 1)
if new == '' then
  redis.call('DEL', KEYS[1])
elseif ARGV[3] == '0' then
  redis.call('SET', KEYS[1], new)
else
  redis.call('SET', KEYS[1], new, 'PX', ARGV[3])
end
write_pieces(KEYS[2], ARGV[3], 4)
return 1"""
)


#: The bytes of a state that are replaced, those that replace them, and what the script is told of pieces.
_Proposal = tuple[bytes, bytes, list[bytes | int]]


def state_name(requirements: StateRequirements) -> bytes:
    """Return the last part of a state's key. It differs by requirements, so states for old and new definitions coexist.

    >>> state_name(StateRequirements())[:7]
    b'events:'
    """
    return b"events:%016x" % requirements.fingerprint


def pieces_written(before: Collection[bytes], state: EventState, requirements: StateRequirements) -> list[bytes | int]:
    """Return what :data:`~rules_engine.events.state.stored.WRITE_PIECES` is told.

    Parameters
    ----------
    before
        the names of the pieces that are stored.
    state
        the state that is written.
    """
    pieces = named_pieces(state, requirements)
    if not pieces and not before:
        return []
    gone = [name for name in before if name not in pieces]
    new = [part for name in pieces if name not in before for part in (name, encode_piece(*pieces[name]))]
    return [len(gone), *gone, *new]


def lifetime(requirements: StateRequirements) -> int:
    """Return how long a state matters after its last change, in milliseconds; 0: for ever."""
    return 0 if requirements.horizon is None else (requirements.horizon + MAX_AHEAD + DAY) // 1_000


def hiding(key: bytes) -> tuple[bytes | str, ...]:
    """Return the command that hides the outlook behind a damaged state, which events were not put into.

    What it appends is no entry, so that readers find the damage instead of an answer that lacks events.
    """
    return "APPEND", key, b"\0"


class OutlookMaker(Protocol):
    """Makes the outlooks of states: :class:`rules_engine.targets.stepwise.outlooks.Outlooks`."""

    def of(self, state: EventState, begins_at: int) -> bytes: ...

    def renewed(self, stored: bytes, state: EventState, begins_at: int, changed: Collection[int]) -> bytes: ...


class StateStore:
    """Reads and changes the event states of one project for one set of definitions.

    Parameters
    ----------
    client
        a redis-py client that gives bytes.
    key
        gives the key of an entity's state.
    requirements
        what is kept.
    outlooks
        makes the outlooks that are put behind states.
    expires
        whether the server deletes a state that has not changed for so long that no definition reads it any more.
        False where the project's clock is fixed.
    """

    def __init__(
        self,
        client: Any,
        key: Callable[[str], bytes],
        requirements: StateRequirements,
        outlooks: OutlookMaker,
        *,
        expires: bool = False,
    ) -> None:
        self._outlooks = outlooks
        self.requirements = requirements
        self._lifetime = lifetime(requirements) if expires else 0
        self._client = client
        self._key = key

    def read(self, entities: Sequence[str]) -> list[EventState]:
        """Return the states of entities, in order, with the events that wait behind them."""
        return [decode_current(raw, self.requirements) for raw in self._get(entities)]

    def stored(self, entities: Sequence[str]) -> list[bytes]:
        """Return the states of entities as they are stored, with what waits behind them."""
        return [raw or b"" for raw in self._get(entities)] if entities else []

    def reported(self, entity: str, event: Waiting) -> list[tuple[bytes | str, ...]]:
        """Return the commands that append an event to its entity's state; none if nothing needs the event.

        The state does not expire until the worker has taken in the event.
        """
        if isinstance(event, Event) and event.name not in self.requirements.places:
            return []
        key = self._key(entity)
        append: list[tuple[bytes | str, ...]] = [("APPEND", key, encode_waiting(event))]
        return [*append, ("PERSIST", key), ("PERSIST", pieces_key(key))] if self._lifetime else append

    def update(
        self,
        events: Mapping[str, Sequence[Event]],
        now: int,
        joined: Mapping[str, Mapping[str, int]] | None = None,
    ) -> set[str]:
        """Add events to the states of their entities.

        When it returns, every reader sees the events. Order does not matter, and events that a state already has change
        nothing; but an event whose instant is already settled no longer enters a total.

        Parameters
        ----------
        events
            by entity.
        now
            the present; parts that no answer from a minute before it on needs may be dropped.
        joined
            by entity, the ids whose events are among them, with the instants of their joins.

        Returns
        -------
        set of str
            the entities whose states have to be rebuilt from the log (:meth:`rebuild`): an event came too late for a
            total, perhaps for a second time; or the stored state is damaged.

        Raises
        ------
        StoreTimeoutError
            if other writers were faster again and again.
        """
        to_rebuild: set[str] = set()
        damaged: list[str] = []
        keep_from = now - CLOCK_SKEW

        def propose(entity: str, raw: bytes | None) -> _Proposal | None:
            try:
                pieces, rest = without_pieces(raw)
                stored = split(rest)[0]
                old = decode_state(stored, self.requirements, pieces) if stored else empty_state(self.requirements)
            except StoreDataError:
                to_rebuild.add(entity)
                damaged.append(entity)
                return None
            new = _joined(update(old, events[entity], self.requirements), entity, joined)
            if not differs(old, new):
                return None
            if is_late(old, new):
                to_rebuild.add(entity)
            changed = changed_places(old, new)
            if is_worth_pruning(old, new, keep_from, self.requirements.piece):
                new = prune(new, self.requirements, keep_from)
            if not stored and is_empty(new):
                return None  # all events are too old to matter; no state says the same and is shorter
            outlook = self._outlooks.renewed(stored, new, now, changed)
            return self._proposal(pieces, stored, new, outlook)

        self._change(events, propose)
        with self._client.pipeline(transaction=False) as pipeline:
            for entity in damaged:
                pipeline.execute_command(*hiding(self._key(entity)))
            pipeline.execute()
        return to_rebuild

    def rebuild(
        self,
        events: Mapping[str, Sequence[Event]],
        now: int,
        joined: Mapping[str, Mapping[str, int]] | None = None,
    ) -> None:
        """Replace the states of entities, damaged ones too, by states made from all their events.

        Events that were appended to a state go on waiting for the worker.

        Parameters
        ----------
        events
            by entity: all its events in the log, as far back as the definitions look.
        now, joined
            as for :meth:`update`.

        Raises
        ------
        StoreTimeoutError
            if other writers were faster again and again.
        """

        def propose(entity: str, raw: bytes | None) -> _Proposal:
            pieces, stored, waiting = _readable_parts(raw)
            judged = [event for event in events[entity] if waiting_digest(event) not in waiting]
            state = update(empty_state(self.requirements), judged, self.requirements)
            state = _joined(prune(state, self.requirements, now - CLOCK_SKEW), entity, joined)
            outlook = b"" if is_empty(state) else self._outlooks.of(state, now)
            return self._proposal(pieces, stored, state, outlook)

        self._change(events, propose)

    def _proposal(self, pieces: Collection[bytes], stored: bytes, new: EventState, outlook: bytes) -> _Proposal:
        encoded = b"" if is_empty(new) else encode_state(new, self.requirements) + outlook
        return stored, encoded, pieces_written(pieces, new, self.requirements)

    def _change(self, entities: Iterable[str], propose: Callable[[str, bytes | None], _Proposal | None]) -> None:
        """Replace states by compare-and-set; ``propose`` gives what is replaced by what, or None for no change."""
        names = iter(entities)
        while pending := list(islice(names, BATCH)):
            for attempt in range(_ATTEMPTS):
                proposals = []
                for entity, raw in zip(pending, self._get(pending), strict=True):
                    proposal = propose(entity, raw)
                    if proposal is not None:
                        proposals.append((entity, proposal))
                pending = self._replace(proposals)
                if not pending:
                    break
                time.sleep(random.uniform(0, min(_LONGEST_WAIT, 0.0005 * 2 ** min(attempt, 10))))  # noqa: S311 (no secret)
            else:
                raise StoreTimeoutError(
                    f"the event state of {len(pending)} entities was changed by others {_ATTEMPTS} times in a row",
                    hint="do very many writers send events of one entity? let fewer of them do it",
                )

    def _get(self, entities: Sequence[str]) -> list[bytes | None]:
        with self._client.pipeline(transaction=False) as pipeline:
            for entity in entities:
                pipeline.execute_command(*reading(self._key(entity)))
            raws: list[bytes | None] = pipeline.execute()
        return raws

    def _replace(self, proposals: Sequence[tuple[str, _Proposal]]) -> list[str]:
        """Replace old bytes by new ones. Return the entities whose bytes another writer changed meanwhile."""
        if not proposals:
            return []
        with self._client.pipeline(transaction=False) as pipeline:
            for entity, (old, new, pieces) in proposals:
                key = self._key(entity)
                pipeline.execute_command("EVAL", REPLACE, 2, key, pieces_key(key), old, new, self._lifetime, *pieces)
            done = pipeline.execute()
        return [entity for (entity, _), replaced in zip(proposals, done, strict=True) if not replaced]


def is_worth_pruning(old: EventState, new: EventState, keep_from: int, piece: int) -> bool:
    """Say whether to prune: not at every event, as it is slow, but before anything is kept a day too long.

    Parameters
    ----------
    old, new
        the state before and after events came.
    keep_from
        the instant as of which it would be pruned.
    piece
        how many events a piece has: twice as many outside of pieces are too many.
    """
    number = _events_of(new)
    step = PRUNE_EVERY if number < 4 * PRUNE_EVERY else 1 << number.bit_length() - 3
    if _events_of(old) // step != number // step or any(len(kept.ats) > 2 * piece for kept in new.kept):
        return True
    pruned_at = new.pruned_at
    if pruned_at is None:
        pruned_at = min([kept.ats[0] for kept in new.kept if kept.ats], default=keep_from)
    return keep_from - pruned_at > PRUNE_AFTER


def is_late(old: EventState, new: EventState) -> bool:
    """Say whether a state got an event that came too late for a total, perhaps for a second time."""
    return any(after.late > before.late for before, after in zip(old.kept, new.kept, strict=True))


def _readable_parts(raw: bytes | None) -> tuple[Collection[bytes], bytes, set[bytes]]:
    """Return the names of the pieces, the bytes to replace and the digests of the events behind them.

    If they are damaged all of the bytes are replaced.
    """
    pieces, rest = without_pieces(raw)
    try:
        stored, entries = split(rest)
        return pieces, stored, set(digests(entries))
    except StoreDataError:
        return pieces, rest, set()


def is_empty(state: EventState) -> bool:
    """Say whether a state holds nothing."""
    return not any(kept.number or kept.lost or kept.late or kept.settled is not None for kept in state.kept)


def differs(old: EventState, new: EventState) -> bool:
    """Say whether a state differs from the one that it was made from."""
    return old.joined != new.joined or any(map(operator.is_not, old.kept, new.kept))


def _joined(state: EventState, entity: str, joined: Mapping[str, Mapping[str, int]] | None) -> EventState:
    """Return a state that knows the ids whose events are part of it."""
    ids = (joined or {}).get(entity)
    return state if not ids else with_joined(state, ids)


def _events_of(state: EventState) -> int:
    return sum([kept.number for kept in state.kept])
