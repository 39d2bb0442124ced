"""Run the ``*.test.yaml`` files of a project on a simulated clock: of segments, decisions and triggers.

No store and no Feast are needed: a case brings its features, context and events, and says what is expected when.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from rules_engine.clock import format_instant
from rules_engine.diagnostics import nearest
from rules_engine.errors import DefinitionError, UnknownNameError
from rules_engine.files import files_below
from rules_engine.rules.catalog import Catalog
from rules_engine.rules.changes import changes_at
from rules_engine.rules.evaluate import Evaluation
from rules_engine.rules.explain import explain
from rules_engine.rules.load import TEST_SUFFIX, Definitions
from rules_engine.rules.predicates import Truth
from rules_engine.rules.program import Program
from rules_engine.simulation.case_files import AnyCase, Case, TriggerCase, load_cases
from rules_engine.simulation.decision_tests import decision_differences
from rules_engine.simulation.trigger_tests import differences

_WORDS: dict[Truth, str] = {True: "true", False: "false", None: "unknown"}


@dataclass(frozen=True, slots=True)
class Failure:
    """Describes where an answer differs from a case. ``explanation`` says why it is so at that instant."""

    case: AnyCase
    message: str
    explanation: str

    def __str__(self) -> str:
        body = "\n".join("    " + line for line in self.explanation.splitlines())
        return f"{self.case.span}: {self.case.title}: {self.case.name}\n  {self.message}\n{body}"


@dataclass(frozen=True, slots=True)
class TestReport:
    """Holds the outcome of all cases. ``untested`` are the segments, decisions and triggers that no file tests."""

    __test__ = False  # not a test class, whatever its name looks like to pytest

    cases: int
    failures: tuple[Failure, ...] = ()
    untested: tuple[str, ...] = ()
    files: int = 0
    tested: tuple[str, ...] = field(default=())


def run_tests(folder: Path, definitions: Definitions, catalog: Catalog, only: Sequence[str] = ()) -> TestReport:
    """Run every case of the test files below a folder, or those of the named segments, decisions and triggers.

    Raises
    ------
    DefinitionError
        with every problem of the test files themselves.
    UnknownNameError
        if ``only`` names something that does not exist.
    """
    names = [
        *definitions.program.names,
        *(f"decision {name}" for name in sorted(definitions.decisions)),
        *(f"trigger {name}" for name in sorted(definitions.triggers)),
    ]
    known_names = {*definitions.program.segments, *definitions.decisions, *definitions.triggers}
    for name in only:
        if name not in known_names:
            message = f"there is no segment, decision or trigger `{name}`"
            raise UnknownNameError(message, hint=nearest(name, known_names))
    files = [path for path in files_below(folder) if path.name.endswith((TEST_SUFFIX, ".test.yml"))]
    cases, problems = load_cases(files, folder.parent, definitions, catalog)
    if problems:
        raise DefinitionError(problems)
    tested = {case.title if case.kind == "segment" else f"{case.kind} {case.title}" for case in cases}
    chosen = [case for case in cases if not only or case.title in only]
    failures = [failure for case in chosen for failure in run_case(case, definitions.program)]
    untested = tuple(name for name in names if name not in tested)
    return TestReport(len(chosen), tuple(failures), untested, len(files), tuple(sorted(tested)))


# --- running --------------------------------------------------------------------------------------------------------


def run_case(case: AnyCase, program: Program) -> Iterator[Failure]:
    """Return the differences between what a case expects and what is answered, or what the trigger does."""
    if not isinstance(case, Case):
        different = differences(case) if isinstance(case, TriggerCase) else decision_differences(case)
        for message, happened in different:
            yield Failure(case, message, happened)
        return
    for at, expected in case.points:
        answer = Evaluation(program, case.inputs, at).segment(case.segment)
        if answer is not expected:
            message = f"at {format_instant(at)}: expected {_WORDS[expected]}, got {_WORDS[answer]}"
            yield _failure(case, program, at, message)
    if case.enters is None and case.exits is None:
        return
    moves = list(_moves(case, program))
    for word, expected_moves, entering in (("enters", case.enters, True), ("exits", case.exits, False)):
        actual = tuple(at for at, member in moves if member is entering)
        if expected_moves is not None and actual != tuple(sorted(expected_moves)):
            message = f"{word}: expected {_instants(sorted(expected_moves))}, got {_instants(actual)}"
            first = min(set(actual) ^ set(expected_moves), default=case.start)
            yield _failure(case, program, first, message)


def _moves(case: Case, program: Program) -> Iterator[tuple[int, bool]]:
    """Return the instants up to the case's end at which the entity enters (True) or leaves (False)."""
    when = program.segment(case.segment).when
    at = case.start
    member = Evaluation(program, case.inputs, case.start).condition(when) is True
    while (change := changes_at(program, when, case.inputs, at)) is not None and change <= case.end:
        at = change
        answer = Evaluation(program, case.inputs, at).condition(when) is True
        if answer is not member:
            yield at, answer
        member = answer


def _failure(case: Case, program: Program, at: int, message: str) -> Failure:
    return Failure(case, message, str(explain(program, case.segment, case.inputs, at, "the case")))


def _instants(instants: Sequence[int]) -> str:
    return ", ".join(map(format_instant, instants)) or "none"
