"""The values that may stand right of an operator outside ``where``: features, context values, aggregates of events."""

from __future__ import annotations

from collections.abc import Callable

from rules_engine.definitions.source import Mapping, Node
from rules_engine.rules.aggregates import PROPERTY_AGGREGATES, Aggregate
from rules_engine.rules.nodes import ContextRef, EventAggregate, FeatureRef, Operand, Source
from rules_engine.rules.operators import OPERATORS
from rules_engine.rules.parsing.event_operands import EventParser
from rules_engine.rules.parsing.literals import Refusal, infer_type, literal
from rules_engine.rules.parsing.operand_checks import string_value
from rules_engine.rules.parsing.sides import Value
from rules_engine.rules.types import ValueType


class RightSides:
    """Reads the values of right sides.

    Parameters
    ----------
    feature
        reads `VIEW:NAME`.
    events
        reads aggregates.

    Attributes
    ----------
    values
        the values, by their first key.
    """

    def __init__(self, feature: Callable[[Node], tuple[Operand, ValueType | None]], events: EventParser) -> None:
        self._read_feature = feature
        self._events = events
        aggregates = [
            (Aggregate.COUNT.value, ""),
            *((row.function.value, ", of: amount") for row in PROPERTY_AGGREGATES),
        ]
        values = (
            Value("feature", ("feature",), self._feature, "{feature: user:limit}"),
            Value("context", ("context", "default"), self._context, "{context: budget, default: 100}"),
            *(
                Value(name, (name, "within"), self._aggregate, f"{{{name}: {{event: purchase{of}}}, within: 30d}}")
                for name, of in aggregates
            ),
        )
        self.values = {value.head: value for value in values}

    def typed(self, source: Source, value_type: ValueType | None) -> Source:
        """Return an operand read as a type, if nothing declares another one."""
        if isinstance(source, EventAggregate) and source.of_type is None and source.of is not None:
            return self._events.with_type(source, value_type)
        return source

    def _feature(self, node: Mapping) -> tuple[Source, ValueType | None]:
        operand, value_type = self._read_feature(node.entry("feature").value)
        assert isinstance(operand, FeatureRef | EventAggregate)
        return operand, value_type

    def _context(self, node: Mapping) -> tuple[Source, ValueType | None]:
        name = string_value(node.entry("context").value, "the name of a context value")
        if "default" not in node:
            return ContextRef(name), None
        default = node.entry("default").value
        return ContextRef(name, literal(default, None, False)), infer_type(OPERATORS["equals"], default)

    def _aggregate(self, node: Mapping) -> tuple[Source, ValueType | None] | None:
        head = next(entry.key for entry in node if entry.key != "within")
        if "within" not in node:
            raise Refusal("missing-key", node, f"`{head}` needs `within`", f"for example `{self.values[head].example}`")
        is_count = head == Aggregate.COUNT.value
        aggregate = self._events.count_of(node) if is_count else self._events.aggregate(node, head)
        return None if aggregate is None else (aggregate, aggregate.type)
