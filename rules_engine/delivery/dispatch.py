"""Delivery of actions: a worker starts a :class:`Delivery`, and hands over actions with :func:`enqueue`."""

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
    """Serves the sinks of a project, each in a thread of its own, so that a sink that is down delays only itself.

    Several workers may run it. Each sink is served by one of them; if that dies, by another within seconds.

    Parameters
    ----------
    client
        a redis-py client that threads may share. The caller closes it, after :meth:`stop`.
    project
        Feast's project name.
    root
        the project's folder.
    metrics
        the metrics to update.

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
        """Serve these sinks from now on, and no others. Call it whenever definitions change."""
        for name in [name for name, (courier, _) in self._couriers.items() if sinks.get(name) != courier.settings]:
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
        """Wait until every action that may be tried now was tried. Return how many actions still wait.

        These wait for another try, for a sink whose circuit is open, or for another worker that serves the sink.
        """
        deadline = time.monotonic() + timeout
        seen = {name: courier.idle for name, (courier, _) in self._couriers.items()}
        for courier, _ in self._couriers.values():
            courier.wait_milliseconds = 20
        for name, (courier, _) in self._couriers.items():
            # Twice, because the first time may have read the queue before the last action came.
            while courier.idle < seen[name] + 2 and time.monotonic() < deadline:
                time.sleep(0.01)
        return sum(courier.waiting() for courier, _ in self._couriers.values())

    def stop(self, timeout: float = 15.0) -> None:
        """End after the present batches; other actions stay in the queues."""
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
        """Renew the leases, also while a batch takes long."""
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
