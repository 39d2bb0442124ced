"""The metrics of a worker: its work, and how much waits in the store."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

from rules_engine.clock import SECOND, now_micros
from rules_engine.events.streams import PARTITIONS, stream_keys
from rules_engine.stream.timers import timers_key
from rules_engine.triggers.record import Outgoing, State, Transition, TriggerStep

if TYPE_CHECKING:
    from rules_engine.delivery.metrics import MetricsRegistry

#: Seconds between two reports of how much waits.
_EVERY = 5.0


class WorkerMetrics:
    """Updates metrics with the work of a worker; without metrics it does nothing.

    Parameters
    ----------
    metrics
        the metrics to update.
    project
        Feast's project name.
    is_live
        whether instants are those of the clock. In a project whose clock is fixed, nothing is late.
    """

    def __init__(self, metrics: MetricsRegistry | None, project: str, is_live: bool) -> None:
        self._metrics, self._is_live = metrics, is_live
        self._streams = stream_keys(project)
        self._timers = [timers_key(project, partition) for partition in range(PARTITIONS)]
        self._looked = -float("inf")

    def round(self, seconds: float, accepted: int, refused: int, published: Sequence[tuple[str, Outgoing]]) -> None:
        """Count a round, its events, and the transitions and trigger steps that followed."""
        if self._metrics is None:
            return
        self._metrics.round(seconds)
        self._metrics.events(accepted=accepted, refused=refused)
        outgoing = [item for _, item in published]
        moved = Counter(
            (transition.segment, transition.change.value)
            for transition in outgoing
            if isinstance(transition, Transition)
        )
        for (segment, change), number in moved.items():
            self._metrics.transitions(segment, change, number)
        steps = Counter(_step(step) for step in outgoing if isinstance(step, TriggerStep))
        for (trigger, state, reason), number in steps.items():
            self._metrics.trigger_steps(trigger, state, reason, number)
        if self._is_live:
            self._metrics.timers(lateness=_lateness(outgoing, now_micros()))

    def waiting(self, client: Any, partitions: int, on_store: Callable[[Callable[[], Any]], Any]) -> None:
        """Report every few seconds how many entries wait in the streams, and how many timers."""
        if self._metrics is None or time.monotonic() < self._looked + _EVERY:
            return
        self._looked = time.monotonic()
        self._metrics.partitions(partitions)
        answers: list[Any] = on_store(lambda: self._ask(client))
        lengths, first, timers = (answers[place::3] for place in range(3))
        oldest = min((int(entries[0][0].partition(b"-")[0]) for entries in first if entries), default=None)
        behind = 0.0 if oldest is None else now_micros() / SECOND - oldest / 1000
        self._metrics.stream(sum(lengths), behind)
        self._metrics.timers(pending=sum(timers))

    def _ask(self, client: Any) -> list[Any]:
        with client.pipeline(transaction=False) as pipeline:
            for stream, timers in zip(self._streams, self._timers, strict=True):
                pipeline.xlen(stream)
                pipeline.xrange(stream, count=1)
                pipeline.zcard(timers)
            return list(pipeline.execute())

    def store_failed(self) -> None:
        """Count that the store could not be used."""
        if self._metrics is not None:
            self._metrics.error("store")


def _step(step: TriggerStep) -> tuple[str, str, str]:
    return step.trigger, step.state.value, step.reason.value if step.reason is not None else ""


def _lateness(outgoing: Iterable[Outgoing], now: int) -> list[float]:
    """Return the lateness, in seconds, of triggers that fired and of memberships that changed by time."""
    dues = [step.due for step in outgoing if isinstance(step, TriggerStep) and step.state is State.FIRED]
    dues += [
        transition.at for transition in outgoing if isinstance(transition, Transition) and transition.cause == "timer"
    ]
    return [(now - due) / SECOND for due in dues]
