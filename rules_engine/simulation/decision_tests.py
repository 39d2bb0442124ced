"""Tests of decisions: who gets what and why, when it changes, and which shares many users get."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

from rules_engine.clock import format_instant
from rules_engine.definitions.source import Mapping, Node, to_plain
from rules_engine.diagnostics import Span, listing, nearest
from rules_engine.rules.decisions.choosing import Choice, Chooser, Course
from rules_engine.rules.decisions.explaining import course_of, explain_decision
from rules_engine.rules.decisions.nodes import Decision, with_decisions
from rules_engine.rules.inputs import Inputs
from rules_engine.rules.load import Definitions
from rules_engine.rules.parsing.literals import Refusal
from rules_engine.rules.program import Program
from rules_engine.simulation.case_parts import entries, items, moment

#: How many users are counted for shares, and by how many percentage points a share may differ, if nothing is said.
USERS, WITHIN = 10_000, 2.0


@dataclass(frozen=True, slots=True)
class ExpectedChoice:
    """Says what is expected at an instant; ``reason`` and ``rule`` only if they are given."""

    at: int
    variant: str
    reason: str | None = None
    rule: int | None = None

    def is_met_by(self, choice: Choice) -> bool:
        """Say whether a choice is as expected."""
        return (
            choice.variant == self.variant
            and self.reason in (None, choice.reason.value)
            and self.rule in (None, choice.rule)
        )

    def __str__(self) -> str:
        rule = "" if self.rule is None else f" by rule {self.rule}"
        return f"`{self.variant}`{rule}" + ("" if self.reason is None else f" ({self.reason})")


@dataclass(frozen=True, slots=True)
class ExpectedShares:
    """Gives by variant the percentage of so many users, give or take ``within`` percentage points."""

    shares: tuple[tuple[str, float], ...]
    users: int = USERS
    within: float = WITHIN


@dataclass(frozen=True, slots=True)
class DecisionCase:
    """One case of a decision, ready to run; instants are in microseconds.

    ``changes`` are all instants up to ``end`` at which the variant changes, each with the new one if it is given.
    """

    decision: str
    name: str
    span: Span
    inputs: Inputs
    entity: str
    start: int
    end: int
    points: tuple[ExpectedChoice, ...]
    changes: tuple[tuple[int, str | None], ...] | None
    shares: ExpectedShares | None
    chooser: Chooser = field(repr=False, compare=False)
    program: Program = field(repr=False, compare=False)

    @property
    def title(self) -> str:
        """Return the name of what the case tests."""
        return self.decision

    @property
    def kind(self) -> str:
        """Return the kind of document that the case tests."""
        return "decision"

    @property
    def course(self) -> Course:
        """Return how the conditions of the rules go on."""
        return course_of(self.program, self.chooser, self.inputs)


# --- reading --------------------------------------------------------------------------------------------------------


def read_decision_case(node: Mapping, name: str, start: int, inputs: Inputs, definitions: Definitions) -> DecisionCase:
    """Return one case of a test file.

    Raises
    ------
    Refusal
        if it names a variant that the decision does not have, or no user where one is needed.
    """
    decision = definitions.decisions[name]
    points = tuple(_point(item, decision, start) for item in ([node] if "expect" in node else []))
    points += tuple(_point(item, decision, moment(item, start)) for item in items(node, "then"))
    changes = tuple((moment(item, start), _to(item, decision)) for item in items(node, "changes"))
    end = max([start, *(point.at for point in points), *(at for at, _ in changes)])
    if "changes" in node and end == start:
        hint = "add e.g. `then: [{after: 1d, expect: VARIANT}]`"
        raise Refusal("missing-key", node, "the case names no instant up to which nothing changes", hint)
    chooser = Chooser(decision, definitions.experiments, definitions.settings.holdout)
    if "entity" not in node and "expect" in node and chooser.reads_entity:
        hint = 'add e.g. `entity: "42"`, or test `shares` over many users'
        raise Refusal("missing-key", node, f"`{name}` depends on the user's key, and the case names none", hint)
    title = node.entry("name").value
    return DecisionCase(
        name,
        str(to_plain(title)),
        title.span,
        inputs,
        inputs.entity or "",
        start,
        end,
        points,
        changes if "changes" in node else None,
        _shares(node, decision) if "shares" in node else None,
        chooser,
        with_decisions(definitions.program, [decision]),
    )


def _point(node: Mapping, decision: Decision, at: int) -> ExpectedChoice:
    variant = _variant(node.entry("expect").value, decision)
    return ExpectedChoice(at, variant, _plain(node, "reason"), _plain(node, "rule"))


def _to(node: Mapping, decision: Decision) -> str | None:
    return _variant(node.entry("to").value, decision) if "to" in node else None


def _shares(node: Mapping, decision: Decision) -> ExpectedShares:
    shares = []
    for entry in entries(node, "shares"):
        _check_variant(entry.key, entry.value, decision)
        shares.append((entry.key, float(to_plain(entry.value))))
    return ExpectedShares(tuple(shares), _plain(node, "users", USERS), float(_plain(node, "within", WITHIN)))


def _variant(node: Node, decision: Decision) -> str:
    name = str(to_plain(node))
    _check_variant(name, node, decision)
    return name


def _check_variant(name: str, node: Node, decision: Decision) -> None:
    names = [variant.name for variant in decision.variants]
    if name not in names:
        hint = nearest(name, names) or f"there are {listing(names)}"
        raise Refusal("unknown-variant", node, f"`{decision.name}` has no variant `{name}`", hint)


def _plain(node: Mapping, key: str, default: Any = None) -> Any:
    return to_plain(node.entry(key).value) if key in node else default


# --- running --------------------------------------------------------------------------------------------------------


def decision_differences(case: DecisionCase) -> Iterator[tuple[str, str]]:
    """Yield what differs from a case, each with what explains it."""
    course = case.course
    for point in case.points:
        choice = case.chooser.choose(case.entity, course.at(point.at), point.at)
        if not point.is_met_by(choice):
            got = ExpectedChoice(
                point.at,
                choice.variant,
                None if point.reason is None else choice.reason.value,
                None if point.rule is None else choice.rule,
            )
            yield f"at {format_instant(point.at)}: expected {point}, got {got}", _explained(case, point.at)
    if case.changes is not None:
        yield from _changes(case, course, case.changes)
    if case.shares is not None:
        yield from _counted(case, case.shares)


def _changes(
    case: DecisionCase, course: Course, expected: tuple[tuple[int, str | None], ...]
) -> Iterator[tuple[str, str]]:
    happened = []
    at: int | None = case.start
    while at is not None and (at := case.chooser.next_change(case.entity, course, at)) is not None and at <= case.end:
        happened.append((at, case.chooser.choose(case.entity, course.at(at), at).variant))
    named = [(at, variant) for at, variant in sorted(expected)]
    fits = len(named) == len(happened) and all(
        at == when and variant in (None, to) for (at, variant), (when, to) in zip(named, happened, strict=True)
    )
    if not fits:
        shown = [(at, variant or "another one") for at, variant in named]
        yield f"changes: expected {_listed(shown)}, got {_listed(happened)}", _explained(case, case.start)


def _counted(case: DecisionCase, expected: ExpectedShares) -> Iterator[tuple[str, str]]:
    counts = Counter(_variant_of(case, str(number)) for number in range(expected.users))
    got = {name: 100 * counts[name] / expected.users for name, _ in expected.shares}
    far = [(name, share) for name, share in expected.shares if abs(got[name] - share) > expected.within]
    if far:
        wrong = ", ".join(f"`{name}` {share:g} % and got {got[name]:.2f} %" for name, share in far)
        yield f"of {expected.users:,} users: expected {wrong}", _explained(case, case.start)


def _variant_of(case: DecisionCase, entity: str) -> str:
    """Return what another user gets, with all else as in the case: conditions may draw samples of users."""
    course = course_of(case.program, case.chooser, replace(case.inputs, entity=entity))
    return case.chooser.choose(entity, course.at(case.start), case.start).variant


def _explained(case: DecisionCase, at: int) -> str:
    return str(explain_decision(case.program, case.chooser, case.inputs, at, case.entity or "the case"))


def _listed(changes: list[tuple[int, str]]) -> str:
    return ", ".join(f"{format_instant(at)} to `{variant}`" for at, variant in changes) or "none"
