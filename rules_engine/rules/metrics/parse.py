"""A ``metric:`` document to its node."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from rules_engine.definitions.source import Entry, Items, Node, Scalar, to_plain
from rules_engine.definitions.source import Mapping as MappingNode
from rules_engine.diagnostics import Diagnostic, listing, nearest
from rules_engine.rules.aggregates import Aggregate
from rules_engine.rules.document import Scope
from rules_engine.rules.metrics.nodes import Goal, Metric, MetricForm
from rules_engine.rules.nodes import EventAggregate, Predicate
from rules_engine.rules.parsing.conditions import ConditionParser
from rules_engine.rules.parsing.document_keys import PARTS, keys_of
from rules_engine.rules.parsing.literals import Refusal, describe, duration
from rules_engine.rules.parsing.operand_checks import at_key, string_value

#: The aggregates that give a number, and so a mean of units.
_MEANS = tuple(each.value for each in Aggregate)
HEADS = ("did", "retained", "ratio", *_MEANS)

_T = TypeVar("_T")


def parse_metric(document: MappingNode, scope: Scope) -> Metric | None:
    """Return the metric of a document, or None if a part of it was refused.

    >>> from rules_engine.definitions.source import from_plain
    >>> from rules_engine.rules.catalog import Catalog
    >>> scope = Scope(Catalog(closed=False))
    >>> metric = parse_metric(from_plain({"metric": "bought", "did": "purchase", "within": "14d"}), scope)
    >>> metric.form.value, metric.aggregate.match.event
    ('share', 'purchase')
    """
    parser = _MetricParser(scope)
    metric = parser.metric(document)
    scope.problems += parser.problems
    return metric


class _MetricParser:
    def __init__(self, scope: Scope) -> None:
        self._scope = scope
        self._conditions = ConditionParser(scope.catalog, scope.segments)
        self.problems = self._conditions.problems

    def metric(self, document: MappingNode) -> Metric | None:
        before = len(self.problems)
        parts = self._collected(self._parts, document)
        percentile = self._part(document, "cap", _percentile)
        goal = self._part(document, "goal", _goal)
        if parts is not None and percentile is not None and parts["form"] is not MetricForm.MEAN:
            entry = document.entry("cap")
            self.problems.append(at_key("unknown-key", entry, "`cap` has a meaning for means only").diagnostic)
        if len(self.problems) > before or parts is None:
            return None
        plain = {entry.key: to_plain(entry.value) for entry in document if entry.key in ("metric", *PARTS)}
        return Metric(
            plain["metric"],
            percentile=percentile,
            goal=goal or Goal.INCREASE,
            description=plain.get("description", ""),
            owner=plain.get("owner", ""),
            tags=tuple(plain.get("tags", ())),
            span=document.span,
            **parts,
        )

    def _collected(self, parse: Callable[[MappingNode], _T | None], node: MappingNode) -> _T | None:
        try:
            return parse(node)
        except Refusal as refusal:
            self.problems.append(refusal.diagnostic)
            return None

    def _part(self, document: MappingNode, key: str, parse: Callable[[Node], _T]) -> _T | None:
        if key not in document:
            return None
        return self._collected(lambda _: parse(document.entry(key).value), document)

    def _parts(self, document: MappingNode) -> dict[str, Any] | None:
        heads = [entry for entry in document if entry.key in HEADS]
        if not heads:
            raise Refusal("missing-key", document, "a metric says what is counted", "write e.g. `did: EVENT`")
        if len(heads) > 1:
            message = f"`{heads[0].key}` and `{heads[1].key}` cannot stand in one metric"
            raise at_key("several-forms", heads[1], message, "make two metrics of them")
        head = heads[0]
        takes_window = head.key not in ("ratio", "retained")
        if takes_window and "within" not in document:
            hint = "add e.g. `within: 14d`, counted from the exposure"
            raise Refusal("missing-key", document, f"`{head.key}` needs `within`", hint)
        if not takes_window and "within" in document:
            raise at_key("unknown-key", document.entry("within"), f"`within` has no place beside `{head.key}`")
        if head.key != "did" and "where" in document:
            raise at_key("unknown-key", document.entry("where"), f"`where` has no place beside `{head.key}`",
                         f"write it inside `{head.key}`")  # fmt: skip
        return self._read(head, document)

    def _read(self, head: Entry, document: MappingNode) -> dict[str, Any] | None:
        if head.key == "ratio":
            return {"form": MetricForm.RATIO, "ratio": self._ratio(head.value)}
        if head.key == "retained":
            return self._retained(head.value)
        if head.key == "did":
            return _share(self._conditions.events.did(document, negated=False), head.value)
        events = self._conditions.events
        is_count = head.key == Aggregate.COUNT.value
        aggregate = events.count_of(document) if is_count else events.aggregate(document, head.key)
        if aggregate is None:
            return None
        of_type = aggregate.type
        if of_type is not None and (of_type.is_list or not of_type.kind.is_number):
            raise at_key("operator-type", head, f"a mean is of numbers, and this is of type {of_type}")
        return {"form": MetricForm.MEAN, "aggregate": _rolling(aggregate, head.value)}

    def _retained(self, node: Node) -> dict[str, Any] | None:
        keys = keys_of(node, "retained", ("did", "after", "within"), ("where",))
        after = duration(keys.entry("after").value)
        return _share(self._conditions.events.did(keys, negated=False), node, after)

    def _ratio(self, node: Node) -> tuple[str, str]:
        if not isinstance(node, Items) or len(node.items) != 2:
            hint = "write e.g. `ratio: [items_14d, orders_14d]`"
            raise Refusal("wrong-shape", node, "a ratio is a list of two metrics", hint)
        above, below = (string_value(item, "the name of a metric") for item in node.items)
        for name, item in zip((above, below), node.items, strict=True):
            metrics = self._scope.names.get("metric", ())
            if name not in metrics:
                hint = nearest(name, metrics) or f"there are {listing(metrics)}"
                raise Refusal("unknown-metric", item, f"there is no metric `{name}`", hint)
        return above, below


def _share(did: Predicate | None, node: Node, after: int = 0) -> dict[str, Any] | None:
    if did is None:
        return None
    assert isinstance(did.operand, EventAggregate)
    return {"form": MetricForm.SHARE, "aggregate": _rolling(did.operand, node), "after": after}


def _rolling(aggregate: EventAggregate, node: Node) -> EventAggregate:
    if aggregate.window is not None:
        raise Refusal("wrong-shape", node, "the window of a metric is a duration, counted from the exposure")
    return aggregate


def _percentile(node: Node) -> float:
    value = keys_of(node, "cap", ("percentile",)).entry("percentile").value
    number = value.value if isinstance(value, Scalar) else None
    if isinstance(number, bool) or not isinstance(number, int | float) or not 50 <= number < 100:
        raise Refusal("invalid-percent", value, f"a percentile is from 50 to below 100, not {describe(value)}")
    return float(number)


def _goal(node: Node) -> Goal:
    text = string_value(node, "`increase` or `decrease`")
    if text not in list(Goal):
        raise Refusal("invalid-choice", node, f"there is no goal `{text}`", nearest(text, list(Goal)) or listing(Goal))
    return Goal(text)


def find_circular_ratios(metrics: Mapping[str, Metric]) -> list[Diagnostic]:
    """Return a problem for each ratio of something that is itself a ratio."""
    return [
        Diagnostic("ratio-of-ratios", metric.span, f"`{name}` is a ratio itself", "name the metrics inside it")
        for metric in metrics.values()
        for name in metric.ratio or ()
        if name in metrics and metrics[name].form is MetricForm.RATIO
    ]
