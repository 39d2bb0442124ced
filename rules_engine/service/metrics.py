"""Counts requests, for Prometheus. With several processes, whichever answers ``/metrics`` speaks for all of them."""

from __future__ import annotations

from collections import Counter as TallyOf
from collections.abc import Iterable
from functools import cache

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector

#: The environment variable by which prometheus_client keeps its counters in files that processes share.
SHARED = "PROMETHEUS_MULTIPROC_DIR"

_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


class RequestMetrics:
    """Holds the counters of one process. No label says anything about a single person.

    Parameters
    ----------
    shared
        the folder in which prometheus_client keeps the counters of several processes; None if this one is alone.

    >>> metrics = RequestMetrics()
    >>> metrics.answered("/livez", "GET", 200, 0.001)
    >>> [line for line in metrics.text().decode().splitlines() if line.startswith("segments_requests_total")]
    ['segments_requests_total{code="200",method="GET",route="/livez"} 1.0']
    """

    def __init__(self, shared: str | None = None) -> None:
        self._shared = shared
        self._registry = CollectorRegistry()
        labels = ("route", "method")
        self._requests = Counter("segments_requests", "Requests", (*labels, "code"), registry=self._registry)
        self._seconds = Histogram(
            "segments_request_seconds", "How long answers took", labels, registry=self._registry, buckets=_SECONDS
        )
        self._counter = cache(lambda route, method, code: self._requests.labels(route, method, str(code)))
        self._histogram = cache(self._seconds.labels)
        self._events = Counter("segments_events_reported", "Events", ("source", "outcome"), registry=self._registry)

    def answered(self, route: str, method: str, code: int, seconds: float) -> None:
        """Count a request by its route, and the time until its reply began."""
        self._counter(route, method, code).inc()
        self._histogram(route, method).observe(seconds)

    def reported(self, source: str, outcomes: Iterable[str]) -> None:
        """Count events by what became of them: ``taken``, or the code of the reason why they were refused."""
        for outcome, number in TallyOf(outcomes).items():
            self._events.labels(source, outcome).inc(number)

    def text(self) -> bytes:
        """Return all counters in Prometheus's text format."""
        if self._shared is None:
            return generate_latest(self._registry)
        shared = CollectorRegistry()
        MultiProcessCollector(shared, self._shared)  # type: ignore[no-untyped-call]  # it has no types
        return generate_latest(shared)
