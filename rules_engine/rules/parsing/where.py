"""The conditions on an event itself, in `where`: on its properties, on its local time, and groups of these."""

from __future__ import annotations

from collections.abc import Callable

from rules_engine.definitions.source import Entry, Items, Mapping, Node, Scalar
from rules_engine.diagnostics import Diagnostic, listing, nearest
from rules_engine.rules.catalog import Catalog, EventType
from rules_engine.rules.forms import EVENT_INSTANT, PROPERTY_OPTIONS, TIME_OPTIONS, TIME_PARTS, WHERE_GROUPS
from rules_engine.rules.nodes import AllOf, AnyOf, Condition, EventTime, Not, Predicate, PropertyRef, Source, TimePart
from rules_engine.rules.operators import OPERATORS
from rules_engine.rules.parsing.arguments import convert_argument
from rules_engine.rules.parsing.literals import Refusal, describe, infer_type, literal
from rules_engine.rules.parsing.operand_checks import (
    at_key,
    boolean_option,
    check_operator,
    single_operator,
    string_value,
)
from rules_engine.rules.parsing.sides import Left, Value, is_side, two_sided
from rules_engine.rules.parsing.windows import fixed_zone
from rules_engine.rules.types import Kind, ValueType


def unknown_property(event: EventType, node: Node, name: str) -> Refusal:
    """Return the refusal of a property that an event does not have."""
    hint = nearest(name, event.properties) or f"`{event.name}` has {listing(event.properties)}"
    return Refusal("unknown-property", node, f"the event `{event.name}` has no property `{name}`", hint)


class WhereParser:
    """Parses the conditions on the events of one name.

    Parameters
    ----------
    catalog
        the events that may be named.
    problems
        collects what is wrong.
    event
        the name of the event.
    """

    def __init__(self, catalog: Catalog, problems: list[Diagnostic], event: str) -> None:
        self._catalog = catalog
        self._problems = problems
        self._declared = catalog.events.get(event)
        self._parsers: dict[str, Callable[[Entry], Condition | None]] = {
            **dict.fromkeys(WHERE_GROUPS, self._group),
            "not": self._negation,
            EVENT_INSTANT: self._instant,
        }
        #: What may stand right of an operator: another property of the event.
        self._other = Value("property", ("property",), self._right_side, "{property: list_price}")

    def conditions(self, node: Node) -> tuple[Condition, ...] | None:
        """Return the conditions of a mapping, which all have to be true; None if one is refused.

        Raises
        ------
        Refusal
            if it is no such mapping.
        """
        if not isinstance(node, Mapping):
            raise Refusal("wrong-shape", node, f"`where` maps properties to values, and is not {describe(node)}")
        if not node.entries and not node.incomplete:
            raise Refusal("empty-list", node, "`where` is empty", "remove it, or name a property")
        parsed = [self._collected(entry) for entry in node]
        conditions = tuple(condition for condition in parsed if condition is not None)
        return conditions if len(conditions) == len(parsed) else None

    def _collected(self, entry: Entry) -> Condition | None:
        try:
            return self._parsers.get(entry.key, self._property)(entry)
        except Refusal as refusal:
            self._problems.append(refusal.diagnostic)
            return None

    # --- groups -----------------------------------------------------------------------------------------------------

    def _group(self, entry: Entry) -> Condition | None:
        value = entry.value
        if not isinstance(value, Items):
            hint = f"write e.g. `{entry.key}: [{{sku: A1}}, {{price: {{at_least: 100}}}}]`"
            raise Refusal("wrong-shape", value, f"`{entry.key}` takes a list here, not {describe(value)}", hint)
        if not value.items:
            raise Refusal("empty-list", value, f"`{entry.key}` is empty", "list what the event has to be like")
        parsed = [self._whole(item) for item in value.items]
        conditions = tuple(condition for condition in parsed if condition is not None)
        if len(conditions) < len(parsed):
            return None
        if entry.key == "all":
            return AllOf(conditions, entry.key_span)
        either = AnyOf(conditions, entry.key_span)
        return either if entry.key == "any" else Not(either, entry.key_span)

    def _negation(self, entry: Entry) -> Condition | None:
        inner = self._whole(entry.value)
        return None if inner is None else Not(inner, entry.key_span)

    def _whole(self, node: Node) -> Condition | None:
        """Return one mapping as one condition; None if it is refused."""
        try:
            conditions = self.conditions(node)
        except Refusal as refusal:
            self._problems.append(refusal.diagnostic)
            return None
        if conditions is None:
            return None
        return conditions[0] if len(conditions) == 1 else AllOf(conditions, node.span)

    # --- properties -------------------------------------------------------------------------------------------------

    def _property(self, entry: Entry) -> Predicate | None:
        operand = self._named(entry.key, Scalar(entry.key, entry.key_span))
        value_type = operand.type
        if not isinstance(entry.value, Mapping):
            return _equals(operand, entry, value_type)
        chosen = single_operator(entry.value, PROPERTY_OPTIONS, f"`{entry.key}`")
        operator = check_operator(chosen, operand, value_type)
        if is_side(operator, chosen.value):
            left = Left(operand, value_type, entry.value)
            return two_sided(left, chosen, {"property": self._other}, lambda source, _: source)
        ignore_case = boolean_option(entry.value, "ignore_case", operator, value_type)
        or_missing = boolean_option(entry.value, "or_missing", operator)
        value_type = value_type or infer_type(operator, chosen.value)
        argument = convert_argument(operator, chosen.value, value_type, ignore_case)
        return Predicate(operand, operator.name, argument, value_type, ignore_case, or_missing, entry.key_span)

    def _named(self, name: str, node: Node) -> PropertyRef:
        """Return the property of a name; refuse one that the event does not have."""
        declared = self._declared
        if declared is not None and self._catalog.closed and name not in declared.properties:
            raise unknown_property(declared, node, name)
        return PropertyRef(name, declared.properties.get(name) if declared else None)

    def _right_side(self, node: Mapping) -> tuple[Source, ValueType | None]:
        value = node.entry("property").value
        operand = self._named(string_value(value, "the name of a property"), value)
        return operand, operand.type

    # --- when it happened -------------------------------------------------------------------------------------------

    def _instant(self, entry: Entry) -> Condition:
        """Return what `at` says of the local time of the event."""
        node = entry.value
        if not isinstance(node, Mapping):
            hint = "write e.g. `at: {day_of_week: {in: [saturday, sunday]}, timezone: Europe/Oslo}`"
            raise Refusal("wrong-shape", node, f"`at` takes what the local time is like, not {describe(node)}", hint)
        for part in node:
            if part.key not in (*TIME_PARTS, *TIME_OPTIONS):
                hint = nearest(part.key, TIME_PARTS) or f"there are {listing((*TIME_PARTS, *TIME_OPTIONS))}"
                raise at_key("unknown-key", part, f"`{part.key}` has no place in `at`", hint)
        zone = fixed_zone(node.entry("timezone").value) if "timezone" in node else "UTC"
        parts = [_time_predicate(part, zone) for part in node if part.key in TIME_PARTS]
        if not parts:
            hint = "add `day_of_week:` or `time_of_day:`; how long ago it was is in `within`"
            raise Refusal("missing-key", node, "`at` says nothing of the local time", hint)
        return parts[0] if len(parts) == 1 else AllOf(tuple(parts), entry.key_span)


def _equals(operand: PropertyRef, entry: Entry, value_type: ValueType | None) -> Predicate:
    if isinstance(entry.value, Items):
        hint = f"write `{entry.key}: {{in: [...]}}` for one of several values"
        raise Refusal("literal-type", entry.value, "a property is not compared with a list like this", hint)
    if value_type is not None and value_type.is_list:
        hint = f"write `{entry.key}: {{includes: ...}}`"
        raise Refusal("operator-type", entry.value, f"`{entry.key}` is a {value_type}", hint)
    value_type = value_type or infer_type(OPERATORS["equals"], entry.value)
    argument = literal(entry.value, value_type, False)
    return Predicate(operand, "equals", argument, value_type, span=entry.key_span)


def _time_predicate(entry: Entry, zone: str) -> Predicate:
    value_type = ValueType(Kind.TIME_OF_DAY if entry.key == "time_of_day" else Kind.DAY_OF_WEEK)
    operand = EventTime(TimePart(entry.key), zone)
    if not isinstance(entry.value, Mapping):
        if isinstance(entry.value, Items):
            hint = f"write `{entry.key}: {{in: [...]}}` for one of several"
            raise Refusal("literal-type", entry.value, f"`{entry.key}` is not compared with a list like this", hint)
        return Predicate(operand, "equals", literal(entry.value, value_type, False), value_type, span=entry.key_span)
    chosen = single_operator(entry.value, (), f"`{entry.key}`")
    operator = check_operator(chosen, operand, value_type)
    argument = convert_argument(operator, chosen.value, value_type, False)
    return Predicate(operand, operator.name, argument, value_type, span=entry.key_span)
