"""Sweeps: looks at all entities, after features changed outside of the stream and when there are new definitions.

A command that changes features requests a sweep with :func:`request`. The workers then go through all entities of the
store, in chunks between their other work, and each looks at those of its partitions. After each chunk a worker notes
the cursor of the server's ``SCAN``; if it is killed, the next worker continues from there. Looking twice changes
nothing. A cursor is valid for one run of one server: after a restart, and in a cluster, a sweep starts anew.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import astuple, dataclass, replace
from itertools import islice
from typing import Any

import orjson

from rules_engine.events.looks import MAX_SWEEPS, encode_sweep, sweeps_key
from rules_engine.events.streams import partition_of
from rules_engine.redis.feast_layout import KeyMaker, sibling_key
from rules_engine.stream.commit import RECORD

#: The cause of a sweep for new definitions.
NEW_SEGMENTS = "apply"

#: The number of keys that are scanned at once.
CHUNK = 1_000


def request(client: Any, project: str, cause: str, views: Iterable[str] | None = None) -> None:
    """Request a look at all entities.

    Parameters
    ----------
    client
        a redis-py client.
    cause
        the command that changed something, e.g. ``materialize``, ``cluster`` or ``ingest``; the cause of transitions.
    views
        the feature views that changed; None: everything may have changed.

    Raises
    ------
    redis.RedisError
        if the store cannot be written.
    """
    content = encode_sweep(cause, views)
    client.execute_command("XADD", sweeps_key(project), "MAXLEN", MAX_SWEEPS, "*", "sweep", content)


@dataclass(frozen=True, slots=True)
class Place:
    """Holds how far a sweep is: the last request that it does, its definitions, and the cursor of a server."""

    number: str
    rules: int
    server: str
    cursor: int


@dataclass(frozen=True, slots=True)
class Sweep:
    """A look at all entities of some partitions.

    Attributes
    ----------
    cause, views
        why, and for which views; None for anything.
    number
        up to which request it does all.
    place
        how far an earlier worker came; None if it begins.
    """

    partitions: frozenset[int]
    cause: str
    views: frozenset[str] | None
    number: str
    place: Place | None = None


@dataclass(frozen=True, slots=True)
class Swept:
    """The last sweep that was done in a partition.

    Attributes
    ----------
    number
        the last request that was done.
    segments, rules
        the segments that all entities were looked at for, by the definitions with this fingerprint.
    place
        how far the sweep is that comes after it; None if that has not begun.
    """

    number: str = "0-0"
    segments: frozenset[str] = frozenset()
    rules: int | None = None
    place: Place | None = None

    @classmethod
    def decode(cls, data: bytes | None) -> Swept:
        """Decode the stored form."""
        if data is None:
            return cls()
        number, segments, rules, *place = orjson.loads(data)
        return cls(number, frozenset(segments), rules, Place(*place) if place else None)

    def encode(self) -> bytes:
        """Encode it for the store."""
        place = () if self.place is None else astuple(self.place)
        return orjson.dumps([self.number, sorted(self.segments), self.rules, *place])


def next_sweep(
    requests: Iterable[tuple[bytes, Any]], swept: Mapping[int, Swept], rules: int, owned: Iterable[int]
) -> Sweep | None:
    """Return the next sweep of the partitions that a worker holds; None if there is nothing to do.

    Of partitions in which it has begun already those come first that are equally far.

    >>> requests = [(b"5-0", b'{"cause": "materialize", "views": ["user"]}')]
    >>> next_sweep(requests, {0: Swept("5-0", rules=7), 1: Swept("4-0", rules=7)}, 7, [0, 1])
    Sweep(partitions=frozenset({1}), cause='materialize', views=frozenset({'user'}), number='5-0', place=None)
    >>> next_sweep([], {}, 7, [3])
    Sweep(partitions=frozenset({3}), cause='apply', views=None, number='0-0', place=None)
    """
    numbered = [(identity.decode(), orjson.loads(content)) for identity, content in requests]
    groups: dict[str, set[int]] = {}
    for partition in owned:
        groups.setdefault(swept.get(partition, Swept()).number, set()).add(partition)
    for number, partitions in sorted(groups.items(), key=lambda group: _order(group[0])):
        later = [(request, content) for request, content in numbered if _order(request) > _order(number)]
        lacking = {partition for partition in partitions if swept.get(partition, Swept()).rules != rules}
        last = later[-1][0] if later else number
        if lacking:
            return _equally_far(Sweep(frozenset(lacking), NEW_SEGMENTS, None, last), swept, rules)
        if later:
            views = [content["views"] for _, content in later]
            together = None if None in views else frozenset(view for changed in views for view in changed)
            return _equally_far(Sweep(frozenset(partitions), later[-1][1]["cause"], together, last), swept, rules)
    return None


def _equally_far(sweep: Sweep, swept: Mapping[int, Swept], rules: int) -> Sweep:
    """Return the sweep of those of its partitions in which it is furthest."""
    groups: dict[Place | None, set[int]] = {}
    for partition in sweep.partitions:
        place = swept.get(partition, Swept()).place
        is_of_it = place is not None and (place.number, place.rules) == (sweep.number, rules)
        groups.setdefault(place if is_of_it else None, set()).add(partition)
    place, partitions = max(groups.items(), key=lambda group: (group[0] is not None, min(group[1])))
    return replace(sweep, partitions=frozenset(partitions), place=place)


def server_name(client: Any) -> str:
    """Return what names a server until it is restarted; nothing for a cluster, whose cursors are of many servers."""
    return "" if is_cluster(client) else str(client.info("server")["run_id"])


def is_cluster(client: Any) -> bool:
    """Tell whether a client of redis-py is one of a cluster."""
    import redis

    return isinstance(client, redis.RedisCluster)


def _order(number: str) -> tuple[int, int]:
    first, _, second = number.partition("-")
    return int(first), int(second)


class AllEntities:
    """The entities of some partitions, in chunks, each at least once.

    An entity is recognized by the key of its features, else by that of its record, else by that of its event state.

    Parameters
    ----------
    client
        a redis-py client.
    key
        makes Feast's keys.
    partitions
        the partitions whose entities are returned.
    cursor
        where to go on, if that is known.

    Attributes
    ----------
    cursor
        where to go on after the chunks that were given; None where that cannot be said.
    """

    def __init__(self, client: Any, key: KeyMaker, partitions: Collection[int], cursor: int = 0) -> None:
        self._client = client
        self._key = key
        self._partitions = partitions
        self._is_over = False
        self._all_keys: Iterator[bytes] | None = client.scan_iter(count=CHUNK) if is_cluster(client) else None
        self.cursor = None if self._all_keys else cursor

    def _keys(self) -> list[bytes] | None:
        """Return some keys, perhaps none; None when all were given."""
        if self._all_keys is not None:
            return list(islice(self._all_keys, CHUNK)) or None
        if self._is_over:
            return None
        self.cursor, keys = self._client.scan(self.cursor, count=CHUNK)
        self._is_over = self.cursor == 0
        return list(keys)

    def chunk(self) -> list[str] | None:
        """Return the next entities, perhaps none; None at the end.

        Raises
        ------
        redis.RedisError
            if the store cannot be read.
        """
        keys = self._keys()
        if keys is None:
            return None
        sweep_keys: dict[str, bytes | None] = {}
        for key in keys:
            entity, ahead = self._entity(key)
            if entity is not None and partition_of(entity) in self._partitions:
                sweep_keys[entity] = ahead if entity not in sweep_keys else None
        candidates = [(entity, ahead) for entity, ahead in sweep_keys.items() if ahead is not None]
        exist = self._exist([key for _, key in candidates])
        doubled = {entity for (entity, _), is_known in zip(candidates, exist, strict=True) if is_known}
        return [entity for entity in sweep_keys if entity not in doubled]

    def _entity(self, key: bytes) -> tuple[str | None, bytes | None]:
        """Return the entity of a key, and the key that stands for the entity instead if it exists."""
        if not key.startswith(b"{"):
            return self._key.entity(key), None
        feast, _, name = key[1:].rpartition(b"}:")
        entity = self._key.entity(feast)
        if entity is None:
            return None, None
        return entity, feast if name == RECORD else sibling_key(feast, RECORD)

    def _exist(self, keys: list[bytes]) -> list[bool]:
        if not keys:
            return []
        with self._client.pipeline(transaction=False) as pipeline:
            for key in keys:
                pipeline.exists(key)
            return [bool(exists) for exists in pipeline.execute()]
