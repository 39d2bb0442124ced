"""Checks segments together: no references in a circle, and no nesting that Python's stack could not follow."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from rules_engine.diagnostics import Diagnostic
from rules_engine.rules.nodes import Condition, Segment, SegmentRef
from rules_engine.rules.walk import children, segment_references, walk

#: How deep conditions may be nested, through references to other segments too: what follows them uses Python's stack.
MAX_LEVELS = 200


def find_cycles(segments: Mapping[str, Segment]) -> list[Diagnostic]:
    """Return one problem for each cycle, at the reference in its first segment, in the order of the files."""
    problems: list[Diagnostic] = []
    reported: set[str] = set()
    for segment in sorted(segments.values(), key=lambda each: (each.span.file, each.span.line)):
        cycle = _cycle_through(segments, segment.name)
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
    """Return one problem for each segment that goes too deep by itself, and not only by one that it refers to."""
    problems: list[Diagnostic] = []
    levels: dict[str, int] = {}
    inside = {name: dict(_references(segment.when)) for name, segment in segments.items()}
    waiting = list(segments)
    while waiting:  # segments whose references are known; in a circle, or with a name that is refused, none are
        ready = [name for name in waiting if all(reference in levels for reference in inside[name])]
        if not ready:
            break
        for name in ready:
            depths = [level + levels[reference] for reference, level in inside[name].items()]
            levels[name] = max([_depth(segments[name].when), *depths])
            if levels[name] > MAX_LEVELS >= max((levels[reference] for reference in inside[name]), default=0):
                message = f"with the segments that it refers to, `{name}` is more than {MAX_LEVELS} levels deep"
                problems.append(
                    Diagnostic("too-deep", segments[name].span, message, "refer to fewer segments in a row")
                )
        known = set(ready)
        waiting = [name for name in waiting if name not in known]
    return problems


def _references(condition: Condition, level: int = 1) -> Iterator[tuple[str, int]]:
    """Yield the segments that a condition refers to, with their level; the deepest of each name comes last."""
    found = [(condition.name, level)] if isinstance(condition, SegmentRef) else []
    for child in children(condition):
        found += _references(child, level + 1)
    yield from sorted(found, key=lambda reference: reference[1])


def _depth(condition: Condition) -> int:
    return 1 + max(map(_depth, children(condition)), default=0)


def _cycle_through(segments: Mapping[str, Segment], start: str) -> list[str] | None:
    """Return a shortest path of references from a segment back to itself."""
    paths, seen = [[start]], set[str]()
    while paths:
        path = paths.pop(0)
        if path[-1] not in segments:
            continue
        for name in sorted(segment_references(segments[path[-1]].when)):
            if name == start:
                return path
            if name not in seen:
                seen.add(name)
                paths.append([*path, name])
    return None
