"""Delivery of actions: a worker starts one :class:`Delivery`, and hands what fired over with :func:`enqueue`."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rules_engine.delivery.courier import LEASE, Courier
from rules_engine.delivery.queues import Enqueued, confirm, enqueue
from rules_engine.sinks.settings import SinkSettings

if TYPE_CHECKING:
    from rules_engine.delivery.metrics import MetricsRegistry

_log = logging.getLogger("rules_engine.delivery")


class Delivery:
    """Serves the sinks of a project, each in a thread of its own: one that is down delays only itself.

    Several workers may run it; each sink is served by one of them, and by another in seconds if that one dies.

    Parameters
    ----------
    client
        a redis-py client that threads may share. It is the caller's to close, after :meth:`stop`.
    project
        Feast's project name.
    root
        the project's folder.
    metrics
        where it is counted what happens.

    Examples
    --------
    >>> delivery = Delivery(client, "shop", root)                      # doctest: +SKIP
    >>> delivery.serve(decode_sinks(plan.definitions))                 # doctest: +SKIP
    >>> enqueue(client, "shop", actions); delivery.stop()              # doctest: +SKIP
    """

    def __init__(self, client: Any, project: str, root: Path, metrics: MetricsRegistry | None = None) -> None:
        self._client, self._project, self._root, self._metrics = client, project, root, metrics
        self._couriers: dict[str, tuple[Courier, threading.Thread]] = {}
        self._stopping = threading.Event()
        self._beating: threading.Thread | None = None

    def serve(self, sinks: Mapping[str, SinkSettings]) -> None:
        """Serve these sinks from now on, and no others: called again when definitions change."""
        for name in [name for name, (one, _) in self._couriers.items() if sinks.get(name) != one.settings]:
            courier, thread = self._couriers.pop(name)
            courier.stop()
            thread.join(timeout=LEASE)
            self._release(courier)
        for name, settings in sinks.items():
            if name not in self._couriers:
                courier = Courier(self._client, self._project, settings, self._root, self._metrics)
                thread = threading.Thread(target=courier.run, name=f"sink-{name}", daemon=True)
                self._couriers[name] = courier, thread
                thread.start()
        if self._couriers and self._beating is None:
            self._beating = threading.Thread(target=self._beat, name="sink-leases", daemon=True)
            self._beating.start()

    def drain(self, timeout: float = 60.0) -> int:
        """Wait until everything was tried that may be tried now; gives how many actions still wait.

        What waits then waits for another try, for a sink that is left alone, or for another worker that serves it.
        """
        deadline = time.monotonic() + timeout
        seen = {name: courier.idle for name, (courier, _) in self._couriers.items()}
        for courier, _ in self._couriers.values():
            courier.wait_milliseconds = 20
        for name, (courier, _) in self._couriers.items():
            # Twice: the first time may have looked at the queue before the last action came.
            while courier.idle < seen[name] + 2 and time.monotonic() < deadline:
                time.sleep(0.01)
        return sum(courier.waiting() for courier, _ in self._couriers.values())

    def stop(self, timeout: float = 15.0) -> None:
        """End after what is under way; what is not delivered stays in the queues."""
        self._stopping.set()
        deadline = time.monotonic() + timeout
        for courier, _ in self._couriers.values():
            courier.stop()
        for courier, thread in self._couriers.values():
            thread.join(max(0.0, deadline - time.monotonic()))
            self._release(courier)
        if self._beating is not None:
            self._beating.join(max(0.1, deadline - time.monotonic()))

    def _release(self, courier: Courier) -> None:
        from redis.exceptions import RedisError

        try:
            courier.release()
        except RedisError as error:
            _log.warning("the sink is another's in seconds: %s", type(error).__name__, extra={"sink": courier.name})

    def _beat(self) -> None:
        """Keep the leases, also while a batch takes long."""
        from redis.exceptions import RedisError

        while not self._stopping.wait(LEASE / 4):
            for courier, _ in list(self._couriers.values()):
                try:
                    if courier.is_holding:
                        courier.hold()
                    if self._metrics is not None:
                        self._metrics.waiting(courier.name, courier.waiting())
                except RedisError as error:
                    _log.warning("a lease was not kept: %s", type(error).__name__, extra={"sink": courier.name})


__all__ = ["Delivery", "Enqueued", "confirm", "enqueue"]
