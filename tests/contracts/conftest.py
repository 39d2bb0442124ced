"""Fixtures of the contract tests."""

from __future__ import annotations

import pytest
from prometheus_client.values import MutexValue

from tests.kafka_cluster import Cluster


@pytest.fixture(scope="session")
def kafka() -> Cluster:
    """A Kafka cluster for the whole run: take a topic of one's own."""
    return Cluster()


@pytest.fixture(autouse=True)
def _counters_of_one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Feast, which other tests import, has Prometheus count in files that all counters of a process share."""
    monkeypatch.setattr("prometheus_client.values.ValueClass", MutexValue)
