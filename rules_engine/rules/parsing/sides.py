"""The right side of an operator, where it is no literal: another value, which may be multiplied and divided."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from fractions import Fraction

from rules_engine.definitions.source import Entry, Node, Scalar
from rules_engine.definitions.source import Mapping as MappingNode
from rules_engine.diagnostics import listing, nearest
from rules_engine.rules.forms import SCALED_OPTIONAL, TWO_SIDED
from rules_engine.rules.nodes import Predicate, Side, Source, TwoSides
from rules_engine.rules.operators import OPERATORS, Argument, Operator
from rules_engine.rules.parsing.literals import Refusal, describe
from rules_engine.rules.parsing.operand_checks import at_key, boolean_option, check_operator
from rules_engine.rules.types import FLOAT, INTEGER, TIME, ValueType

#: The largest factor; the smallest is its inverse, and there are as many decimals.
MAX_FACTOR = 1_000_000

#: The largest whole number that a float holds, with all below it.
_EXACT = 2**53


@dataclass(frozen=True, slots=True)
class Value:
    """One value on the right side: its first key, the keys that it may have, what reads it, and an example."""

    head: str
    keys: tuple[str, ...]
    read: Callable[[MappingNode], tuple[Source, ValueType | None] | None]
    example: str


#: The values that may stand on a right side, by their first key.
Values = Mapping[str, Value]

#: Gives an operand whose type nothing declares the type of the other side.
Typed = Callable[[Source, ValueType | None], Source]


@dataclass(frozen=True, slots=True)
class Left:
    """The left side: an operand, its type if it is known, and the mapping in which its operator and options stand."""

    operand: Source
    type: ValueType | None
    node: MappingNode


def is_side(operator: Operator, node: Node) -> bool:
    """Say whether what follows an operator is another value.

    Raises
    ------
    Refusal
        if it is, and the operator compares with none.
    """
    if not isinstance(node, MappingNode) or operator.argument is Argument.CALENDAR:
        return False
    if operator.name not in TWO_SIDED:
        hint = f"{listing(TWO_SIDED)} do"
        if operator.name == "between":
            hint = "make two conditions of it, with `at_least` and `at_most`"
        raise Refusal("wrong-shape", node, f"`{operator.name}` does not compare with another value", hint)
    return True


def two_sided(left: Left, entry: Entry, values: Values, typed: Typed) -> Predicate | None:
    """Return the comparison of a left side with the value that follows its operator; None if that is refused.

    Raises
    ------
    Refusal
        if the two can never compare, or always compare alike.
    """
    assert isinstance(entry.value, MappingNode), entry
    operator = OPERATORS[entry.key]
    if "ignore_case" in left.node:
        raise at_key("option-not-allowed", left.node.entry("ignore_case"), "two values compare with their case")
    or_missing = boolean_option(left.node, "or_missing", operator)
    parsed = _side(entry.value, values)
    if parsed is None:
        return None
    side, right_type = parsed
    value_type = _common_type(left, right_type, entry)
    if not side.is_plain and value_type is not None and not value_type.kind.is_number:
        raise Refusal(
            "operator-type", entry.value, f"only numbers are multiplied and divided, and this is a {value_type}"
        )
    operand = typed(left.operand, value_type)
    side = Side(typed(side.value, value_type), side.times, side.over, side.divisor and typed(side.divisor, FLOAT))
    if side.is_plain and operand == side.value:
        code = "never-false" if operator.meaning(0, 0, 0) else "never-true"
        raise Refusal(code, entry.value, f"`{operand}` is compared with itself", "name another value")
    comparison = TwoSides(operand, side, value_type)
    return Predicate(comparison, operator.name, 0, INTEGER, or_missing=or_missing, span=left.node.span)


def _common_type(left: Left, right: ValueType | None, entry: Entry) -> ValueType | None:
    """Return the type as which both sides are read; None where nothing tells it and any type compares."""
    for value_type in (left.type, right):
        if value_type is not None and value_type.is_list:
            raise Refusal("operator-type", entry.value, f"two single values are compared, and one is a {value_type}")
    if left.type is not None and right is not None and not _agree(left.type, right):
        message = f"`{left.operand}` is of type {left.type} and never compares with a {right}"
        raise Refusal("literal-type", entry.value, message, "compare values of one type")
    value_type = left.type or right
    if value_type is None:
        if entry.key in ("before", "after"):
            return TIME
        return None if entry.key in ("equals", "not_equals") else FLOAT
    check_operator(entry, left.operand, value_type)
    return _number_type(left.type, right) if value_type.kind.is_number else value_type


def _number_type(first: ValueType | None, second: ValueType | None) -> ValueType:
    """Return the type of two numbers: decimal if both are."""
    decimals = [None if value_type is None else value_type.decimals for value_type in (first, second)]
    places = [each for each in decimals if each is not None]
    return replace(FLOAT, decimals=max(places)) if len(places) == len(decimals) else FLOAT


def _agree(first: ValueType, second: ValueType) -> bool:
    return first.kind is second.kind or (first.kind.is_number and second.kind.is_number)


# --- the right side -------------------------------------------------------------------------------------------------


def _side(node: MappingNode, values: Values) -> tuple[Side, ValueType | None] | None:
    if "of" not in node:
        parsed = value_in(node, values)
        return None if parsed is None else (Side(parsed[0]), parsed[1])
    for entry in node:
        if entry.key not in ("of", *SCALED_OPTIONAL):
            hint = nearest(entry.key, SCALED_OPTIONAL) or "there are `times` and `divided_by`"
            raise at_key("unknown-key", entry, f"`{entry.key}` has no place beside `of`", hint)
    inner = node.entry("of").value
    if not isinstance(inner, MappingNode):
        raise Refusal("wrong-shape", inner, f"`of` takes a value, not {describe(inner)}", _hint(values))
    parsed = value_in(inner, values)
    factor, divisor = Fraction(1), None
    if "times" in node:
        factor = _factor(node.entry("times"))
    if "divided_by" in node:
        by = node.entry("divided_by")
        if isinstance(by.value, MappingNode):
            divisor = _divisor(by.value, values)
            parsed = None if divisor is None else parsed
        else:
            factor /= _factor(by)
    if max(factor.numerator, factor.denominator) > _EXACT:
        raise _no_factor(node.entry("times"))
    if parsed is None:
        return None
    return Side(parsed[0], factor.numerator, factor.denominator, divisor), parsed[1] or FLOAT


def _divisor(node: MappingNode, values: Values) -> Source | None:
    parsed = value_in(node, values)
    if parsed is None:
        return None
    if parsed[1] is not None and not (parsed[1].kind.is_number and not parsed[1].is_list):
        raise Refusal("operator-type", node, f"a value is divided by a number, and this is a {parsed[1]}")
    return parsed[0]


def _factor(entry: Entry) -> Fraction:
    value = entry.value.value if isinstance(entry.value, Scalar) else None
    if isinstance(value, bool) or not isinstance(value, int | float):
        message = f"`{entry.key}` takes a number, not {describe(entry.value)}"
        raise Refusal("invalid-factor", entry.value, message, "write e.g. `0.5`")
    try:
        factor = Fraction(str(value))
    except ValueError:  # an infinity, or NaN
        raise _no_factor(entry) from None
    if not Fraction(1, MAX_FACTOR) <= factor <= MAX_FACTOR or (factor * MAX_FACTOR).denominator != 1:
        raise _no_factor(entry)
    return factor


def _no_factor(entry: Entry) -> Refusal:
    message = f"`{entry.key}` takes a number from 0.000001 to {MAX_FACTOR:,}, with six decimals at most"
    return Refusal("invalid-factor", entry.value, message)


def value_in(node: MappingNode, values: Values) -> tuple[Source, ValueType | None] | None:
    """Return the value that a mapping says, and its type if it is known; None after a problem that was reported.

    Raises
    ------
    Refusal
        if it says none.
    """
    heads = [entry for entry in node if entry.key in values]
    if not heads:
        raise _no_value(node, values)
    if len(heads) > 1:
        message = f"`{heads[0].key}` and `{heads[1].key}` cannot stand in one value"
        raise at_key("several-forms", heads[1], message, "name one value")
    value = values[heads[0].key]
    for entry in node:
        if entry.key not in value.keys:
            hint = nearest(entry.key, value.keys) or f"for example `{value.example}`"
            if entry.key in SCALED_OPTIONAL:
                hint = f"write `{{of: {{{value.head}: ...}}, {entry.key}: ...}}`"
            raise at_key("unknown-key", entry, f"`{entry.key}` has no place beside `{value.head}` here", hint)
    return value.read(node)


def _no_value(node: MappingNode, values: Values) -> Refusal:
    for entry in node:
        hint = nearest(entry.key, values)
        if hint:
            return at_key("unknown-key", entry, f"there is no value `{entry.key}`", hint)
    return Refusal("unknown-form", node, "none of these keys says what the value is", _hint(values))


def _hint(values: Values) -> str:
    example = next(iter(values.values())).example
    return f"there can be {listing(values, limit=30)}, e.g. `{example}`"
