"""Checks segments together: no references in a circle, and no nesting that Python's stack could not follow."""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterable, Iterator, Mapping

from rules_engine.diagnostics import Diagnostic
from rules_engine.rules.nodes import Condition, Segment, SegmentRef
from rules_engine.rules.reference_graph import references_first, reversed_references
from rules_engine.rules.walk import children, segment_references, walk

#: The deepest nesting of conditions, including references to other segments: evaluation uses Python's stack.
MAX_LEVELS = 200


def find_cycles(segments: Mapping[str, Segment]) -> list[Diagnostic]:
    """Return one problem for each cycle, at the reference in its first segment, in the order of the files."""
    problems: list[Diagnostic] = []
    reported: set[str] = set()
    circular = _circular({name: segment_references(segment.when) for name, segment in segments.items()})
    for segment in sorted((segments[name] for name in circular), key=lambda each: (each.span.file, each.span.line)):
        cycle = None if segment.name in reported else _cycle_through(circular, segment.name)
        if cycle and not reported & set(cycle):
            reported |= set(cycle)
            path = " -> ".join(f"`{name}`" for name in [*cycle, cycle[0]])
            span = next(
                node.span
                for node in walk(segment.when)
                if getattr(node, "name", None) == (cycle[1] if len(cycle) > 1 else cycle[0])
            )
            message = f"the segments refer to each other in a circle: {path}"
            problems.append(Diagnostic("segment-cycle", span, message, "remove one of the references"))
    return problems


def find_too_deep(segments: Mapping[str, Segment]) -> list[Diagnostic]:
    """Return a problem for each segment that is too deep, unless a segment that it refers to already is."""
    problems: list[Diagnostic] = []
    levels: dict[str, int] = {}
    inside = {name: dict(_references(segment.when)) for name, segment in segments.items()}
    for name in references_first(inside):
        depths = [level + levels[reference] for reference, level in inside[name].items()]
        levels[name] = max([_depth(segments[name].when), *depths])
        if levels[name] > MAX_LEVELS >= max((levels[reference] for reference in inside[name]), default=0):
            message = f"with the segments that it refers to, `{name}` is more than {MAX_LEVELS} levels deep"
            problems.append(Diagnostic("too-deep", segments[name].span, message, "refer to fewer segments in a row"))
    return problems


def _circular(references: Mapping[str, Collection[str]]) -> dict[str, list[str]]:
    """Return the references among the names that lie in a circle, or between two."""
    defined = {name: [other for other in others if other in references] for name, others in references.items()}
    for _ in range(2):  # without those that lead to no circle, then without those that no circle leads to
        left = defined.keys() - set(references_first(defined))
        kept = {name: [other for other in others if other in left] for name, others in defined.items() if name in left}
        defined = reversed_references(kept)
    return {name: sorted(others) for name, others in defined.items()}


def _references(condition: Condition, level: int = 1) -> Iterator[tuple[str, int]]:
    """Yield the segments that a condition refers to, with their level; the deepest of each name comes last."""
    references = [(condition.name, level)] if isinstance(condition, SegmentRef) else []
    for child in children(condition):
        references += _references(child, level + 1)
    yield from sorted(references, key=lambda reference: reference[1])


def _depth(condition: Condition) -> int:
    return 1 + max(map(_depth, children(condition)), default=0)


def _cycle_through(references: Mapping[str, Iterable[str]], start: str) -> list[str] | None:
    """Return a shortest path of references from a segment back to itself."""
    came_from: dict[str, str] = {}
    waiting = deque([start])
    while waiting:
        name = waiting.popleft()
        for other in references.get(name, ()):
            if other == start:
                path = [name]
                while path[-1] != start:
                    path.append(came_from[path[-1]])
                return path[::-1]
            if other not in came_from:
                came_from[other] = name
                waiting.append(other)
    return None
