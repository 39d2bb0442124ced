"""Metrics of a worker, for Prometheus. No label and no value is about a single entity."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest
from prometheus_client.exposition import start_http_server

from rules_engine.errors import ProjectError

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
_LATE = (0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 5.0, 30.0, 300.0, 3_600.0)
_CIRCUITS = ("closed", "half-open", "open")


class MetricsRegistry:
    """The metrics of one worker. Safe to share between threads.

    >>> metrics = MetricsRegistry()
    >>> metrics.events(accepted=3, refused=1)
    >>> metrics.value("segments_events_total", result="accepted")
    3.0
    """

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self._events = self._counter("segments_events", "Events taken from the stream", "result")
        self._transitions = self._counter("segments_transitions", "Memberships that changed", "segment", "change")
        self._steps = self._counter("segments_trigger_steps", "Steps of triggers", "trigger", "state", "reason")
        self._errors = self._counter("segments_errors", "Failures that the worker went on after", "kind")
        self._rounds = self._histogram("segments_round_seconds", "How long one round of the worker took", _SECONDS)
        self._waiting = self._gauge("segments_stream_waiting", "Events that wait for a worker")
        self._lag = self._gauge("segments_stream_lag_seconds", "How long the oldest event waits")
        self._partitions = self._gauge("segments_partitions", "Partitions that this worker serves")
        self._pending = self._gauge("segments_timers_pending", "Instants at which somebody is looked at again")
        self._lateness = self._histogram("segments_timer_lateness_seconds", "How late timers were looked at", _LATE)
        self._actions = self._counter("segments_actions", "Actions that left their queue", "sink", "result")
        self._tries = self._counter("segments_sink_tries", "Tries to deliver an action", "sink", "code")
        self._sending = self._histogram("segments_sink_seconds", "How long one batch took", _SECONDS, "sink")
        self._queued = self._gauge("segments_sink_waiting", "Actions that wait for a sink", "sink")
        self._circuit = self._gauge("segments_sink_circuit", "1 for the state of the sink's circuit", "sink", "state")
        self._kafka = self._counter("segments_kafka_messages", "Messages taken from Kafka", "result")
        self._kafka_lag = self._gauge("segments_kafka_lag", "Messages that wait in Kafka", "partition")

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(name, text, labels, registry=self.registry)

    def _gauge(self, name: str, text: str, *labels: str) -> Gauge:
        return Gauge(name, text, labels, registry=self.registry)

    def _histogram(self, name: str, text: str, buckets: tuple[float, ...], *labels: str) -> Histogram:
        return Histogram(name, text, labels, registry=self.registry, buckets=buckets)

    # --- the worker -------------------------------------------------------------------------------------------------

    def events(self, accepted: int = 0, refused: int = 0) -> None:
        """Count events that were taken."""
        for result, number in (("accepted", accepted), ("refused", refused)):
            if number:
                self._events.labels(result).inc(number)

    def transitions(self, segment: str, change: str, number: int = 1) -> None:
        """Count memberships that changed: ``change`` is ``enter``, ``exit`` or ``baseline``."""
        self._transitions.labels(segment, change).inc(number)

    def trigger_steps(self, trigger: str, state: str, reason: str = "", number: int = 1) -> None:
        """Count steps of a trigger: ``state`` is ``pending``, ``fired``, ``cancelled`` or ``suppressed``."""
        self._steps.labels(trigger, state, reason).inc(number)

    def error(self, kind: str) -> None:
        """Count a failure after which the worker goes on: ``store``, ``kafka``."""
        self._errors.labels(kind).inc()

    def round(self, seconds: float) -> None:
        """Add the duration of a round of the worker."""
        self._rounds.observe(seconds)

    def stream(self, waiting: int, oldest_seconds: float) -> None:
        """Set how many events wait, and how long the oldest does."""
        self._waiting.set(waiting)
        self._lag.set(max(0.0, oldest_seconds))

    def partitions(self, number: int) -> None:
        """Set how many partitions the worker serves."""
        self._partitions.set(number)

    def timers(self, pending: int | None = None, lateness: Iterable[float] = ()) -> None:
        """Set how many timers wait, and add by how many seconds some were late."""
        if pending is not None:
            self._pending.set(pending)
        for seconds in lateness:
            self._lateness.observe(max(0.0, seconds))

    # --- delivery ---------------------------------------------------------------------------------------------------

    def sent(self, sink: str, seconds: float, codes: Iterable[str]) -> None:
        """Count a batch that was tried."""
        self._sending.labels(sink).observe(seconds)
        for code in codes:
            if code != "behind":
                self._tries.labels(sink, code).inc()

    def settled(self, sink: str, counts: tuple[int, int]) -> None:
        """Count actions that left their queue: delivered, and given up."""
        for result, number in zip(("delivered", "given_up"), counts, strict=True):
            if number:
                self._actions.labels(sink, result).inc(number)

    def waiting(self, sink: str, number: int) -> None:
        """Set how many actions wait for a sink."""
        self._queued.labels(sink).set(number)

    def circuit(self, sink: str, state: str) -> None:
        """Set the state of a sink's circuit."""
        for circuit in _CIRCUITS:
            self._circuit.labels(sink, circuit).set(float(circuit == state))

    # --- the Kafka bridge -------------------------------------------------------------------------------------------

    def kafka(self, taken: int = 0, refused: int = 0, repeated: int = 0) -> None:
        """Count messages that were taken from Kafka."""
        for result, number in (("taken", taken), ("refused", refused), ("known", repeated)):
            if number:
                self._kafka.labels(result).inc(number)

    def kafka_lag(self, partition: int, messages: int) -> None:
        """Set how many messages wait in a partition; 0 if another bridge has it by now."""
        self._kafka_lag.labels(str(partition)).set(messages)

    # --- reading ----------------------------------------------------------------------------------------------------

    def value(self, name: str, **labels: str) -> float | None:
        """Return the value of one sample; None if there is none."""
        return self.registry.get_sample_value(name, labels)

    def text(self) -> str:
        """Return all metrics in Prometheus' text format."""
        return generate_latest(self.registry).decode()

    def serve(self, port: int, host: str = "127.0.0.1") -> MetricsEndpoint:
        """Answer ``GET /metrics`` in a thread until the endpoint is closed.

        Raises
        ------
        ProjectError
            if the port cannot be used.
        """
        try:
            return MetricsEndpoint(*start_http_server(port, addr=host, registry=self.registry))
        except OSError as error:
            hint = "is another program, or another worker, using it? choose another port"
            raise ProjectError(f"metrics cannot be served at {host}:{port}: {error.strerror}", hint=hint) from None


class MetricsEndpoint:
    """Answers HTTP requests with metrics."""

    def __init__(self, server: Any, thread: Any) -> None:
        self._server, self._thread = server, thread

    @property
    def port(self) -> int:
        """Return the port, which the system chose if port 0 was given."""
        return int(self._server.server_port)

    def close(self) -> None:
        """Stop answering."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(timeout=5)
