"""Tells how much waits for the workers, as the store has it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from rules_engine.clock import SECOND, now_micros
from rules_engine.events.streams import stream_keys
from rules_engine.stream.timers import timers_key


@dataclass(frozen=True, slots=True)
class Backlog:
    """Counts what waits.

    Attributes
    ----------
    events
        the entries in the streams.
    seconds
        for how long the oldest of them waits.
    timers
        the instants at which an entity is looked at.
    """

    events: int
    seconds: float
    timers: int


def read_backlog(client: Any, project: str) -> Backlog:
    """Read what waits for the workers of a project.

    Parameters
    ----------
    client
        a redis-py client.
    project
        Feast's name of the project.
    """
    with client.pipeline(transaction=False) as pipeline:
        for partition, stream in enumerate(stream_keys(project)):
            pipeline.xlen(stream)
            pipeline.xrange(stream, count=1)
            pipeline.zcard(timers_key(project, partition))
        answers: list[Any] = pipeline.execute()
    lengths, first, timers = (answers[place::3] for place in range(3))
    oldest = min((int(entries[0][0].partition(b"-")[0]) for entries in first if entries), default=None)
    seconds = 0.0 if oldest is None else max(0.0, now_micros() / SECOND - oldest / 1000)
    return Backlog(sum(lengths), seconds, sum(timers))
