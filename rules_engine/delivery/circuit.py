"""The circuit breaker of a sink: after several failures in a row it pauses sending, then tries a single action."""

from __future__ import annotations

import random
from enum import Enum

#: The number of failures in a row that opens the circuit.
FAILURES = 5

#: The first and the longest pause, in seconds.
FIRST_PAUSE = 1.0
LONGEST_PAUSE = 60.0


class Circuit(Enum):
    """The states of a circuit."""

    CLOSED = "closed"  # the sink works
    HALF_OPEN = "half-open"  # it failed, and a single action is tried
    OPEN = "open"  # it failed, and nothing is sent


def backoff(tries: int, first: float = FIRST_PAUSE, longest: float = LONGEST_PAUSE) -> float:
    """Return the seconds to wait after so many failed tries: doubled with each try, with random jitter.

    >>> 0.5 <= backoff(1) <= 1, 30 <= backoff(50) <= 60
    (True, True)
    """
    pause = min(longest, first * 2.0 ** min(tries - 1, 30))
    return pause * random.uniform(0.5, 1.0)  # noqa: S311 - jitter, no secret


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
        self._opened = 0  # the number of times in a row
        self._until = -float("inf")

    def state(self, now: float) -> Circuit:
        """Return the state of the circuit."""
        if now < self._until:
            return Circuit.OPEN
        return Circuit.HALF_OPEN if self._opened else Circuit.CLOSED

    @property
    def until(self) -> float:
        """Return the end of the pause."""
        return self._until

    def note(self, *, worked: int, failed: int, now: float, retry_after: float | None = None) -> None:
        """Note for how many actions the sink worked, and for how many it failed.

        ``retry_after`` is the pause in seconds that the sink has requested.
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
