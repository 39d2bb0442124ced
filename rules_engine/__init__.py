"""A feature store with declarative segment rules: in YAML, one meaning at request time, in batch and on the stream.

Begin with ``docs/architecture.md``, the map of the code. The public names are loaded when they are first used.
"""

from __future__ import annotations

TYPE_CHECKING = False  # `typing` takes longer to import than Python to start, and nobody needs it for a command's start
if TYPE_CHECKING:
    from typing import Any

    from rules_engine.rules.decisions.explaining import DecisionExplanation
    from rules_engine.rules.explanation import Explanation
    from rules_engine.sdk import Assignment, AsyncSegmentClient, Membership, SegmentClient

__all__ = ["Assignment", "AsyncSegmentClient", "DecisionExplanation", "Explanation", "Membership", "SegmentClient"]

_MODULES = {
    "Assignment": "rules_engine.sdk",
    "AsyncSegmentClient": "rules_engine.sdk.async_client",
    "DecisionExplanation": "rules_engine.rules.decisions.explaining",
    "Explanation": "rules_engine.rules.explanation",
    "Membership": "rules_engine.sdk",
    "SegmentClient": "rules_engine.sdk",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    value = getattr(import_module(_MODULES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
