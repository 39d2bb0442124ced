"""Random conditions without children: a feature, a context value, the clock, events."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, TypeVar

from hypothesis import strategies as st

from rules_engine.rules.aggregates import AGGREGATES, NUMBERS_AND_TIMES
from rules_engine.rules.operators import COUNT_OPERATORS, OPERATORS, Argument, Operator, operators_for
from rules_engine.rules.types import Kind
from tests.property import pools
from tests.reference_values import length

Condition = dict[str, Any]
Draw = st.DrawFn
T = TypeVar("T")
NUMERIC = ("Int64", "Int32", "Float64", "Float32")


@dataclass(frozen=True)
class Vocabulary:
    """What the conditions of one example speak of: its features, durations and zone."""

    types: Mapping[str, str]
    now: datetime
    durations: tuple[str, ...]
    zone: str
    exact: bool
    events: bool
    lively: bool

    def instants(self, future: bool = True) -> st.SearchStrategy[datetime]:
        """Return instants on the edges of windows around now, to the microsecond."""
        single = [length(text) for text in self.durations]
        steps = [
            timedelta(),
            *single * 4,
            *[step / 2 for step in single] * 3,
            *[one + two for one in single for two in single],
        ]
        offsets = [
            sign * step + tick * pools.TICK
            for step in steps
            for sign in (-1, -1, -1, 1)
            for tick in (0, 0, 0, 1, 1, -1)
        ]
        return st.sampled_from([self.now + offset for offset in offsets if future or offset <= timedelta()])


# ---------------------------------------------------------------------------------------------- values


def maybe(draw: Draw, percent: int) -> bool:
    return draw(st.integers(1, 100)) > 100 - percent


def one_of(draw: Draw, values: Sequence[T]) -> T:
    return draw(st.sampled_from(values))


def literal_text(instant: datetime) -> str:
    return instant.isoformat().replace("+00:00", "Z")


def scalar_pool(feast_type: str) -> Sequence[Any]:
    pool: dict[str, Sequence[Any]] = {
        "Int64": pools.INTEGERS,
        "Int32": (*pools.SMALL_INTEGERS, 2**31 - 1, -(2**31)),
        "Float64": pools.FLOATS,
        "Float32": pools.FLOATS32,
        "String": pools.STRINGS,
        "Bool": (True, False),
        "Bytes": (b"", b"\x00\xff", b"a"),
    }
    return pool[feast_type]


def present_value(draw: Draw, feast_type: str, words: Vocabulary) -> Any:
    """Draw a value that a feature of this type may have."""
    if feast_type == "UnixTimestamp":
        return draw(words.instants())
    if feast_type.startswith("Array("):
        return draw_list(draw, feast_type[6:-1])
    pool = scalar_pool(feast_type)
    if feast_type.startswith("Float"):
        pool = (*pool, *pools.ENDLESS, float("nan"))
    return one_of(draw, pool)


def draw_list(draw: Draw, element: str) -> list[Any]:
    pool = {"String": (*pools.SHORT_STRINGS, None), "Int64": (*pools.SMALL_INTEGERS, 2**53 + 1, None)}
    return draw(st.lists(st.sampled_from(pool.get(element, (*pools.HALVES, float("nan"), None))), max_size=4))


def typed_literal(draw: Draw, kind: str, words: Vocabulary) -> Any:
    """Draw a literal for a scalar of this Feast type or kind."""
    if kind in ("UnixTimestamp", "time"):
        return literal_text(draw(words.instants()))
    if kind in (*NUMERIC, "number"):
        return one_of(draw, one_of(draw, (pools.SMALL_INTEGERS, pools.HALVES, pools.INTEGERS, pools.FLOATS)))
    if kind in ("String", "string"):
        return one_of(draw, one_of(draw, (pools.SHORT_STRINGS, pools.STRINGS)))
    return one_of(draw, (True, False))


# ---------------------------------------------------------------------------------------------- predicates


#: The kind of operand that the operator table knows, by what the pools call it.
KINDS: Mapping[str, Kind] = {
    **dict.fromkeys(("Int64", "Int32"), Kind.INTEGER),
    **dict.fromkeys(("Float64", "Float32", "number"), Kind.FLOAT),
    **dict.fromkeys(("String", "string"), Kind.STRING),
    **dict.fromkeys(("Bool", "bool"), Kind.BOOLEAN),
    **dict.fromkeys(("UnixTimestamp", "time"), Kind.TIME),
    "Bytes": Kind.BYTES,
}


def draw_test(draw: Draw, kind: str, words: Vocabulary, relative: bool, declared: bool) -> dict[str, Any]:
    """Draw an operator with its argument, and perhaps options, for an operand of this kind.

    Parameters
    ----------
    relative
        False leaves out the operators that read the clock.
    declared
        False leaves out those that need to know that the operand is a time, which a literal does not tell.
    """
    is_list = kind.startswith("Array(") or kind == "list"
    element = (kind[6:-1] if kind.startswith("Array(") else "String") if is_list else kind
    names = [
        name
        for name in operators_for(KINDS[element], is_list)
        if (relative or OPERATORS[name].boundaries is None)
        and OPERATORS[name].argument is not Argument.CALENDAR  # test_calendar.py draws those, with instants near days
        and (declared or KINDS[element] is not Kind.TIME or OPERATORS[name].kinds == {Kind.TIME} or name == "exists")
    ]
    operator = OPERATORS[one_of(draw, names)]
    folded = operator.foldable and KINDS[element] is Kind.STRING and maybe(draw, 30)
    test = {operator.name: draw_argument(draw, operator, element, words, folded)}
    if folded:
        test["ignore_case"] = True
    if operator.name != "exists" and maybe(draw, 12):
        test["or_missing"] = True
    return test


def draw_argument(draw: Draw, operator: Operator, kind: str, words: Vocabulary, folded: bool = False) -> Any:
    """Draw what follows an operator on an operand, or on elements, of this kind."""

    def literal() -> Any:
        if operator.on_lists:
            elements = pools.SHORT_STRINGS if kind == "String" else (*pools.SMALL_INTEGERS, 2.5, 2**53 + 1)
            return one_of(draw, elements)
        return typed_literal(draw, kind, words)

    match operator.argument:
        case Argument.LITERAL:
            return literal()
        case Argument.LITERALS:
            return [literal() for _ in range(draw(st.integers(1, 3)))]
        case Argument.PAIR:
            return sorted(literal() for _ in range(2))
        case Argument.FLAG:
            return one_of(draw, (True, False))
        case Argument.DURATION:
            return one_of(draw, words.durations)
        case Argument.TEXT:
            return one_of(draw, [text for text in (*pools.SHORT_STRINGS, *pools.STRINGS) if text])
        case Argument.PATTERN:
            return one_of(draw, pools.FOLDED_PATTERNS if folded else pools.PATTERNS)


# ---------------------------------------------------------------------------------------------- leaves


def feature_leaf(draw: Draw, words: Vocabulary) -> Condition:
    name = one_of(draw, sorted(words.types))
    return {"feature": name, **draw_test(draw, words.types[name], words, relative=True, declared=True)}


def context_leaf(draw: Draw, words: Vocabulary) -> Condition:
    name = one_of(draw, sorted(pools.CONTEXT))
    kind = pools.CONTEXT[name]
    test = draw_test(draw, kind, words, relative=True, declared=False)
    if kind in ("string", "number", "bool") and "exists" not in test and maybe(draw, 15):
        test["default"] = typed_literal(draw, kind, words)
    return {"context": name, **test}


def clock_leaf(draw: Draw, words: Vocabulary) -> Condition:
    zone: dict[str, Any] = one_of(draw, ({}, {"timezone": words.zone}, {"timezone": {"feature": "u:zone"}}))
    if words.zone != "UTC" and not zone:
        zone = {"timezone": words.zone}
    field, kind, pool = one_of(
        draw, (("day_of_week", Kind.DAY_OF_WEEK, pools.DAYS), ("time_of_day", Kind.TIME_OF_DAY, pools.TIMES_OF_DAY))
    )
    name = one_of(draw, [name for name in operators_for(kind, is_list=False) if name != "exists"])
    return {"clock": field, name: drawn_from(draw, OPERATORS[name], pool), **zone}


def drawn_from(draw: Draw, operator: Operator, pool: Sequence[Any]) -> Any:
    """Draw what follows an operator that compares with values of this pool."""
    if operator.argument is Argument.LITERAL:
        return one_of(draw, pool)
    size = 2 if operator.argument is Argument.PAIR else draw(st.integers(1, 3))
    return sorted(draw(st.lists(st.sampled_from(pool), min_size=size, max_size=size)))


def draw_where(draw: Draw, words: Vocabulary, percent: int = 25) -> dict[str, Any]:
    """Draw `where`, or nothing."""
    if not maybe(draw, percent):
        return {}
    names = draw(st.lists(st.sampled_from(sorted(pools.PROPERTIES)), min_size=1, max_size=2, unique=True))
    tests = {name: draw_property(draw, pools.PROPERTIES[name], words) for name in names}
    if maybe(draw, 15):
        tests["at"] = draw_local_time(draw, words)
    if maybe(draw, 70):
        return {"where": tests}
    group = one_of(draw, ("any", "all", "none", "not"))
    return {"where": {group: tests if group == "not" else [{name: test} for name, test in tests.items()]}}


def draw_local_time(draw: Draw, words: Vocabulary) -> dict[str, Any]:
    """Draw what `at` in `where` says."""
    zone = {"timezone": words.zone} if words.zone != "UTC" else {}
    field, kind, pool = one_of(
        draw, (("day_of_week", Kind.DAY_OF_WEEK, pools.DAYS), ("time_of_day", Kind.TIME_OF_DAY, pools.TIMES_OF_DAY))
    )
    name = one_of(draw, [name for name in operators_for(kind, is_list=False) if name != "exists"])
    return {field: {name: drawn_from(draw, OPERATORS[name], pool)}, **zone}


def draw_property(draw: Draw, kind: str, words: Vocabulary) -> Any:
    if kind in ("string", "number", "bool") and maybe(draw, 40):
        return typed_literal(draw, kind, words)
    return draw_test(draw, kind, words, relative=False, declared=False)


def draw_count(draw: Draw) -> dict[str, Any]:
    """Draw the test of a number of events: one that some number passes and another does not."""
    operator = OPERATORS[one_of(draw, sorted(COUNT_OPERATORS))]
    for _ in range(20):
        argument = drawn_from(draw, operator, range(5))
        answers = {operator.meaning(number, argument, 0) for number in range(12)}
        if answers == {True, False}:
            return {operator.name: argument}
    return {"at_least": 2}


def window(draw: Draw, words: Vocabulary) -> str:
    return one_of(draw, (*words.durations * 4, "ever"))


def did_leaf(draw: Draw, words: Vocabulary) -> Condition:
    form = one_of(draw, ("did", "did", "did_not"))
    leaf = {form: one_of(draw, pools.EVENTS), "within": window(draw, words), **draw_where(draw, words)}
    return {**leaf, "count": draw_count(draw)} if form == "did" and maybe(draw, 60) else leaf


def aggregate_leaf(draw: Draw, words: Vocabulary) -> Condition:
    row = one_of(draw, [row for row in AGGREGATES.values() if row.kinds is not None])
    form, number = row.function.value, row.kinds <= NUMBERS_AND_TIMES
    name = (
        "price"
        if number
        else one_of(draw, sorted(pools.PROPERTIES if row.takes_lists else set(pools.PROPERTIES) - {"tags"}))
    )
    source = {"event": one_of(draw, pools.EVENTS), "of": name, **draw_where(draw, words, 25)}
    if row.is_count:
        test = draw_count(draw)
    elif number:
        test = amount_test(draw, row.never_missing, words)
    else:
        test = draw_test(draw, pools.PROPERTIES[name], words, relative=False, declared=False)
    return {form: source, "within": window(draw, words), **test}


def days_leaf(draw: Draw, words: Vocabulary) -> Condition:
    """Draw a count of days."""
    source = {"event": one_of(draw, pools.EVENTS), "timezone": words.zone, **draw_where(draw, words, 25)}
    return {"distinct_days": source, "within": window(draw, words), **draw_count(draw)}


def did_any_leaf(draw: Draw, words: Vocabulary) -> Condition:
    """Draw a count of the events of several names."""
    names = draw(st.lists(st.sampled_from(sorted(set(pools.EVENTS))), min_size=2, max_size=3, unique=True))
    leaf = {"did_any": names, "within": window(draw, words), **draw_where(draw, words)}
    return {**leaf, "count": draw_count(draw)} if maybe(draw, 60) else leaf


def calculation_leaf(draw: Draw, words: Vocabulary) -> Condition:
    """Draw what two counts come to; counts are small, so that no engine rounds."""
    terms = [
        {"count": {"event": one_of(draw, pools.EVENTS), **draw_where(draw, words)}, "within": window(draw, words)}
        for _ in range(2)
    ]
    operator = one_of(draw, ("at_least", "less_than", "equals"))
    return {one_of(draw, ("total", "difference", "product", "ratio")): terms, operator: one_of(draw, (0, 0.5, 1, 2, 3))}


def first_time_leaf(draw: Draw, words: Vocabulary) -> Condition:
    """Draw a first time."""
    return {
        "first_time": one_of(draw, pools.EVENTS),
        "within": one_of(draw, words.durations),
        **draw_where(draw, words),
    }


def nth_leaf(draw: Draw, words: Vocabulary) -> Condition:
    """Draw a comparison of what the n-th event has."""
    name = one_of(draw, ("sku", "price", "gift"))
    source = {"event": one_of(draw, pools.EVENTS), "n": one_of(draw, (1, 2, 3)), "of": name, **draw_where(draw, words)}
    test = draw_test(draw, pools.PROPERTIES[name], words, relative=False, declared=False)
    return {"nth": source, "within": window(draw, words), **test}


def amount_test(draw: Draw, never_missing: bool, words: Vocabulary) -> dict[str, Any]:
    """Draw a test of an aggregate of prices, with literals that sums and means of prices hit."""
    if not never_missing and maybe(draw, 10):
        return {"exists": one_of(draw, (True, False))}
    pool = (0, 1, 2, 2.5, 3, 4, 5, 7, 10, 12.5, 15, -1) if words.exact or maybe(draw, 80) else pools.FLOATS
    name = one_of(draw, [name for name in operators_for(Kind.FLOAT, is_list=False) if name != "exists"])
    test = {name: drawn_from(draw, OPERATORS[name], pool)}
    return {**test, "or_missing": True} if not never_missing and maybe(draw, 10) else test


def sequence_leaf(draw: Draw, words: Vocabulary) -> Condition:
    """Draw a sequence of two to four steps that could hold."""
    steps = [{"did": one_of(draw, pools.EVENTS), **draw_where(draw, words, 20)}]
    steps += [later_step(draw, words) for _ in range(draw(st.integers(1, 3)))]
    for step in reversed(steps):
        if "did" in step:
            break
        step.setdefault("within", one_of(draw, words.durations))
    pause = sum((length(step["within"]) for step in steps if "did_not" in step and "within" in step), timedelta())
    long_enough = [text for text in words.durations if length(text) > pause]
    leaf: Condition = {"sequence": steps}
    if long_enough and maybe(draw, 75):
        leaf["within"] = one_of(draw, long_enough)
    if maybe(draw, 30):
        leaf["match_on"] = one_of(draw, ("sku", "price", "gift"))
    if maybe(draw, 40):
        leaf["anchor"] = one_of(draw, ("any", "latest"))
    return leaf


def later_step(draw: Draw, words: Vocabulary) -> dict[str, Any]:
    step = {one_of(draw, ("did", "did", "did_not")): one_of(draw, pools.EVENTS), **draw_where(draw, words, 20)}
    return {**step, "within": one_of(draw, words.durations)} if maybe(draw, 50) else step
