"""The ``payload:`` of a trigger: the values that an action carries, besides its entity and its cause."""

from __future__ import annotations

import re

from rules_engine.definitions.source import Entry, Items, Mapping, Node
from rules_engine.diagnostics import Diagnostic, listing, nearest
from rules_engine.rules.aggregates import Aggregate
from rules_engine.rules.nodes import EventAggregate, FeatureRef
from rules_engine.rules.parsing.conditions import ConditionParser
from rules_engine.rules.parsing.document_keys import keys_of
from rules_engine.rules.parsing.literals import Refusal, describe, literal
from rules_engine.rules.parsing.operand_checks import at_key, string_value
from rules_engine.rules.triggers.nodes import Constant, EventProperty, PayloadValue
from rules_engine.rules.types import Kind

#: The most values that an action carries.
MAX_VALUES = 50

_NAMES = tuple(aggregate.value for aggregate in Aggregate)
FORMS = ("feature", "property", "value", *_NAMES)

_KEY = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,99}\Z")
_EXAMPLE = "write e.g. `{feature: VIEW:NAME}`, `{last: {event: EVENT, of: PROPERTY}}` or `{value: ...}`"


def payload(
    node: Node, conditions: ConditionParser, problems: list[Diagnostic], event: str | None
) -> tuple[tuple[str, PayloadValue], ...]:
    """Return the names and values of a payload, in the order of the text; values that are refused are left out.

    Parameters
    ----------
    node
        the value of ``payload:``.
    conditions
        the parser that knows features and events.
    problems
        the list to which problems of single values are added.
    event
        the event that starts the trigger, whose properties can be named; None if none does.

    Raises
    ------
    Refusal
        if it is not a mapping, empty, or too large.
    """
    if not isinstance(node, Mapping):
        raise Refusal("wrong-shape", node, f"`payload` maps names to values, and is not {describe(node)}", _EXAMPLE)
    if not node.entries and not node.incomplete:
        raise Refusal("empty-list", node, "`payload` is empty", "remove it, or name a value")
    if len(node.entries) > MAX_VALUES:
        raise Refusal("too-many-values", node, f"a payload has at most {MAX_VALUES} values, not {len(node.entries)}")
    parser = _Values(conditions, event)
    values: list[tuple[str, PayloadValue]] = []
    for entry in node:
        try:
            value = parser.value(entry)
        except Refusal as refusal:
            problems.append(refusal.diagnostic)
            continue
        if value is not None:
            values.append((entry.key, value))
    return tuple(values)


class _Values:
    def __init__(self, conditions: ConditionParser, event: str | None) -> None:
        self._conditions = conditions
        self._event = event

    def value(self, entry: Entry) -> PayloadValue | None:
        if not _KEY.match(entry.key):
            hint = "write letters, digits and `_ . -`, starting with a letter"
            raise at_key("invalid-name", entry, f"`{entry.key}` cannot be the name of a value", hint)
        node = entry.value
        if not isinstance(node, Mapping):
            raise Refusal("wrong-shape", node, f"a value of a payload is a mapping, not {describe(node)}", _EXAMPLE)
        heads = [part for part in node if part.key in FORMS]
        if not heads:
            raise _no_form(node)
        if len(heads) > 1:
            message = f"`{heads[0].key}` and `{heads[1].key}` cannot stand in one value"
            raise at_key("several-forms", heads[1], message, "make two values of them")
        match heads[0].key:
            case "feature":
                return self._feature(keys_of(node, "feature", ("feature",)).entry("feature").value)
            case "property":
                return self._property(keys_of(node, "property", ("property",)).entry("property").value)
            case "value":
                return self._constant(keys_of(node, "value", ("value",)).entry("value").value)
            case head:
                return self._aggregate(keys_of(node, head, (head,), ("within",)), head)

    def _feature(self, node: Node) -> FeatureRef | EventAggregate:
        operand, value_type = self._conditions.feature(node)
        if value_type is not None and value_type.kind is Kind.BYTES:
            raise Refusal("operator-type", node, f"`{operand}` is of type {value_type}, which JSON has no place for")
        assert isinstance(operand, FeatureRef | EventAggregate)
        return operand

    def _property(self, node: Node) -> EventProperty:
        if self._event is None:
            hint = "read the latest such event, e.g. `{last: {event: EVENT, of: PROPERTY}}`"
            raise Refusal("no-event", node, "no event starts this trigger, so there is none whose property it is", hint)
        name = string_value(node, f"a property of `{self._event}`")
        value_type = self._conditions.events.property_type(self._event, node)
        return EventProperty(name, value_type)

    def _constant(self, node: Node) -> Constant:
        if isinstance(node, Items):
            return Constant(tuple(literal(item, None, False) for item in node.items))
        if isinstance(node, Mapping):
            hint = "give each part a name of its own in the payload"
            raise Refusal("literal-type", node, "`value` is a single value or a list of them, not a mapping", hint)
        return Constant(None if node.value is None else literal(node, None, False))

    def _aggregate(self, node: Mapping, head: str) -> EventAggregate | None:
        if head == Aggregate.COUNT.value:
            return self._conditions.events.count_of(node)
        return self._conditions.events.aggregate(node, head)


def _no_form(node: Mapping) -> Refusal:
    for entry in node:
        hint = nearest(entry.key, FORMS)
        if hint:
            return at_key("unknown-key", entry, f"there is no value `{entry.key}`", hint)
    return Refusal("unknown-form", node, "none of these keys says what the value is", f"there can be {listing(FORMS)}")
