"""An ``experiment:`` document to its node: its arms and their weights, who takes part, its life, and its metrics."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import replace
from decimal import Decimal
from typing import TypeVar

from rules_engine.definitions.source import Entry, Items, Mapping, Node, Scalar, to_plain
from rules_engine.diagnostics import Diagnostic, listing, nearest
from rules_engine.rules.document import Scope
from rules_engine.rules.experiments.nodes import CONTROL, Arm, Experiment, Slice
from rules_engine.rules.nodes import FeatureRef
from rules_engine.rules.parsing.conditions import ConditionParser
from rules_engine.rules.parsing.document_keys import PARTS, check_name, keys_of
from rules_engine.rules.parsing.literals import Refusal, describe, instant
from rules_engine.rules.parsing.operand_checks import string_value
from rules_engine.rules.parsing.weights import fraction, fractions, percent

#: The most arms of an experiment.
MAX_ARMS = 20

_T = TypeVar("_T")


def parse_experiment(document: Mapping, scope: Scope) -> Experiment | None:
    """Return the experiment of a document, or None if a part of it was refused; note its arms in ``scope.served``.

    >>> from rules_engine.definitions.source import from_plain
    >>> from rules_engine.rules.catalog import Catalog
    >>> scope = Scope(Catalog(closed=False))
    >>> arms = {"control": {"serve": "none", "weight": 50}, "voucher": {"serve": "voucher", "weight": 40}}
    >>> parse_experiment(from_plain({"experiment": "offer", "arms": arms}), scope) is None
    True
    >>> scope.problems[0].message
    'the weights of `arms` sum to 90 and not to 100: 10 is left'
    """
    parser = _ExperimentParser(scope)
    experiment = parser.experiment(document)
    scope.problems += parser.problems
    name = document.get("experiment")
    if name is not None:
        served = None if experiment is None else {arm.name: arm.serve for arm in experiment.arms}
        scope.served[str(to_plain(name))] = served
    return experiment


class _ExperimentParser:
    def __init__(self, scope: Scope) -> None:
        self._scope = scope
        self.problems: list[Diagnostic] = []

    def experiment(self, document: Mapping) -> Experiment | None:
        arms = self._part(document, "arms", self._arms)
        coverage = self._part(document, "coverage", lambda node: fraction(percent(node, "`coverage`")))
        exclusive = self._part(document, "exclusive", _slice)
        phase = self._part(document, "phase", _phase) or 1
        start, stop = (self._part(document, key, instant) for key in ("start", "stop"))
        winner = self._part(document, "winner", lambda node: _winner(node, arms, document))
        covariate = self._part(document, "covariate", self._covariate)
        metrics = self._part(document, "metrics", self._metrics) or {}
        if start is not None and stop is not None and stop <= start:
            problem = Diagnostic("never-runs", document.entry("stop").value.span, "it stops before it starts",
                                 "write a later instant")  # fmt: skip
            self.problems.append(problem)
        if stop is not None and start is None and "start" not in document:
            self._refuse("missing-key", document.entry("stop").value, "what has not started cannot stop", "add `start`")
        if self.problems or arms is None:
            return None
        plain = {entry.key: to_plain(entry.value) for entry in document if entry.key in _PLAIN}
        name = str(plain["experiment"])
        experiment = Experiment(
            name,
            arms,
            plain.get("seed") or (name if phase == 1 else f"{name}.{phase}"),
            hash_version=plain.get("hash_version", 2),
            phase=phase,
            exclusive=exclusive,
            start=start,
            stop=stop,
            winner=winner,
            primary=next(iter(metrics.get("primary", ())), None),
            secondary=metrics.get("secondary", ()),
            guardrails=metrics.get("guardrails", ()),
            covariate=covariate,
            hypothesis=plain.get("hypothesis", ""),
            description=plain.get("description", ""),
            owner=plain.get("owner", ""),
            tags=tuple(plain.get("tags", ())),
            span=document.span,
        )
        return experiment if coverage is None else replace(experiment, coverage=coverage)

    def _refuse(self, code: str, node: Node, message: str, hint: str) -> None:
        self.problems.append(Diagnostic(code, node.span, message, hint))

    def _part(self, document: Mapping, key: str, parse: Callable[[Node], _T | None]) -> _T | None:
        node = document.get(key)
        if node is None or (key in ("start", "stop", "winner") and _is_null(node)):
            return None
        try:
            return parse(node)
        except Refusal as refusal:
            self.problems.append(refusal.diagnostic)
            return None

    def _arms(self, node: Node) -> tuple[Arm, ...] | None:
        if not isinstance(node, Mapping):
            return None  # the shape is told already
        served, weights = {}, []
        for entry in node:
            check_name(entry, "an arm")
            keys = keys_of(entry.value, entry.key, ("serve",), ("weight",))
            served[entry.key] = string_value(keys.entry("serve").value, "the name of a variant")
            weights.append(_weight(entry, keys))
        if len(served) < 2:
            raise Refusal("too-few-entries", node, "an experiment compares at least two arms", "add another one")
        if CONTROL not in served:
            hint = f"name one of {listing(served)} `{CONTROL}`: what the others are compared with"
            raise Refusal("missing-control", node, f"no arm is named `{CONTROL}`", hint)
        shares = fractions(weights, node, "`arms`")
        return tuple(Arm(name, serve, share) for (name, serve), share in zip(served.items(), shares, strict=True))

    def _covariate(self, node: Node) -> str | None:
        parser = ConditionParser(self._scope.catalog, self._scope.segments)
        operand, value_type = parser.feature(node)
        if not isinstance(operand, FeatureRef):
            raise Refusal("wrong-shape", node, "a covariate is a stored feature", "name one of a feature view")
        if value_type is not None and (value_type.is_list or not value_type.kind.is_number):
            message = f"a covariate is a number, and `{operand}` is of type {value_type}"
            raise Refusal("operator-type", node, message)
        return operand.key

    def _metrics(self, node: Node) -> dict[str, tuple[str, ...]]:
        keys = keys_of(node, "metrics", (), ("primary", "secondary", "guardrails"))
        read = {}
        for entry in keys:
            nodes = [entry.value] if entry.key == "primary" else _list(entry)
            read[entry.key] = tuple(self._metric(each) for each in nodes)
        named = [name for names in read.values() for name in names]
        twice = next((name for name in named if named.count(name) > 1), None)
        if twice is not None:
            raise Refusal("duplicate-metric", node, f"`{twice}` stands there twice", "remove one of them")
        return read

    def _metric(self, node: Node) -> str:
        name = string_value(node, "the name of a metric")
        metrics: Collection[str] = self._scope.names.get("metric", ())
        if name not in metrics:
            hint = nearest(name, metrics) or (f"there are {listing(metrics)}" if metrics else None)
            hint = hint or f"write a document `metric: {name}`"
            raise Refusal("unknown-metric", node, f"there is no metric `{name}`", hint)
        return name


_PLAIN = ("experiment", "seed", "hash_version", "hypothesis", *PARTS)


def _weight(entry: Entry, keys: Mapping) -> Decimal | None:
    return percent(keys.entry("weight").value, f"the weight of `{entry.key}`") if "weight" in keys else None


def _slice(node: Node) -> Slice:
    keys = keys_of(node, "exclusive", ("group", "from", "to"))
    group = string_value(keys.entry("group").value, "the name of a group")
    start, end = (percent(keys.entry(key).value, f"`{key}`") for key in ("from", "to"))
    if start >= end:
        raise Refusal("empty-slice", keys.entry("to").value, "the part ends where it begins", "write a greater number")
    return Slice(group, fraction(start), fraction(end))


def _phase(node: Node) -> int:
    if isinstance(node, Scalar) and type(node.value) is int and node.value >= 1:
        return node.value
    raise Refusal("invalid-count", node, f"a phase is a whole number from 1, not {describe(node)}")


def _winner(node: Node, arms: tuple[Arm, ...] | None, document: Mapping) -> str | None:
    name = string_value(node, "the name of an arm")
    names = [arm.name for arm in arms or ()]
    if arms is not None and name not in names:
        hint = nearest(name, names) or f"there are {listing(names)}"
        raise Refusal("unknown-arm", node, f"there is no arm `{name}`", hint)
    stop = document.get("stop")
    if stop is None or _is_null(stop):
        hint = "add `stop: ` and the instant from which everybody gets the winner"
        raise Refusal("missing-key", node, "an experiment has a winner once it stops", hint)
    return name


def _is_null(node: Node) -> bool:
    return isinstance(node, Scalar) and node.value is None


def _list(entry: Entry) -> tuple[Node, ...]:
    if not isinstance(entry.value, Items):
        message = f"`{entry.key}` takes a list of metrics, not {describe(entry.value)}"
        raise Refusal("wrong-shape", entry.value, message, f"write `{entry.key}: [NAME]`")
    return tuple(entry.value.items)
