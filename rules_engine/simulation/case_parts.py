"""Parts that cases of every kind of document have: lists, mappings, and instants counted from the case's start."""

from __future__ import annotations

from rules_engine.definitions.source import Entry, Items, Mapping, Node
from rules_engine.rules.parsing.literals import duration, literal
from rules_engine.rules.types import Kind, ValueType


def items(node: Mapping, key: str) -> list[Mapping]:
    """Return the mappings in the list under a key; none if there is no list."""
    value = node.get(key)
    return [item for item in value.items if isinstance(item, Mapping)] if isinstance(value, Items) else []


def entries(node: Mapping, key: str) -> tuple[Entry, ...]:
    """Return the entries of the mapping under a key; none if there is no mapping."""
    value = node.get(key)
    return value.entries if isinstance(value, Mapping) else ()


def moments(node: Mapping, key: str, start: int) -> tuple[int, ...] | None:
    """Return the instants in the list under a key; None without the key."""
    return tuple(moment(item, start) for item in items(node, key)) if key in node else None


def moment(node: Mapping, start: int) -> int:
    """Return the instant that ``at``, ``after`` or ``ago`` names."""
    if "at" in node:
        return instant(node.entry("at").value)
    return start - duration(node.entry("ago").value) if "ago" in node else start + duration(node.entry("after").value)


def instant(node: Node) -> int:
    """Return an instant in microseconds."""
    return int(literal(node, ValueType(Kind.TIME), False))
