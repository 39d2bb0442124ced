"""Opens the reader that fits a project's online store."""

from __future__ import annotations

from pathlib import Path

from rules_engine.features.online.reader import OnlineReader
from rules_engine.features.online.redis_reader import RedisReader
from rules_engine.read_plan import ReadPlan
from rules_engine.redis.server import server_of


def open_reader(plan: ReadPlan, root: Path, *, timeout: float | None = None) -> OnlineReader:
    """Open the reader that fits the project's online store.

    Redis, Valkey and the embedded server are read directly. Any other store is read through Feast, which takes seconds
    to import.

    Parameters
    ----------
    plan
        the project's read plan.
    root
        the project's folder.
    timeout
        seconds to wait for a connection and for an answer; by default what the connection string says, else 5.
    """
    server = server_of(plan.connection, root, timeout)
    if server is not None:
        return RedisReader(plan, server)
    from rules_engine.features.online.feast_reader import FeastReader

    return FeastReader(plan, root)
