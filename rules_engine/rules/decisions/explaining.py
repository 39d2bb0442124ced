"""Explains which variant an entity gets: the rules in order up to the one that decides, each with its verdict."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from rules_engine.clock import format_instant, from_micros, to_micros
from rules_engine.diagnostics import printable
from rules_engine.rules.changes import changes_at
from rules_engine.rules.decisions.choosing import Choice, Chooser, Course
from rules_engine.rules.evaluate import Evaluation
from rules_engine.rules.explain import explain
from rules_engine.rules.explanation import Reason, tree
from rules_engine.rules.inputs import Inputs
from rules_engine.rules.predicates import Truth
from rules_engine.rules.program import Program

_WORDS: dict[Truth, str] = {True: "is met", False: "is not met", None: "is not known to be met"}


@dataclass(frozen=True, slots=True)
class RuleReason:
    """A rule that was looked at: whether its condition is true and why, and why it was passed over all the same.

    ``reason`` is None for a rule without a condition.
    """

    rule: int
    verdict: Truth
    reason: Reason | None
    passed_over: str | None = None

    def lines(self) -> list[str]:
        """Return the rule and the tree of its condition."""
        note = f", but passed over: {self.passed_over}" if self.passed_over else ""
        head = f"rule {self.rule} {_WORDS[self.verdict]}{note}" if self.reason else f"rule {self.rule} is for all{note}"
        return [printable(head), *(tree(self.reason) if self.reason else ())]


@dataclass(frozen=True, slots=True)
class DecisionExplanation:
    """The reason why an entity gets a variant at an instant. ``str()`` of it gives the rules in order."""

    entity: str
    decision: str
    choice: Choice
    because: str
    at: datetime
    changes_at: datetime | None
    rules: tuple[RuleReason, ...]

    def __str__(self) -> str:
        return "\n".join([self.headline(), *(line for rule in self.rules for line in rule.lines())])

    def headline(self) -> str:
        """Return the answer in one line."""
        until = f", until {_text(self.changes_at)}" if self.changes_at is not None else ""
        gets = f"{self.entity} gets `{self.choice.variant}` of {self.decision} at {_text(self.at)}{until}"
        return printable(f"{gets}: {self.because}")

    def to_dict(self) -> dict[str, Any]:
        """Return the explanation as JSON data."""
        return {
            "entity": self.entity,
            "decision": self.decision,
            "variant": self.choice.variant,
            "because": self.because,
            "at": _text(self.at),
            "changes_at": None if self.changes_at is None else _text(self.changes_at),
            "rules": [
                {
                    "rule": each.rule,
                    "verdict": each.verdict,
                    "passed_over": each.passed_over,
                    "reason": None if each.reason is None else each.reason.to_dict(),
                }
                for each in self.rules
            ],
        }


def explain_decision(
    program: Program, chooser: Chooser, inputs: Inputs, now: int, entity: str = ""
) -> DecisionExplanation:
    """Explain which variant an entity gets on these inputs; the program has the decision's hidden segments.

    >>> from rules_engine.rules.decisions.nodes import Decision, Rule, Serve, Variant, with_decisions
    >>> from rules_engine.rules.nodes import FeatureRef, Predicate
    >>> rules = (Rule(Serve("on"), Predicate(FeatureRef("user", "age"), "at_least", 18)),)
    >>> decision = Decision("banner", (Variant("on", "true"), Variant("off", "false")), rules, "off", "boolean")
    >>> program = with_decisions(Program({}), [decision])
    >>> print(explain_decision(program, Chooser(decision), Inputs({"user:age": 16}), 0, "42"))
    42 gets `off` of banner at 1970-01-01T00:00:00Z: the default, as no rule decides
    rule 1 is not met
    └─ false: user:age at_least 18 (is 16; short by 2)
    """
    course = course_of(program, chooser, inputs)
    choice, skipped = chooser.trace(entity, course.at(now), now)
    passed_over = {skip.rule: skip.why for skip in skipped}
    change = chooser.next_change(entity, course, now)
    looked_at = []
    for number, rule in enumerate(chooser.decision.rules[: choice.rule], 1):
        reason = None
        if rule.when is not None:
            reason = explain(program, chooser.decision.condition_name(number), inputs, now, entity).reason
        verdict = True if reason is None else reason.verdict
        looked_at.append(RuleReason(number, verdict, reason, passed_over.get(number)))
    until = None if change is None else from_micros(change)
    because = chooser.describe(choice)
    return DecisionExplanation(
        entity, chooser.decision.name, choice, because, from_micros(now), until, tuple(looked_at)
    )


def course_of(program: Program, chooser: Chooser, inputs: Inputs) -> Course:
    """Return the course of a decision's conditions as the plain evaluator finds it."""
    names = sorted(chooser.conditions)

    def at(now: int) -> set[str]:
        evaluation = Evaluation(program, inputs, now)
        return {name for name in names if evaluation.segment(name) is True}

    def change_after(now: int) -> int | None:
        changes = (changes_at(program, program.segment(name).when, inputs, now) for name in names)
        return min((change for change in changes if change is not None), default=None)

    return Course(at, change_after)


def _text(instant: datetime) -> str:
    return format_instant(to_micros(instant))
