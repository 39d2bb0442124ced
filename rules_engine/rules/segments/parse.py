"""A ``segment:`` document to its node."""

from __future__ import annotations

from rules_engine.definitions.source import Mapping, to_plain
from rules_engine.rules.document import Scope
from rules_engine.rules.nodes import Segment
from rules_engine.rules.parsing.conditions import ConditionParser


def parse_segment(document: Mapping, scope: Scope) -> Segment | None:
    """Return the segment, or None if its condition is missing or was refused."""
    when = document.get("when")
    if when is None:
        return None
    parser = ConditionParser(scope.catalog, scope.segments)
    condition = parser.condition(when)
    scope.problems += parser.problems
    if condition is None:
        return None
    plain = {entry.key: to_plain(entry.value) for entry in document if entry.key != "when"}
    return Segment(
        name=plain["segment"],
        when=condition,
        description=plain.get("description", ""),
        owner=plain.get("owner", ""),
        tags=tuple(plain.get("tags", ())),
        public=plain.get("public", False),
        span=document.span,
    )
