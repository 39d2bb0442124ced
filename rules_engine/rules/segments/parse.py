"""A ``segment:`` document to its node."""

from __future__ import annotations

from rules_engine.definitions.source import Mapping, to_plain
from rules_engine.rules.document import Scope
from rules_engine.rules.nodes import Condition, ListFile, Segment
from rules_engine.rules.parsing.conditions import ConditionParser
from rules_engine.rules.parsing.literals import Refusal
from rules_engine.rules.segments.lists import is_on, list_file


def parse_segment(document: Mapping, scope: Scope) -> Segment | None:
    """Return the segment, or None if its condition or list is missing or was refused."""
    before = len(scope.problems)
    file: ListFile | None = None
    condition: Condition | None = None
    try:
        _check_keys(document)
        if "list" in document:
            file = list_file(document.entry("list").value)
            condition = is_on(str(to_plain(document.entry("segment").value)), document.span)
    except Refusal as refusal:
        scope.problems.append(refusal.diagnostic)
    if "when" in document:
        parser = ConditionParser(scope.catalog, scope.segments)
        condition = parser.condition(document.entry("when").value)
        scope.problems += parser.problems
    if condition is None or len(scope.problems) > before:
        return None
    plain = {entry.key: to_plain(entry.value) for entry in document if entry.key not in ("when", "list")}
    return Segment(
        name=plain["segment"],
        list=file,
        when=condition,
        description=plain.get("description", ""),
        owner=plain.get("owner", ""),
        tags=tuple(plain.get("tags", ())),
        public=plain.get("public", False),
        span=document.span,
    )


def _check_keys(document: Mapping) -> None:
    """Refuse a segment with neither a condition nor a list, or with both."""
    if "when" not in document and "list" not in document:
        message = "`segment` needs `when`, a condition, or `list`, a file of members"
        raise Refusal("missing-key", document, message, "add `when: ...`")
    if "when" in document and "list" in document:
        message = "a segment has a condition or a list, and this one has both `when` and `list`"
        raise Refusal("missing-key", document, message, "make two segments of them")
