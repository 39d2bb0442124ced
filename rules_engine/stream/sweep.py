"""Looking at all entities: after features changed outside of the stream, and when there are new definitions.

Who changes features notes it with :func:`request`. The workers then go through all entities of the store, chunk by
chunk between their other work, and each looks at those of its partitions. When a worker is through, that is noted for
its partitions; a worker that is killed before leaves it to the next one, which begins anew. Looking twice changes
nothing.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any

import orjson

from rules_engine.events.looks import MAX_SWEEPS, encode_sweep, sweeps_key
from rules_engine.events.streams import partition_of
from rules_engine.redis.feast_layout import KeyMaker, sibling_key
from rules_engine.stream.commit import RECORD

#: What new definitions have as the cause of a sweep.
NEW_SEGMENTS = "apply"

#: Keys that are gone through at once.
CHUNK = 1_000


def request(client: Any, project: str, cause: str, views: Iterable[str] | None = None) -> None:
    """Have everybody looked at again.

    Parameters
    ----------
    client
        a redis-py client.
    cause
        what changed, e.g. ``materialize``, ``cluster`` or ``ingest``. Transitions have it as their cause.
    views
        the feature views that changed; None for anything.

    Raises
    ------
    redis.RedisError
        if the store cannot be written.
    """
    content = encode_sweep(cause, views)
    client.execute_command("XADD", sweeps_key(project), "MAXLEN", MAX_SWEEPS, "*", "sweep", content)


@dataclass(frozen=True, slots=True)
class Sweep:
    """A look at all entities of some partitions: why, for which views, and up to which request it does all."""

    partitions: frozenset[int]
    cause: str
    views: frozenset[str] | None
    number: str


@dataclass(frozen=True, slots=True)
class Swept:
    """The last sweep that was done in a partition.

    Attributes
    ----------
    number
        the last request that was done.
    segments, rules
        the segments that everybody was looked at for, by the definitions with this fingerprint.
    """

    number: str = "0-0"
    segments: frozenset[str] = frozenset()
    rules: int | None = None

    @classmethod
    def decode(cls, data: bytes | None) -> Swept:
        """Decode what the store has."""
        if data is None:
            return cls()
        number, segments, rules = orjson.loads(data)
        return cls(number, frozenset(segments), rules)

    def encode(self) -> bytes:
        """Encode it for the store."""
        return orjson.dumps([self.number, sorted(self.segments), self.rules])


def next_sweep(
    requests: Iterable[tuple[bytes, Any]], swept: Mapping[int, Swept], rules: int, held: Iterable[int]
) -> Sweep | None:
    """Return the next sweep of the partitions that a worker holds; None if all is done.

    >>> asked = [(b"5-0", b'{"cause": "materialize", "views": ["user"]}')]
    >>> next_sweep(asked, {0: Swept("5-0", rules=7), 1: Swept("4-0", rules=7)}, 7, [0, 1])
    Sweep(partitions=frozenset({1}), cause='materialize', views=frozenset({'user'}), number='5-0')
    >>> next_sweep([], {}, 7, [3])
    Sweep(partitions=frozenset({3}), cause='apply', views=None, number='0-0')
    """
    found = [(identity.decode(), orjson.loads(content)) for identity, content in requests]
    groups: dict[str, set[int]] = {}
    for partition in held:
        groups.setdefault(swept.get(partition, Swept()).number, set()).add(partition)
    for number, partitions in sorted(groups.items(), key=lambda group: _order(group[0])):
        later = [(one, content) for one, content in found if _order(one) > _order(number)]
        lacking = {one for one in partitions if swept.get(one, Swept()).rules != rules}
        last = later[-1][0] if later else number
        if lacking:
            return Sweep(frozenset(lacking), NEW_SEGMENTS, None, last)
        if later:
            views = [content["views"] for _, content in later]
            together = None if None in views else frozenset(view for one in views for view in one)
            return Sweep(frozenset(partitions), later[-1][1]["cause"], together, last)
    return None


def _order(number: str) -> tuple[int, int]:
    first, _, second = number.partition("-")
    return int(first), int(second)


class AllEntities:
    """The entities of some partitions, chunk by chunk, each once or more often.

    An entity is found by what Feast wrote, else by its record, else by its event state.

    Parameters
    ----------
    client
        a redis-py client.
    key
        makes Feast's keys.
    partitions
        whose entities are wanted.
    """

    def __init__(self, client: Any, key: KeyMaker, partitions: Collection[int]) -> None:
        self._client = client
        self._key = key
        self._partitions = partitions
        self._keys: Iterator[bytes] = client.scan_iter(count=CHUNK)

    def chunk(self) -> list[str] | None:
        """Return some entities, perhaps none; None when all were given.

        Raises
        ------
        redis.RedisError
            if the store cannot be read.
        """
        keys = list(islice(self._keys, CHUNK))
        if not keys:
            return None
        found: dict[str, bytes | None] = {}
        for key in keys:
            entity, ahead = self._entity(key)
            if entity is not None and partition_of(entity) in self._partitions:
                found[entity] = ahead if entity not in found else None
        asked = [(entity, ahead) for entity, ahead in found.items() if ahead is not None]
        known = self._known([key for _, key in asked])
        doubled = {entity for (entity, _), is_known in zip(asked, known, strict=True) if is_known}
        return [entity for entity in found if entity not in doubled]

    def _entity(self, key: bytes) -> tuple[str | None, bytes | None]:
        """Return the entity of a key, and the key by which a sweep finds the entity instead, if that one exists."""
        if not key.startswith(b"{"):
            return self._key.entity(key), None
        feast, _, name = key[1:].rpartition(b"}:")
        entity = self._key.entity(feast)
        if entity is None:
            return None, None
        return entity, feast if name == RECORD else sibling_key(feast, RECORD)

    def _known(self, keys: list[bytes]) -> list[bool]:
        if not keys:
            return []
        with self._client.pipeline(transaction=False) as pipeline:
            for key in keys:
                pipeline.exists(key)
            return [bool(found) for found in pipeline.execute()]
