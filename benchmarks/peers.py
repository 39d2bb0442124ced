"""Other libraries that answer the same segments, each in the fastest way that its documentation shows.

What all of them are given is made outside the measured time: compiled rules, and the user's values as the mapping that
the library takes. Each returns the names of the segments, as ours does.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import chain, compress
from typing import Any

from benchmarks.workload import COLUMNS
from rules_engine.rules.nodes import AllOf, AnyOf, Condition, FeatureRef, Not, Predicate
from rules_engine.rules.program import Program

#: From a user's values by feature name to the names of the segments.
Matcher = Callable[[Mapping[str, Any]], frozenset[str]]


@dataclass(frozen=True)
class Peer:
    """A library: the module that it needs, and how it compiles a program. ``slow`` ones are asked for few users."""

    name: str
    module: str
    compile: Callable[[Program], Matcher]
    slow: bool = False

    @property
    def is_installed(self) -> bool:
        return find_spec(self.module) is not None


# --- expression languages -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Syntax:
    """How an expression language writes what the workload uses."""

    both: str
    either: str
    negation: str
    contains: str
    is_in: str = "{name} in [{values}]"

    def write(self, condition: Condition) -> str:
        if isinstance(condition, AllOf | AnyOf):
            word = self.both if isinstance(condition, AllOf) else self.either
            return "(" + f" {word} ".join(self.write(child) for child in condition.conditions) + ")"
        if isinstance(condition, Not):
            return self.negation.format(self.write(condition.condition))
        assert isinstance(condition, Predicate), condition
        return f"({self._predicate(condition)})"

    def _predicate(self, predicate: Predicate) -> str:
        name, argument = name_of(predicate), predicate.argument
        if predicate.operator in _COMPARISONS:
            return f"{name} {_COMPARISONS[predicate.operator]} {json.dumps(argument)}"
        if predicate.operator == "between":
            low, high = map(json.dumps, argument)
            return f"{name} >= {low} {self.both} {name} <= {high}"
        if predicate.operator == "contains":
            return self.contains.format(name=name, value=json.dumps(argument))
        inside = self.is_in.format(name=name, values=", ".join(map(json.dumps, argument)))
        return inside if predicate.operator == "in" else self.negation.format(f"({inside})")


_COMPARISONS = {
    "equals": "==",
    "not_equals": "!=",
    "at_least": ">=",
    "greater_than": ">",
    "at_most": "<=",
    "less_than": "<",
}


def name_of(predicate: Predicate) -> str:
    assert isinstance(predicate.operand, FeatureRef), predicate.operand
    return predicate.operand.name


ZEN = Syntax("and", "or", "not {}", "contains({name}, {value})")
CEL = Syntax("&&", "||", "!{}", "{name}.contains({value})")
RULE_ENGINE = Syntax("and", "or", "not {}", "{value} in {name}")


def _one_list(syntax: Syntax, program: Program, names: Sequence[str]) -> str:
    """Many segments as one expression that gives a list of truth values: one call for all."""
    return "[" + ", ".join(syntax.write(program.segments[name].when) for name in names) + "]"


def zen_list(program: Program) -> Matcher:
    import zen

    names, expression = program.names, zen.compile_expression(_one_list(ZEN, program, program.names))
    return lambda values: frozenset(compress(names, expression.evaluate(values)))


def zen_each(program: Program) -> Matcher:
    import zen

    rules = [(name, zen.compile_expression(ZEN.write(program.segments[name].when))) for name in program.names]
    return lambda values: frozenset(name for name, rule in rules if rule.evaluate(values))


def rust_cel(program: Program) -> Matcher:
    import cel

    names, compiled = program.names, cel.compile(_one_list(CEL, program, program.names))
    return lambda values: frozenset(compress(names, compiled.execute(values)))


def cpp_cel(program: Program) -> Matcher:
    from cel_expr_python import cel

    kinds = {"string": cel.Type.STRING, "integer": cel.Type.INT, "number": cel.Type.DOUBLE, "boolean": cel.Type.BOOL}
    environment = cel.NewEnv(variables={column.name: kinds[column.kind] for column in COLUMNS})
    names = program.names
    lists = [  # an expression has at most 100,000 characters
        environment.compile(_one_list(CEL, program, names[start : start + 200])) for start in range(0, len(names), 200)
    ]

    def match(values: Mapping[str, Any]) -> frozenset[str]:
        activation = environment.Activation(values)
        answers = chain.from_iterable(compiled.eval(activation).plain_value() for compiled in lists)
        return frozenset(compress(names, answers))

    return match


def cel_python(program: Program) -> Matcher:
    import celpy

    environment = celpy.Environment()
    rules = [
        (name, environment.program(environment.compile(CEL.write(program.segments[name].when))))
        for name in program.names
    ]

    def match(values: Mapping[str, Any]) -> frozenset[str]:
        activation = celpy.json_to_cel(dict(values))
        return frozenset(name for name, rule in rules if rule.evaluate(activation))

    return match


def rule_engine(program: Program) -> Matcher:
    import rule_engine as library

    rules = [(name, library.Rule(RULE_ENGINE.write(program.segments[name].when))) for name in program.names]
    return lambda values: frozenset(name for name, rule in rules if rule.matches(values))


# --- conditions as data ---------------------------------------------------------------------------------------------


def growthbook(program: Program) -> Matcher:
    from growthbook.core import evalCondition

    rules = [(name, _mongo(program.segments[name].when)) for name in program.names]
    return lambda values: frozenset(name for name, rule in rules if evalCondition(values, rule))


_MONGO = {
    "equals": "$eq",
    "not_equals": "$ne",
    "in": "$in",
    "not_in": "$nin",
    "at_least": "$gte",
    "greater_than": "$gt",
    "at_most": "$lte",
    "less_than": "$lt",
}


def _mongo(condition: Condition) -> dict[str, Any]:
    if isinstance(condition, AllOf | AnyOf):
        word = "$and" if isinstance(condition, AllOf) else "$or"
        return {word: [_mongo(child) for child in condition.conditions]}
    if isinstance(condition, Not):
        return {"$not": _mongo(condition.condition)}
    assert isinstance(condition, Predicate), condition
    name, argument = name_of(condition), condition.argument
    if condition.operator == "between":
        return {name: {"$gte": argument[0], "$lte": argument[1]}}
    if condition.operator == "contains":
        return {name: {"$regex": re.escape(argument)}}
    return {name: {_MONGO[condition.operator]: list(argument) if isinstance(argument, tuple) else argument}}


PEERS = [
    Peer("zen-engine, one list", "zen", zen_list),
    Peer("zen-engine, each rule", "zen", zen_each),
    Peer("CEL in Rust, one list", "cel", rust_cel),
    Peer("CEL in C++, one list", "cel_expr_python", cpp_cel),
    Peer("growthbook", "growthbook", growthbook),
    Peer("rule-engine", "rule_engine", rule_engine, slow=True),
    Peer("cel-python", "celpy", cel_python, slow=True),
]
