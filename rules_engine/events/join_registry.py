"""The joins of a project in the store: who is joined to whom, decided in one step for all who report joins at once.

Two hashes, in one slot with the project's streams: ``segments:{PROJECT}:joins`` has the person and the instant of each
id that is joined; ``segments:{PROJECT}:join_heights`` has of each person how many joins follow one another below.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from rules_engine.events.joins import MAX_CHAIN, Join
from rules_engine.events.streams import FIELD, partition_of, stream_key
from rules_engine.redis.feast_layout import project_key

#: KEYS: the joins, the heights, the stream of the entity. ARGV: the entity, the person, the instant, the longest chain,
#: and an entry for the stream, added if the join is new ("" for none). Returns the join of the entity, "" for none, and
#: 1 if it is new. Of :meth:`rules_engine.events.joins.Joins.add` the same is true.
_TAKE = """\
local entity, person = ARGV[1], ARGV[2]
local present = redis.call('HGET', KEYS[1], entity)
if present then return {present, 0} end
local above, step = {}, person
while step do
  if step == entity then return {'', 0} end
  above[#above + 1] = step
  local join = redis.call('HGET', KEYS[1], step)
  step = join and string.sub(join, string.find(join, ' ', 1, true) + 1)
end
local height = tonumber(redis.call('HGET', KEYS[2], entity) or 0)
if height + #above > tonumber(ARGV[4]) then return {'', 0} end
for steps, id in ipairs(above) do
  if height + steps > tonumber(redis.call('HGET', KEYS[2], id) or 0) then
    redis.call('HSET', KEYS[2], id, height + steps)
  end
end
local join = ARGV[3] .. ' ' .. person
redis.call('HSET', KEYS[1], entity, join)
if ARGV[5] ~= '' then redis.call('XADD', KEYS[3], '*', ARGV[6], ARGV[5]) end
return {join, 1}"""


class JoinRegistry:
    """Makes the commands that read and take joins, and reads the answers.

    Parameters
    ----------
    project
        the name of Feast's project.
    """

    def __init__(self, project: str) -> None:
        self._project = project
        self._key = project_key(project, "joins")
        self._heights = project_key(project, "join_heights")

    def take(self, join: Join, entry: bytes = b"") -> tuple[Any, ...]:
        """Return the command that takes a join, and adds an entry to the stream of its entity if it is new."""
        keys = self._key, self._heights, stream_key(self._project, partition_of(join.entity))
        parts = encoded(join.entity), encoded(join.person), join.at, MAX_CHAIN, entry, FIELD
        return "EVAL", _TAKE, len(keys), *keys, *parts

    @staticmethod
    def taken(answer: Sequence[Any], entity: str) -> tuple[Join | None, bool]:
        """Return the join that an entity has by the answer to :meth:`take`, and whether it is new."""
        return _decoded(entity, answer[0]), bool(answer[1])

    def count(self) -> tuple[Any, ...]:
        """Return the command that counts all joins."""
        return "HLEN", self._key

    def read(self, entities: Sequence[str]) -> tuple[Any, ...]:
        """Return the command that reads the joins of some entities."""
        return "HMGET", self._key, *map(encoded, entities)

    @staticmethod
    def joins(entities: Sequence[str], answer: Sequence[bytes | None]) -> dict[str, Join]:
        """Return the joins that there are, by entity, from the answer to :meth:`read`."""
        pairs = zip(entities, answer, strict=True)
        return {entity: join for entity, raw in pairs if (join := _decoded(entity, raw)) is not None}

    def paths(self, client: Any, entities: Iterable[str]) -> dict[str, list[str]]:
        """Return of each joined entity the ids that its events pass: itself, the person it is joined to, and so on."""
        paths: dict[str, list[str]] = {}
        ends = {entity: entity for entity in entities}
        while ends:
            steps = list(dict.fromkeys(ends.values()))
            joins = self.joins(steps, client.execute_command(*self.read(steps)))
            ends = {entity: joins[end].person for entity, end in ends.items() if end in joins}
            for entity, person in ends.items():
                paths.setdefault(entity, [entity]).append(person)
        return paths


def encoded(entity: str) -> bytes:
    """Return an entity's key as the store has it."""
    return entity.encode("utf-8", "surrogatepass")


def _decoded(entity: str, raw: bytes | None) -> Join | None:
    if not raw:
        return None
    at, _, person = raw.partition(b" ")
    return Join(entity, person.decode("utf-8", "surrogatepass"), int(at))
