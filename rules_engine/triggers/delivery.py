"""Delivery of actions: a worker starts one :class:`Delivery`, and hands it what fired with :func:`enqueue`."""

from __future__ import annotations

from rules_engine.triggers.queues import Enqueued, enqueue

__all__ = ["Enqueued", "enqueue"]
