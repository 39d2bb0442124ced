"""The state and the record of an entity, replaced together or not at all.

Both lie in the entity's slot: ``{KEY}:events:FINGERPRINT`` and ``{KEY}:triggers``. One script compares them with what
was read and replaces them, so that a worker that is killed leaves both old or both new, and one that was overtaken
changes nothing. Events that were reported meanwhile wait behind the state and stay there; those that the new state has
are taken out, by the digests of their ids.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from rules_engine.redis.feast_layout import sibling_key
from rules_engine.redis.pipe import Command, Pipe, Script

#: What ends the key of a record.
RECORD = b"triggers"

#: KEYS: the state, the record. ARGV: state and record as they were read and as they are to be, digests that are to
#: leave, after how many milliseconds the state says nothing any more (0: never). What is not there is the empty string.
#: Behind the state lie entries: 245, four bytes of length, a digest, a content.
_COMMIT = Script("""\
local held = redis.call('GET', KEYS[1]) or ''
local at = #ARGV[1] + 1
local behind = string.byte(held, at)
if string.sub(held, 1, at - 1) ~= ARGV[1] or (behind and behind ~= 245) then return 0 end
if (redis.call('GET', KEYS[2]) or '') ~= ARGV[3] then return 0 end
local new = ARGV[2]
if behind then
  local kept = {}
  while at <= #held do
    local a, b, c, d = string.byte(held, at + 1, at + 4)
    local ends = at + 13 + a + b * 256 + c * 65536 + d * 16777216
    if not string.find(ARGV[5], string.sub(held, at + 5, at + 12), 1, true) then
      kept[#kept + 1] = string.sub(held, at, ends - 1)
    end
    at = ends
  end
  new = new .. table.concat(kept)
end
if new ~= held then
  if new == '' then
    redis.call('DEL', KEYS[1])
  elseif ARGV[6] == '0' then
    redis.call('SET', KEYS[1], new)
  else
    redis.call('SET', KEYS[1], new, 'PX', ARGV[6])
  end
end
if ARGV[4] ~= ARGV[3] then
  if ARGV[4] == '' then redis.call('DEL', KEYS[2]) else redis.call('SET', KEYS[2], ARGV[4]) end
end
return 1""")


@dataclass(slots=True)
class StoredEntity:
    """The bytes that the store has of an entity: its state, its record, the events that wait. Each may be empty.

    Not to be changed, as is a :class:`Replacement`; frozen they would take longer to make.
    """

    state: bytes = b""
    record: bytes = b""
    waiting: bytes = b""


@dataclass(slots=True)
class Replacement:
    """The bytes that replace those that were read. ``digests`` are of events that need not wait any more."""

    entity: str
    before: StoredEntity
    state: bytes
    record: bytes
    digests: bytes = b""


class Commits:
    """Writes states with records.

    Parameters
    ----------
    pipe
        the connection.
    key
        gives Feast's key of an entity.
    state_name
        what ends the key of a state.
    lifetime
        after how many milliseconds a state says nothing any more, and is dropped; 0: it always does.
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
        """Make changes; gives those that others were faster at.

        Parameters
        ----------
        ahead
            what has to be in the store before.

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
        return self._pipe.call(_COMMIT, self.keys(change.entity), arguments)
