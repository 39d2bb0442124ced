"""A Kafka cluster for tests: librdkafka's own, which speaks the real protocol inside this process."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any
from uuid import uuid4

from confluent_kafka import Consumer, Producer


class Cluster:
    """A cluster of one broker. Topics have four partitions, and are made when somebody asks for them.

    Other processes reach it at ``brokers``.
    """

    def __init__(self) -> None:
        self._holder = Producer({"test.mock.num.brokers": 1, "bootstrap.servers": "mock"})
        found = self._holder.list_topics(timeout=10).brokers
        self.brokers = ",".join(f"{broker.host}:{broker.port}" for broker in found.values())

    def write(self, topic: str, messages: Iterable[tuple[str | bytes | None, bytes | None]]) -> None:
        """Put messages into a topic, each a key and a value."""
        producer = Producer({"bootstrap.servers": self.brokers, "linger.ms": 5})
        for key, value in messages:
            producer.produce(topic, value, key)
            producer.poll(0)
        assert producer.flush(20) == 0

    def read(self, topic: str, number: int, timeout: float = 20.0) -> list[Any]:
        """The first so many messages of a topic."""
        consumer = Consumer(
            {"bootstrap.servers": self.brokers, "group.id": uuid4().hex, "auto.offset.reset": "earliest"}
        )
        consumer.subscribe([topic])
        found: list[Any] = []
        deadline = time.monotonic() + timeout
        while len(found) < number and time.monotonic() < deadline:
            message = consumer.poll(0.2)
            if message is not None and message.error() is None:
                found.append(message)
        consumer.close()
        return found
