"""The script that writes rows of feature views, each unless a newer one of its entity is stored."""

from __future__ import annotations

#: KEYS: the rows' keys. ARGV: seconds until a key expires or 0, fields of a row, each row's fields with their values. A
#: row's first field is its timestamp, a google.protobuf.Timestamp. Lua unpacks at most 8,000 values at once.
WRITE_ROWS = """\
local function number(bytes, at)  -- a negative one takes ten bytes; its complement is small, and exact in Lua's floats
  local value, complement, weight = 0, 0, 1
  for i = at, at + 8 do
    local byte = string.byte(bytes, i)
    value = value + (byte % 128) * weight
    complement = complement + (127 - byte % 128) * weight
    weight = weight * 128
    if byte < 128 then return value, i + 1 end
  end
  return -1 - complement, at + 10
end

local function instant(bytes)
  local seconds, nanos, at = 0, 0, 1
  while at <= #bytes do
    local tag = string.byte(bytes, at)
    if tag == 8 then seconds, at = number(bytes, at + 1) else nanos, at = number(bytes, at + 1) end
  end
  return seconds, nanos
end

local function newer(stored, given)
  local seconds, nanos = instant(stored)
  local given_seconds, given_nanos = instant(given)
  return seconds > given_seconds or (seconds == given_seconds and nanos > given_nanos)
end

local expire, width, at, written = tonumber(ARGV[1]), 2 * tonumber(ARGV[2]), 2, 0
for _, key in ipairs(KEYS) do
  local given = ARGV[at + 2]
  local stored = redis.call('HGET', key, ARGV[at + 1])
  if not stored or stored == given or not newer(stored, given) then
    for first = at + 1, at + width, 4000 do
      redis.call('HSET', key, unpack(ARGV, first, math.min(first + 3999, at + width)))
    end
    if expire > 0 then redis.call('EXPIRE', key, expire) end
    written = written + 1
  end
  at = at + width
end
return written
"""
