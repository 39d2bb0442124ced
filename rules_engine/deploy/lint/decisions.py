"""Warnings about decisions and experiments."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping

from rules_engine.diagnostics import Diagnostic, Severity, Span
from rules_engine.rules.decisions.nodes import Decision, ExperimentRef, Rule, with_decisions
from rules_engine.rules.experiments.checks import stops_before
from rules_engine.rules.experiments.nodes import Experiment
from rules_engine.rules.implication import implies
from rules_engine.rules.load import Definitions
from rules_engine.rules.program import Program
from rules_engine.targets.index.normal_form import never_true


def lint_decisions(definitions: Definitions) -> Iterator[Diagnostic]:
    r"""Yield the warnings about decisions and experiments.

    >>> from rules_engine.rules.catalog import Catalog
    >>> from rules_engine.rules.load import load_text
    >>> text = "decision: d\nvariants: {a: {value: 1}}\nrules: [{serve: a}, {serve: a}]\ndefault: a"
    >>> [warning.code for warning in lint_decisions(load_text(text, Catalog(closed=False)))]
    ['rule-never-decides']
    """
    decisions = definitions.decisions
    whole = with_decisions(definitions.program, decisions.values())
    hidden = [name for decision in decisions.values() for name, _ in decision.conditions]
    impossible = never_true(Program({name: whole.segments[name] for name in whole.closure(hidden)}))
    for decision in decisions.values():
        yield from _never_decide(definitions.program, decision, impossible)
        yield from _twice(decision, definitions.experiments)
    used = {name for decision in decisions.values() for name in decision.experiments}
    for name, experiment in definitions.experiments.items():
        if name not in used:
            hint = f"name it in a rule, e.g. `{{experiment: {name}}}`"
            yield _warning("unused-experiment", experiment.span, f"no decision serves `{name}`", hint)


def _warning(code: str, span: Span, message: str, hint: str) -> Diagnostic:
    return Diagnostic(code, span, message, hint, Severity.WARNING)


def _never_decide(program: Program, decision: Decision, impossible: Collection[str]) -> Iterator[Diagnostic]:
    """Yield warnings of rules that decide for nobody: those before them do, or their condition never holds."""
    deciding: list[tuple[int, Rule]] = []
    for number, rule in enumerate(decision.rules, 1):
        earlier = next((before for before, other in deciding if _covers(program, other, rule)), None)
        if earlier is not None:
            message = f"rule {number} of `{decision.name}` never decides: rule {earlier} does for all of them"
            yield _warning("rule-never-decides", rule.span, message, "move it up, or remove it")
        elif rule.when is not None and decision.condition_name(number) in impossible:
            message = f"rule {number} of `{decision.name}` never decides: its condition never holds"
            yield _warning("rule-never-decides", rule.span, message, "look at the conditions that must hold together")
        if not isinstance(rule.serve, ExperimentRef):  # whom an experiment does not take goes on
            deciding.append((number, rule))


def _covers(program: Program, earlier: Rule, later: Rule) -> bool:
    """Say whether all for whom a rule would be have been decided on by an earlier one."""
    if earlier.when is None:
        return True
    return later.when is not None and implies(program, later.when, earlier.when)


def _twice(decision: Decision, experiments: Mapping[str, Experiment]) -> Iterator[Diagnostic]:
    """Yield warnings of experiments of one decision that take people from each other."""
    served = [(number, rule) for number, rule in enumerate(decision.rules, 1) if isinstance(rule.serve, ExperimentRef)]
    for position, (number, rule) in enumerate(served):
        assert isinstance(rule.serve, ExperimentRef)
        for before, other in served[:position]:
            assert isinstance(other.serve, ExperimentRef)
            first, second = experiments[other.serve.name], experiments[rule.serve.name]
            if first.name != second.name and other.when == rule.when and not _are_apart(first, second):
                message = (
                    f"rules {before} and {number} of `{decision.name}` serve experiments to the same people, and "
                    f"`{second.name}` gets only those whom `{first.name}` leaves"
                )
                hint = "give them parts of one `exclusive` group, or other conditions"
                yield _warning("overlapping-rules", rule.span, message, hint)


def _are_apart(first: Experiment, second: Experiment) -> bool:
    groups = {each.exclusive.group for each in (first, second) if each.exclusive is not None}
    if len(groups) == 1 and first.exclusive is not None and second.exclusive is not None:
        return True  # that their parts do not overlap is checked
    return stops_before(first, second) or stops_before(second, first)
