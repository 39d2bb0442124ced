"""Looks at all entities in chunks, between a worker's other work."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from typing import Any

from rules_engine.events.looks import sweeps_key, swept_key
from rules_engine.events.streams import partition_of
from rules_engine.redis.feast_layout import KeyMaker
from rules_engine.stream.entity_steps import EntitySteps
from rules_engine.stream.sweep import AllEntities, Place, Sweep, Swept, next_sweep, server_name
from rules_engine.stream.timers import Timers
from rules_engine.stream.work import Work


class Sweeper:
    """Does the requested sweeps for the partitions that a worker holds.

    Parameters
    ----------
    steps
        takes entities through their steps.
    timers
        the project's timers.
    client
        a redis-py client.
    project
        the name of Feast's project.
    key
        makes Feast's keys.
    """

    def __init__(self, steps: EntitySteps, timers: Timers, client: Any, project: str, key: KeyMaker) -> None:
        self._steps = steps
        self._timers = timers
        self._client = client
        self._project = project
        self._key = key
        self._swept: dict[int, Swept] = {}
        self._sweep: Sweep | None = None
        self._leases: Mapping[int, bytes] = {}
        self._all_entities: AllEntities | None = None
        self._server = ""

    def segments(self, partition: int) -> Collection[str]:
        """Return the segments for which all entities of a partition were looked at once."""
        return self._of(partition).segments

    def take(self, leases: Mapping[int, bytes]) -> None:
        """Read which sweeps were done in these partitions. Call it before any other work on them.

        Raises
        ------
        redis.RedisError
            if the store cannot be used.
        """
        if leases == self._leases:
            return
        self._sweep = None  # continue from the noted place, with the present partitions
        self._swept = self._stored()
        self._leases = dict(leases)

    def step(self, untils: Mapping[int, int], leases: Mapping[int, bytes]) -> int:
        """Look at some entities if a sweep is requested. Return how many, at least 1 during a sweep.

        Parameters
        ----------
        untils
            by partition: all events that arrived before this instant are done.
        leases
            the partitions that the worker holds.

        Raises
        ------
        redis.RedisError, StoreError
            if the store cannot be used.
        """
        if self._sweep is None:
            self._sweep = self._next_of(self._swept, leases)
            if self._sweep is None:
                return 0
            self._all_entities = self._begin(self._sweep)
        assert self._all_entities is not None
        try:
            return self._chunk(self._sweep, self._all_entities, untils, leases)
        except BaseException:
            self._sweep = None
            raise

    def _chunk(
        self, sweep: Sweep, entities_of: AllEntities, untils: Mapping[int, int], leases: Mapping[int, bytes]
    ) -> int:
        entities = entities_of.chunk()
        if entities is None:
            self._note(sweep)
            self._sweep = None
            return 1
        works = []
        for entity in entities:
            partition = partition_of(entity)
            work = Work(entity, partition, untils[partition], look=sweep.cause, views=sweep.views)
            works.append(work)
        dues = self._steps.do(works, self.segments).dues
        settled = [self._timers.settle(partition, leases[partition], instants) for partition, instants in dues.items()]
        if all(settled):
            self._note_place(sweep, entities_of.cursor)
        else:  # a partition is another worker's by now, who does it again
            self._sweep = None
        return max(1, len(works))

    def _begin(self, sweep: Sweep) -> AllEntities:
        """Begin a sweep, or go on where an earlier worker was, if the server is the same."""
        self._server = server_name(self._client)
        is_valid = sweep.place is not None and self._server and sweep.place.server == self._server
        cursor = sweep.place.cursor if sweep.place is not None and is_valid else 0
        return AllEntities(self._client, self._key, sweep.partitions, cursor)

    def _note_place(self, sweep: Sweep, cursor: int | None) -> None:
        """Note how far a sweep is."""
        if not cursor or not self._server:
            return
        place = Place(sweep.number, self._steps.rules.fingerprint, self._server, cursor)
        self._keep({partition: replace(self._of(partition), place=place) for partition in sweep.partitions})

    def _of(self, partition: int) -> Swept:
        return self._swept.get(partition, Swept())

    def _keep(self, swept: Mapping[int, Swept]) -> None:
        self._swept.update(swept)
        mapping = {partition: done.encode() for partition, done in swept.items()}
        self._client.hset(swept_key(self._project), mapping=mapping)

    def is_done_by(self, others: Collection[int]) -> bool:
        """Tell whether no sweep is left to do in partitions that other workers hold.

        Raises
        ------
        redis.RedisError
            if the store cannot be used.
        """
        return not others or self._next_of(self._stored(), others) is None

    def _stored(self) -> dict[int, Swept]:
        stored = self._client.hgetall(swept_key(self._project))
        return {int(partition): Swept.decode(data) for partition, data in stored.items()}

    def _next_of(self, swept: Mapping[int, Swept], partitions: Iterable[int]) -> Sweep | None:
        rules = self._steps.rules
        if not rules.names and not rules.triggers:
            return None
        entries = self._client.xrange(sweeps_key(self._project))
        requests = [(identity, fields[b"sweep"]) for identity, fields in entries]
        return next_sweep(requests, swept, rules.fingerprint, partitions)

    def _note(self, sweep: Sweep) -> None:
        """Note that a sweep was done. A sweep of all views was for all present segments, and replaces earlier notes."""
        rules, done = self._steps.rules, {}
        for partition in sweep.partitions:
            before = self._of(partition)
            if sweep.views is None:
                before = Swept(segments=frozenset(rules.names), rules=rules.fingerprint)
            done[partition] = replace(before, number=sweep.number, place=None)
        self._keep(done)
