"""Leaves a sink alone after several failures in a row: nothing is sent for a while, then one action tries."""

from __future__ import annotations

import random
from enum import Enum

#: So many failures in a row open the circuit.
FAILURES = 5

FIRST_PAUSE = 1.0
LONGEST_PAUSE = 60.0


class Circuit(Enum):
    """Says whether a sink is used."""

    CLOSED = "closed"  # it works
    HALF_OPEN = "half-open"  # it failed, and one action tries
    OPEN = "open"  # it failed, and is left alone


def backoff(tries: int, first: float = FIRST_PAUSE, longest: float = LONGEST_PAUSE) -> float:
    """Return the seconds to wait after so many failed tries: twice as long each time, and not the same for all.

    >>> 0.5 <= backoff(1) <= 1, 30 <= backoff(50) <= 60
    (True, True)
    """
    pause = min(longest, first * 2.0 ** min(tries - 1, 30))
    return pause * random.uniform(0.5, 1.0)  # noqa: S311 - only so that not all come at once


class Breaker:
    """Keeps the circuit of one sink. Times are seconds of any clock that does not go back.

    >>> breaker = Breaker()
    >>> for _ in range(FAILURES): breaker.note(worked=0, failed=1, now=0.0)
    >>> breaker.state(0.1).value, breaker.state(2.0).value
    ('open', 'half-open')
    >>> breaker.note(worked=1, failed=0, now=2.0); breaker.state(2.0).value
    'closed'
    """

    def __init__(self) -> None:
        self._failures = 0
        self._opened = 0  # how often in a row
        self._until = -float("inf")

    def state(self, now: float) -> Circuit:
        """Return whether the sink is used now."""
        if now < self._until:
            return Circuit.OPEN
        return Circuit.HALF_OPEN if self._opened else Circuit.CLOSED

    @property
    def until(self) -> float:
        """Return when it may be tried once more."""
        return self._until

    def note(self, *, worked: int, failed: int, now: float, retry_after: float | None = None) -> None:
        """Take in what became of some actions: for how many the sink worked, and for how many it did not.

        ``retry_after`` is how many seconds it wants to be left alone.
        """
        if worked:
            self._failures = self._opened = 0
            self._until = -float("inf")
        elif failed:
            self._failures += failed
            if self._failures >= FAILURES or self._opened:
                self._opened += 1
                self._until = now + backoff(self._opened)
        if retry_after is not None:
            self._until = max(self._until, now + retry_after)
