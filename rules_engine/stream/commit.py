"""The state and the record of an entity, replaced together or not at all.

Both lie in the entity's slot: ``{KEY}:events:FINGERPRINT`` and ``{KEY}:triggers``, and so do the pieces of the state.
One script compares them with the bytes that were read and replaces all of them, so a worker that is killed leaves all
old or all new, and a worker that was overtaken changes nothing. Events that were reported meanwhile stay appended to
the state; those that the new state contains are removed, by the digests of their ids.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from rules_engine.events.state.stored import WRITE_PIECES, pieces_key
from rules_engine.redis.feast_layout import sibling_key
from rules_engine.redis.pipe import Command, Pipe, Script

#: The last part of a record's key.
RECORD = b"triggers"

#: KEYS: the state, the record, the pieces. ARGV: the state as it was read and the new one, the record as it was read
#: and the new one, the digests of events to remove, the lifetime of the state in milliseconds (0: no end), and what is
#: told of pieces. An absent value is the empty string. Events appended to the state are entries: the byte 245, four
#: bytes of length, a digest, the content.
_COMMIT = Script(
    WRITE_PIECES
    + """\
local stored = redis.call('GET', KEYS[1]) or ''
local at = #ARGV[1] + 1
local next_byte = string.byte(stored, at)
if string.sub(stored, 1, at - 1) ~= ARGV[1] or (next_byte and next_byte ~= 245) then return 0 end
if (redis.call('GET', KEYS[2]) or '') ~= ARGV[3] then return 0 end
local new = ARGV[2]
if next_byte then
  local remaining = {}
  while at <= #stored do
    local a, b, c, d = string.byte(stored, at + 1, at + 4)
    local ends = at + 13 + a + b * 256 + c * 65536 + d * 16777216
    if not string.find(ARGV[5], string.sub(stored, at + 5, at + 12), 1, true) then
      remaining[#remaining + 1] = string.sub(stored, at, ends - 1)
    end
    at = ends
  end
  new = new .. table.concat(remaining)
end
if new ~= stored then
  if new == '' then
    redis.call('DEL', KEYS[1])
  elseif ARGV[6] == '0' then
    redis.call('SET', KEYS[1], new)
  else
    redis.call('SET', KEYS[1], new, 'PX', ARGV[6])
  end
end
write_pieces(KEYS[3], ARGV[6], 7)
if ARGV[4] ~= ARGV[3] then
  if ARGV[4] == '' then redis.call('DEL', KEYS[2]) else redis.call('SET', KEYS[2], ARGV[4]) end
end
return 1"""
)


@dataclass(slots=True)
class StoredEntity:
    """The bytes that the store has of an entity: its state, its record, its waiting events. Each may be empty.

    ``pieces`` are the names of the pieces of the state.

    Do not change it, nor a :class:`Replacement`. They are not frozen because that makes them slower to create.
    """

    state: bytes = b""
    record: bytes = b""
    waiting: bytes = b""
    pieces: Collection[bytes] = ()


@dataclass(slots=True)
class Replacement:
    """The new bytes of an entity, and those that they replace.

    ``digests`` are of events that no longer wait, and ``pieces`` is what the script is told of pieces.
    """

    entity: str
    before: StoredEntity
    state: bytes
    record: bytes
    digests: bytes = b""
    pieces: Sequence[bytes | int] = ()


class Commits:
    """Writes states with records.

    Parameters
    ----------
    pipe
        the connection.
    key
        gives Feast's key of an entity.
    state_name
        the last part of a state's key.
    lifetime
        after how many milliseconds without a change a state is deleted; 0: never.
    """

    def __init__(self, pipe: Pipe, key: Callable[[str], bytes], state_name: bytes, lifetime: int = 0) -> None:
        self._lifetime = lifetime
        self._pipe = pipe
        self._key = key
        self._state_name = state_name

    def keys(self, entity: str) -> tuple[bytes, bytes]:
        """Return the keys of an entity's state and record."""
        key = self._key(entity)
        return sibling_key(key, self._state_name), sibling_key(key, RECORD)

    def write(self, changes: Sequence[Replacement], ahead: Iterable[Command] = ()) -> list[Replacement]:
        """Make changes. Return those that were not made because another worker had changed the entity.

        Parameters
        ----------
        ahead
            commands that have to be done before the changes.

        Raises
        ------
        StoreError
            if the store cannot be used; some changes may have been made then.
        """
        first = list(ahead)
        calls = [self._call(change) for change in changes]
        if first and not self._pipe.ordered:
            self._pipe.run(first)
            first = []
        answers: list[Any] = self._pipe.run([*first, *calls], [_COMMIT])[len(first) :]
        return [change for change, done in zip(changes, answers, strict=True) if not done]

    def _call(self, change: Replacement) -> Command:
        before = change.before
        arguments = before.state, change.state, before.record, change.record, change.digests, self._lifetime
        state, record = self.keys(change.entity)
        return self._pipe.call(_COMMIT, (state, record, pieces_key(state)), (*arguments, *change.pieces))
