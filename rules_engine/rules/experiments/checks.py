"""Checks experiments together: those that exclude each other have no part of their group in common."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations

from rules_engine.diagnostics import Diagnostic
from rules_engine.rules.experiments.nodes import Experiment


def find_overlaps(experiments: Mapping[str, Experiment]) -> list[Diagnostic]:
    """Return a problem for each two experiments of a group that overlap, in time and in their part of the group.

    >>> from rules_engine.rules.experiments.nodes import Slice
    >>> first = Experiment("a", (), "a", exclusive=Slice("home", 0, 0.5), start=0)
    >>> second = Experiment("b", (), "b", exclusive=Slice("home", 0.4, 1), start=0)
    >>> [problem.code for problem in find_overlaps({"a": first, "b": second})]
    ['overlapping-experiments']
    """
    problems = []
    for first, second in combinations(experiments.values(), 2):
        if _overlap(first, second) and _at_one_time(first, second):
            message = f"`{second.name}` has {second.exclusive}, and `{first.name}` has {first.exclusive}"
            hint = "give them parts that do not overlap, or let one stop before the other starts"
            problems.append(Diagnostic("overlapping-experiments", second.span, message, hint))
    return problems


def _overlap(first: Experiment, second: Experiment) -> bool:
    part, other = first.exclusive, second.exclusive
    return (
        part is not None
        and other is not None
        and part.group == other.group
        and max(part.start, other.start) < min(part.end, other.end)
    )


def _at_one_time(first: Experiment, second: Experiment) -> bool:
    """Say whether two experiments may run at one instant; a draft may start at any."""
    return not (stops_before(first, second) or stops_before(second, first))


def stops_before(first: Experiment, second: Experiment) -> bool:
    """Say whether an experiment stops before, or when, another starts."""
    return first.stop is not None and second.start is not None and first.stop <= second.start
