"""Reads what follows an operator, as the operator takes it."""

from __future__ import annotations

from typing import Any

from rules_engine.definitions.source import Items, Node, Scalar
from rules_engine.rules.calendar_spans import CalendarSpan
from rules_engine.rules.operators import Argument, Operator
from rules_engine.rules.parsing.calendar_spans import calendar_span
from rules_engine.rules.parsing.literals import Refusal, describe, duration, literal, refuse_null
from rules_engine.rules.text import MAX_PATTERN_LENGTH, fold_case, pattern_problem
from rules_engine.rules.types import Kind, ValueType


def convert_argument(operator: Operator, node: Node, value_type: ValueType | None, ignore_case: bool) -> Any:
    """Return the argument of a predicate, ready to be compared.

    Raises
    ------
    Refusal
        if it is not what the operator takes, or not of the operand's type.
    """
    match operator.argument:
        case Argument.FLAG:
            return _flag(operator, node)
        case Argument.DURATION:
            return duration(node)
        case Argument.TEXT:
            text = _text(operator, node)
            return fold_case(text) if ignore_case else text
        case Argument.CALENDAR:
            return _span(operator, node)
        case Argument.PATTERN:
            return ("(?i)" if ignore_case else "") + _pattern(operator, node)
        case Argument.LITERAL:
            return literal(node, value_type, ignore_case)
        case Argument.LITERALS:
            return _literals(operator, node, value_type, ignore_case)
        case Argument.PAIR:
            return _pair(operator, node, value_type)


def _flag(operator: Operator, node: Node) -> bool:
    if isinstance(node, Scalar) and isinstance(node.value, bool):
        return node.value
    raise Refusal("literal-type", node, f"`{operator.name}` takes `true` or `false`, not {describe(node)}")


def _text(operator: Operator, node: Node) -> str:
    if not isinstance(node, Scalar) or isinstance(node.value, bool) or not isinstance(node.value, str):
        refuse_null(node)
        raise Refusal("literal-type", node, f"`{operator.name}` takes a string, not {describe(node)}", "quote it")
    return node.value


def _pattern(operator: Operator, node: Node) -> str:
    pattern = _text(operator, node)
    if len(pattern) > MAX_PATTERN_LENGTH:
        message = f"the regular expression has {len(pattern)} characters; at most {MAX_PATTERN_LENGTH} are allowed"
        raise Refusal("regex-too-long", node, message)
    problem = pattern_problem(pattern)
    if problem is not None:
        raise Refusal(problem.code, node, f"this regular expression cannot be used: {problem.message}")
    return pattern


def _literals(operator: Operator, node: Node, value_type: ValueType | None, ignore_case: bool) -> tuple[Any, ...]:
    if not isinstance(node, Items):
        raise Refusal("wrong-shape", node, f"`{operator.name}` takes a list, not {describe(node)}", "write `[...]`")
    if not node.items:
        raise Refusal("empty-list", node, f"`{operator.name}` takes at least one value; an empty list decides nothing")
    return tuple(literal(item, value_type, ignore_case) for item in node.items)


def _pair(operator: Operator, node: Node, value_type: ValueType | None) -> tuple[Any, Any]:
    if not isinstance(node, Items) or len(node.items) != 2:
        raise Refusal("wrong-shape", node, f"`{operator.name}` takes a list of two values, `[low, high]`")
    low, high = (literal(item, value_type, False) for item in node.items)
    if low > high:
        hint = "write the lower value first"
        if value_type and value_type.kind is Kind.TIME_OF_DAY:
            hint = "over midnight, write `any:` of `at_least` and `at_most`"
        raise Refusal("between-order", node, "nothing is between a high and a lower value", hint)
    return low, high


def _span(operator: Operator, node: Node) -> CalendarSpan:
    span = calendar_span(node, operator.name)
    if operator.name == "anniversary_in" and span.holds_a_year:
        message = f"every date has an anniversary in {span}"
        raise Refusal("never-false", node, message, "name less than a year, e.g. `{calendar: month}`")
    return span
