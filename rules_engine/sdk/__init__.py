"""Request time: which segments an entity is in, which variants it gets, and why. It reads the store without Feast.

Begin with ``client.py`` and ``rules.py``; ``row_rules.py`` answers from stored bytes. May import ``targets`` and what
lies below.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rules_engine.sdk.assignment import Assignment
from rules_engine.sdk.base_client import OnError
from rules_engine.sdk.client import SegmentClient
from rules_engine.sdk.membership import Membership

if TYPE_CHECKING:
    from rules_engine.sdk.async_client import AsyncSegmentClient

__all__ = ["Assignment", "AsyncSegmentClient", "Membership", "OnError", "SegmentClient"]


def __getattr__(name: str) -> Any:
    # asyncio takes longer to import than all of this, and only its users need it.
    if name == "AsyncSegmentClient":
        from rules_engine.sdk.async_client import AsyncSegmentClient

        return AsyncSegmentClient
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
