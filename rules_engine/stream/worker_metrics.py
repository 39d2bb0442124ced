"""The metrics of a worker: its work, and how much waits in the store."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

from rules_engine.clock import SECOND, now_micros
from rules_engine.stream.backlog import Backlog, read_backlog
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
        self._project = project
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

    def waiting(self, client: Any, partitions: int, on_store: Callable[[Callable[[], Backlog]], Backlog]) -> None:
        """Report every few seconds how many entries wait in the streams, and how many timers."""
        if self._metrics is None or time.monotonic() < self._looked + _EVERY:
            return
        self._looked = time.monotonic()
        self._metrics.partitions(partitions)
        backlog = on_store(lambda: read_backlog(client, self._project))
        self._metrics.stream(backlog.events, backlog.seconds)
        self._metrics.timers(pending=backlog.timers)

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
