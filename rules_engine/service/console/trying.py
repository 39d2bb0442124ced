"""Try a change of a file of definitions: what is wrong with it, and whom it would move. Nothing is written.

Runs in a process of its own. Whom it moves is what `segments plan` would say if the file were saved; where there are
very many users, a sample of them is asked first.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from math import sqrt
from pathlib import Path
from statistics import NormalDist

from rules_engine.batch.entities import EntityReader
from rules_engine.definitions.source import Items, Mapping, Node, Scalar, read_documents
from rules_engine.deploy.lint.characters import lint_characters
from rules_engine.deploy.lint.warnings import lint
from rules_engine.deploy.movements import Movement
from rules_engine.deploy.plan import compare
from rules_engine.diagnostics import Diagnostic, Severity
from rules_engine.errors import DefinitionError
from rules_engine.folders import Project
from rules_engine.project.catalog import project_catalog
from rules_engine.rules.load import definition_files, load_documents, read_file
from rules_engine.rules.operators import OPERATORS
from rules_engine.rules.program import Program
from rules_engine.rules.walk import dependencies
from rules_engine.service.console.counting import open_applied
from rules_engine.service.console.sampling import SampleReader, sample_users

#: Examples of each move.
EXAMPLES = 3

_CERTAINTY = 0.95

#: What a threshold may look like: a number, or a duration.
_THRESHOLD = re.compile(r"(-?[0-9]+(?:\.[0-9]+)?)([smhdw]?)\Z", re.ASCII)

#: Keys of conditions on events whose values are numbers or durations.
_EVENT_KEYS = frozenset({"within"})


@dataclass(frozen=True, slots=True)
class Threshold:
    """A number in a text that can be moved.

    Attributes
    ----------
    text
        as it is written: ``300``, or ``60d``.
    unit
        what follows the number.
    label
        the condition that it stands in.
    line, column
        where it is, from 1 on.
    """

    text: str
    number: float
    unit: str
    label: str
    line: int
    column: int

    @property
    def low(self) -> float:
        """Return the left end of a slider."""
        return min(0.0, 2 * self.number) if not self.unit else 1

    @property
    def high(self) -> float:
        """Return the right end of a slider."""
        return max(2 * self.number, 10.0)

    @property
    def step(self) -> float:
        """Return the steps of a slider: whole ones for whole numbers."""
        return 1 if self.number == int(self.number) else 0.01


@dataclass(frozen=True, slots=True)
class TriedChange:
    """Say what a change would do.

    Attributes
    ----------
    problems
        of all files, with the changed one in its place.
    as_of
        the instant, in microseconds.
    movements
        by segment that differs from what is applied, who moves among those who were asked.
    drawn, users
        how many were asked, and how many there are.
    reads
        by segment that differs, the features that a request reads for it, and how many conditions on events it has.
    patch
        what changes in the file.
    """

    problems: tuple[Diagnostic, ...]
    as_of: int = 0
    movements: tuple[Movement, ...] = ()
    drawn: int = 0
    users: int = 0
    reads: tuple[tuple[str, tuple[str, ...], int], ...] = ()
    patch: str = ""

    @property
    def is_refused(self) -> bool:
        """Say whether the definitions cannot be applied."""
        return any(problem.severity is Severity.ERROR for problem in self.problems)

    @property
    def is_sample(self) -> bool:
        """Say whether only a part of all users was asked."""
        return self.drawn < self.users

    def estimate(self, count: int) -> tuple[int, int]:
        """Return how many of all users that stands for, and how far off it may be, with 95% certainty."""
        return estimate(count, self.drawn, self.users)


def estimate(count: int, drawn: int, users: int) -> tuple[int, int]:
    """Return how many of all users a count in a random sample stands for, and the half of its 95% interval.

    The interval is Wilson's, which says something about counts of 0 too, for samples without replacement.

    >>> estimate(100, 1_000, 1_000), estimate(500, 50_000, 1_000_000), estimate(0, 50_000, 1_000_000)
    ((100, 0), (10000, 887), (0, 73))
    """
    if drawn >= users or not drawn:
        return count, 0
    z = NormalDist().inv_cdf((1 + _CERTAINTY) / 2) * sqrt((users - drawn) / (users - 1))
    part = count / drawn
    center, spread = part + z * z / (2 * drawn), z * sqrt(part * (1 - part) / drawn + (z / (2 * drawn)) ** 2)
    high, low = (center + spread) / (1 + z * z / drawn), (center - spread) / (1 + z * z / drawn)
    return round(part * users), round(max(high - part, part - low) * users)


def try_change(root: Path, version: str, file: str, text: str, everybody: bool) -> TriedChange:
    """Return what saving a text as a file of the project, and applying it, would do.

    Parameters
    ----------
    version
        of the definitions that are applied.
    file
        the file's path in the project.
    text
        what it would hold.
    everybody
        whether all users are asked, or a sample where there are very many.
    """
    opened = open_applied(root, version)
    project = opened.repo.project
    patch = _patch(project, file, text)
    own, problems = read_documents(text, file)
    others, refused = _others(project, file)
    characters = [problem for document in own for problem in lint_characters(document)]
    try:
        definitions = load_documents([*own, *others], project_catalog(project), [*problems, *refused])
    except DefinitionError as error:
        return TriedChange(_own_first([*error.diagnostics, *characters], file), patch=patch)
    warnings = _own_first([*(each for each in lint(definitions) if each.span.file == file), *characters], file)
    after, triggers = definitions.program, definitions.triggers.values()
    sample = sample_users(root, version)
    now = opened.now if everybody else sample.as_of
    reading: Callable[..., EntityReader] = EntityReader if everybody else partial(SampleReader, sample)
    movements, evaluated = compare(
        opened.repo, opened.program, after, triggers, now, examples=EXAMPLES, reader_of=reading
    )
    reads = tuple(_reads(after, movement.segment) for movement in movements if movement.segment in after.segments)
    drawn = max(sample.users, evaluated) if everybody else len(sample.keys)
    return TriedChange(warnings, now, movements, drawn, max(sample.users, drawn), reads, patch)


def _others(project: Project, file: str) -> tuple[list[Node], list[Diagnostic]]:
    """Return the documents of all other files, and the problems found in reading them."""
    documents: list[Node] = []
    problems: list[Diagnostic] = []
    for path in definition_files(project.segments_dir):
        shown_as = path.relative_to(project.root).as_posix()
        if shown_as != file:
            read, refused = read_file(path, shown_as)
            documents += read
            problems += refused
    return documents, problems


def _own_first(problems: Sequence[Diagnostic], file: str) -> tuple[Diagnostic, ...]:
    return tuple(sorted(problems, key=lambda each: (each.span.file != file, *each.span[:3])))


def _patch(project: Project, file: str, text: str) -> str:
    path = project.root / file
    before = path.read_text(encoding="utf-8") if path.is_file() else ""
    names = (f"a/{file}" if before else "/dev/null", f"b/{file}")
    lines = difflib.unified_diff(before.splitlines(keepends=True), text.splitlines(keepends=True), *names)
    return "".join(line if line.endswith("\n") else f"{line}\n\\ No newline at end of file\n" for line in lines)


def _reads(program: Program, segment: str) -> tuple[str, tuple[str, ...], int]:
    conditions = [program.segment(name).when for name in program.closure([segment])]
    features = sorted({feature for condition in conditions for feature in dependencies(condition).features})
    events = {event for condition in conditions for event in dependencies(condition).events}
    return segment, tuple(features), len(events)


# --- thresholds -----------------------------------------------------------------------------------------------------


def thresholds(text: str, segment: str | None = None) -> list[Threshold]:
    r"""Return the numbers and durations in the conditions of a text, in their order.

    Parameters
    ----------
    segment
        only those of this segment; None for all.

    >>> [(each.text, each.line) for each in thresholds("segment: a\nwhen: {feature: u:age, at_least: 18}")]
    [('18', 2)]
    """
    documents, _ = read_documents(text, "")
    lines = text.splitlines()
    numbers = []
    for document in documents:
        name = document.get("segment") if isinstance(document, Mapping) else None
        when = document.get("when") if isinstance(document, Mapping) else None
        if isinstance(name, Scalar) and when is not None and segment in (None, name.value):
            numbers += list(_numbers(when, lines, ""))
    return sorted(numbers, key=lambda each: (each.line, each.column))


def move(text: str, threshold: Threshold, value: str) -> str:
    r"""Return a text with another number in the place of a threshold.

    >>> text = "segment: a\nwhen: {feature: u:age, at_least: 18}"
    >>> move(text, thresholds(text)[0], "21")
    'segment: a\nwhen: {feature: u:age, at_least: 21}'
    """
    lines = text.split("\n")
    line, start = lines[threshold.line - 1], threshold.column - 1
    lines[threshold.line - 1] = line[:start] + value + line[start + len(threshold.text) :]
    return "\n".join(lines)


def is_threshold(text: str) -> bool:
    """Say whether a text can stand in a threshold's place.

    >>> is_threshold("21"), is_threshold("90d"), is_threshold("21, equals: 3")
    (True, True, False)
    """
    return _THRESHOLD.match(text) is not None


def _numbers(node: Node, lines: Sequence[str], label: str) -> Iterator[Threshold]:
    if isinstance(node, Items):
        for item in node.items:
            yield from _numbers(item, lines, label)
    elif isinstance(node, Mapping):
        inside = _label(node) or label
        for entry in node:
            is_compared = entry.key in OPERATORS or entry.key in _EVENT_KEYS
            if isinstance(entry.value, Scalar):
                if is_compared and (found_number := _at(entry.value, lines, f"{inside} {entry.key}".strip())):
                    yield found_number
            else:
                yield from _numbers(entry.value, lines, f"{inside} {entry.key}".strip() if is_compared else inside)


def _label(node: Mapping) -> str:
    """Return what a condition is about: the feature, or the event."""
    for key in ("feature", "context", "clock", "did", "did_not", "event"):
        value = node.get(key)
        if isinstance(value, Scalar):
            return str(value.value) if key in ("feature", "event") else f"{key} {value.value}"
    return ""


def _at(scalar: Scalar, lines: Sequence[str], label: str) -> Threshold | None:
    """Return the threshold that a scalar is; None if it is none, or is written otherwise than it reads."""
    span = scalar.span
    line = lines[span.line - 1] if span.line <= len(lines) else ""
    written = re.match(r"[^\s,}\]#]+", line[span.column - 1 :])
    match = _THRESHOLD.match(written[0]) if written else None
    if written is None or match is None or isinstance(scalar.value, bool):
        return None
    return Threshold(written[0], float(match[1]), match[2], label, span.line, span.column)
