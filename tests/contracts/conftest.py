"""Fixtures of the contract tests."""

from __future__ import annotations

import pytest

from tests.kafka_cluster import Cluster


@pytest.fixture(scope="session")
def kafka() -> Cluster:
    """A Kafka cluster for the whole run: take a topic of one's own."""
    return Cluster()
