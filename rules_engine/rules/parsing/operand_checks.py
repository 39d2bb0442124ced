"""Checks that every predicate shares: which keys stand in it, and whether its operator fits its operand."""

from __future__ import annotations

from collections.abc import Collection

from rules_engine.definitions.source import Entry, Mapping, Node, Scalar
from rules_engine.diagnostics import listing, nearest
from rules_engine.rules.aggregates import AGGREGATES
from rules_engine.rules.forms import Form
from rules_engine.rules.nodes import ClockRef, EventAggregate, EventTime, Operand, PropertyRef
from rules_engine.rules.operators import COUNT_OPERATORS, OPERATORS, Operator, operators_for
from rules_engine.rules.parsing.literals import Refusal, describe
from rules_engine.rules.types import Kind, ValueType


def at_key(code: str, entry: Entry, message: str, hint: str | None = None) -> Refusal:
    """Return a refusal whose caret points at a key."""
    return Refusal(code, Scalar(entry.key, entry.key_span), message, hint)


#: Keys that are options of some forms, for the message where another form has one.
_OPTIONS = frozenset({"ignore_case", "or_missing", "timezone", "default"})


def unknown_key(entry: Entry, form: Form) -> Refusal:
    """Return the refusal of a key that has no place in a form."""
    if entry.key in _OPTIONS:
        return at_key("option-not-allowed", entry, f"`{entry.key}` has no meaning beside `{form.head}`", "remove it")
    allowed = [*form.keys, *(OPERATORS if form.takes_operator else ())]
    hint = nearest(entry.key, allowed)
    if "count" in form.keys and entry.key in COUNT_OPERATORS:
        hint = f"how often is in `count`, e.g. `count: {{{entry.key}: 2}}`"
    hint = hint or f"beside `{form.head}` there can be {listing(allowed[1:], limit=30)}"
    if form.takes_operator:
        return at_key("unknown-operator", entry, f"there is no operator `{entry.key}`", hint)
    return at_key("unknown-key", entry, f"`{entry.key}` has no place beside `{form.head}`", hint)


def string_value(node: Node, what: str) -> str:
    """Return the string of a node.

    Raises
    ------
    Refusal
        if it is something else.
    """
    if isinstance(node, Scalar) and isinstance(node.value, str) and node.value:
        return node.value
    raise Refusal("wrong-shape", node, f"{what} is expected here, not {describe(node)}")


def single_operator(node: Mapping, other_keys: Collection[str], what: str) -> Entry:
    """Return the entry of the one operator in a mapping.

    Raises
    ------
    Refusal
        if there is none, more than one, or a key that is neither an operator nor one of ``other_keys``.
    """
    operators: list[Entry] = []
    for entry in node:
        if entry.key in OPERATORS:
            operators.append(entry)
        elif entry.key not in other_keys:
            hint = nearest(entry.key, [*OPERATORS, *other_keys]) or f"the operators are {listing(OPERATORS, limit=30)}"
            raise at_key("unknown-operator", entry, f"there is no operator `{entry.key}`", hint)
    if not operators:
        raise Refusal(
            "no-operator", node, f"{what} has nothing to be compared with", "add an operator, e.g. `equals: ...`"
        )
    if len(operators) > 1:
        message = f"`{operators[0].key}` and `{operators[1].key}` cannot stand in one condition"
        raise at_key("several-operators", operators[1], message, "make two conditions of them, or write `between`")
    return operators[0]


def check_operator(entry: Entry, operand: Operand, value_type: ValueType | None) -> Operator:
    """Return the operator of an entry, checked against the type of its operand; None is an unknown type.

    Raises
    ------
    Refusal
        if the operator does not take operands of this type.
    """
    operator = OPERATORS[entry.key]
    if operator.boundaries and isinstance(operand, EventAggregate | PropertyRef | EventTime):
        message = f"`{entry.key}` cannot look at the property of an event"
        raise at_key("operator-type", entry, message, "the window `within` already says how long ago the event may be")
    if operator.name == "exists" and not _can_be_missing(operand):
        raise at_key("operator-type", entry, f"`{operand}` is never missing, so `exists` decides nothing")
    if value_type is None or operator.name == "exists":
        return operator
    allowed = operators_for(value_type.kind, value_type.is_list)
    if operator.name not in allowed:
        message = f"`{entry.key}` does not apply to `{operand}`, which is of type {value_type}"
        raise at_key("operator-type", entry, message, f"for this type there are {', '.join(allowed)}")
    return operator


def _can_be_missing(operand: Operand) -> bool:
    if isinstance(operand, EventAggregate):
        return not AGGREGATES[operand.function].never_missing
    return not isinstance(operand, ClockRef | EventTime)


def boolean_option(node: Mapping, key: str, operator: Operator, value_type: ValueType | None = None) -> bool:
    """Return the value of ``ignore_case`` or ``or_missing``; False if it is not given.

    Raises
    ------
    Refusal
        if it is neither true nor false, or has no meaning with this operator.
    """
    if key not in node:
        return False
    entry = node.entry(key)
    value = entry.value.value if isinstance(entry.value, Scalar) else None
    if not isinstance(value, bool):
        raise Refusal("literal-type", entry.value, f"`{key}` is `true` or `false`, not {describe(entry.value)}")
    if key == "ignore_case" and not (operator.foldable and value_type in (None, ValueType(Kind.STRING))):
        raise at_key(
            "option-not-allowed", entry, f"`ignore_case` applies to strings, not to `{operator.name}` here", "remove it"
        )
    if key == "or_missing" and operator.name == "exists":
        raise at_key(
            "option-not-allowed", entry, "`exists` is never unknown, so `or_missing` decides nothing", "remove it"
        )
    return value
