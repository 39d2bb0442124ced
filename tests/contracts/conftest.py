"""Fixtures of the contract tests."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from prometheus_client.values import MutexValue

from rules_engine.sinks.base import Sink, open_sink
from rules_engine.sinks.settings import SinkSettings
from tests.kafka_cluster import Cluster
from tests.receivers import Open, Receiver, receiver


@pytest.fixture(scope="session")
def kafka() -> Cluster:
    """A Kafka cluster for the whole run: take a topic of one's own."""
    return Cluster()


@pytest.fixture(autouse=True)
def _counters_of_one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Feast, which other tests import, has Prometheus count in files that all counters of a process share."""
    monkeypatch.setattr("prometheus_client.values.ValueClass", MutexValue)


@pytest.fixture
def server() -> Iterator[Receiver]:
    """A server that actions are sent to."""
    with receiver() as server:
        yield server


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[Open]:
    """Opens sinks, and closes them at the end."""
    with ExitStack() as stack:

        def open_one(settings: SinkSettings) -> Sink:
            sink = open_sink(settings, tmp_path)
            stack.callback(sink.close)
            return sink

        yield open_one
