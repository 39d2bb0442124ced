"""The keys of an entity's event state in the store, and how a state is read and written together with its pieces."""

from __future__ import annotations

#: The script that reads what the store keeps of an entity's events, and in front of it the pieces, as they are
#: together: each of them behind the byte 247 and four bytes of length. KEYS: the state, its pieces.
READ = """\
local stored = redis.call('GET', KEYS[1])
if not stored then return false end
local parts = redis.call('HVALS', KEYS[2])
if #parts == 0 then return stored end
for place, piece in ipairs(parts) do parts[place] = struct.pack('<BI4', 247, #piece) .. piece end
return table.concat(parts) .. stored"""

#: The part of a script that writes the pieces of a state that was replaced. What it takes: the key of the pieces, the
#: lifetime of the state, and where in ARGV it is told: how many pieces are no longer needed, their names, and the name
#: and the bytes of each new one. Nothing is told of a state that has and had none.
WRITE_PIECES = """\
local function write_pieces(key, lifetime, at)
  if not ARGV[at] then return end
  local new = at + 1 + ARGV[at]
  for place = at + 1, new - 1 do redis.call('HDEL', key, ARGV[place]) end
  for place = new, #ARGV, 2 do redis.call('HSET', key, ARGV[place], ARGV[place + 1]) end
  if lifetime ~= '0' then redis.call('PEXPIRE', key, lifetime) end
end
"""


def pieces_key(key: bytes) -> bytes:
    """Return the key of the pieces of a state, which lies in the same slot.

    >>> pieces_key(b"{42}:events:0f")
    b'{42}:events:0f:pieces'
    """
    return key + b":pieces"


def reading(key: bytes) -> tuple[bytes | str, ...]:
    """Return the command that reads a state with its pieces, as they are together."""
    return "EVAL", READ, "2", key, pieces_key(key)
