"""The compiled rule index at its edges."""

from __future__ import annotations

import math
import subprocess
import sys
import threading
from datetime import UTC, datetime
from typing import Any

import pytest

from rules_engine.clock import DAY, HOUR, to_micros
from rules_engine.errors import UnknownNameError
from rules_engine.rules.aggregates import Aggregate
from rules_engine.rules.calendar_spans import CalendarSpan
from rules_engine.rules.evaluate import Evaluation
from rules_engine.rules.inputs import Event, Inputs
from rules_engine.rules.nodes import (
    AllOf,
    AnyOf,
    ClockField,
    ClockRef,
    Condition,
    ContextRef,
    EventAggregate,
    EventMatch,
    FeatureRef,
    Not,
    Operand,
    Predicate,
    Segment,
    SegmentRef,
    Sequence,
    SequenceStep,
)
from rules_engine.rules.operators import OPERATORS
from rules_engine.rules.program import Program
from rules_engine.rules.types import BOOLEAN, INTEGER, STRING, TIME, Kind, ValueType
from rules_engine.targets.index.event_values import LoggedEvents
from rules_engine.targets.index.normal_form import MAX_PRODUCT, never_false, never_true
from rules_engine.targets.index.rule_index import RuleIndex
from rules_engine.targets.index.tables import SparseCells
from rules_engine.targets.index.texts import MAX_TESTS

NOW = to_micros(datetime(2024, 1, 1, 12, tzinfo=UTC))
NUMBER = FeatureRef("user", "number")
TEXT = FeatureRef("user", "text")


def program(**conditions: Condition) -> Program:
    return Program({name: Segment(name, condition) for name, condition in conditions.items()})


def holds(condition: Condition, value: Any, key: str = "user:number", now: int = NOW) -> bool:
    """The index's answer, which is also the evaluator's."""
    inputs, made = Inputs({key: value}), program(it=condition)
    found = bool(RuleIndex(made).match(inputs, now))
    assert found == (Evaluation(made, inputs, now).segment("it") is True)
    return found


def number(operator: str, argument: Any, **options: bool) -> Predicate:
    return Predicate(NUMBER, operator, argument, INTEGER, **options)


def text(operator: str, argument: Any, **options: bool) -> Predicate:
    return Predicate(TEXT, operator, argument, STRING, **options)


# --- values ---------------------------------------------------------------------------------------------------------

BIG = 2**53


@pytest.mark.parametrize(
    ("operator", "argument", "value", "expected"),
    [
        ("at_least", BIG + 1, float(BIG), False),
        ("at_least", BIG + 1, BIG + 1, True),
        ("at_least", BIG + 1, float(BIG + 2), True),
        ("equals", BIG + 1, float(BIG), False),
        ("equals", float(BIG), BIG, True),
        ("equals", float(BIG), BIG + 1, False),
        ("greater_than", float(BIG), BIG + 1, True),
        ("less_than", 10**400, math.inf, False),
        ("less_than", 10**400, 1.7e308, True),
        ("greater_than", -(10**400), -math.inf, False),
        ("greater_than", -(10**400), -1.7e308, True),
        ("equals", 0, -0.0, True),
        ("greater_than", -0.0, 0, False),
        ("at_most", 0.1, 0.1, True),
        ("greater_than", 0.1, math.nextafter(0.1, 1), True),
        ("greater_than", 5e-324, 5e-324, False),
        ("greater_than", 0, 5e-324, True),
        ("equals", 1, True, False),
        ("not_equals", 1, True, False),
        ("equals", 1, "1", False),
        ("not_equals", 1, math.nan, False),
        ("in", (1, 1.0, 2), 1.0, True),
        ("not_in", (1, 3), 2, True),
        ("between", (2, 2), 2.0, True),
        ("between", (1, 2), 2.0000001, False),
    ],
)
def test_numbers_compare_exactly(operator: str, argument: Any, value: Any, expected: bool) -> None:
    assert holds(number(operator, argument), value) is expected
    assert holds(Not(number(operator, argument)), value) is (not expected and _is_number(value))


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and value == value


@pytest.mark.parametrize(("value", "expected"), [(True, True), (False, False), (1, False), (0, False), (None, False)])
def test_a_number_is_no_truth_value(value: Any, expected: bool) -> None:
    flag = Predicate(NUMBER, "equals", True, BOOLEAN)
    assert holds(flag, value) is expected
    assert holds(Not(flag), value) is (value is False)


def test_one_feature_may_be_asked_as_two_types() -> None:
    asked = program(
        one=Predicate(ContextRef("x"), "equals", 1, INTEGER),
        true=Predicate(ContextRef("x"), "equals", True, BOOLEAN),
        word=Predicate(ContextRef("x"), "equals", "1", STRING),
        default_one=Predicate(ContextRef("y", default=1), "equals", 1, INTEGER),
        default_true=Predicate(ContextRef("y", default=True), "equals", True, BOOLEAN),
    )
    index = RuleIndex(asked)
    defaults = {"default_one", "default_true"}
    for passed, found in ((1, "one"), (1.0, "one"), (True, "true"), ("1", "word")):
        assert index.match(Inputs(context={"x": passed}), NOW) == {found} | defaults
    assert index.match(Inputs(context={"y": 2}), NOW) == frozenset()


class Word(str):
    """A subclass, as numpy's strings are."""


class Whole(int):
    """A subclass, as numpy's are of Python's float."""


def test_subclasses_are_values_of_their_type() -> None:
    assert holds(text("equals", "a"), Word("a"), "user:text")
    assert holds(text("contains", "a"), Word("cab"), "user:text")
    assert holds(number("at_least", 5), Whole(5))


@pytest.mark.parametrize("value", ["", "a", "ab", "b", "\0", "a\0", "\U0010ffff", "\ud800", "é", "A"])
@pytest.mark.parametrize(
    "condition",
    [
        text("equals", ""),
        text("not_equals", ""),
        AllOf((text("equals", ""), text("starts_with", ""))),
        text("starts_with", "a"),
        text("ends_with", "b"),
        text("starts_with", "\U0010ffff"),
        text("in", ("", "a", "a\0")),
        text("not_in", ("a", "\U0010ffff")),
        AnyOf((text("starts_with", "a"), text("equals", "b"))),
        AllOf((text("not_equals", "a"), text("starts_with", "a"))),
        text("equals", "a", ignore_case=True),
        text("ends_with", "a", ignore_case=True),
    ],
)
def test_strings(condition: Condition, value: str) -> None:
    holds(condition, value, "user:text")
    holds(Not(condition), value, "user:text")


def test_a_value_of_no_kind_is_missing() -> None:
    for value in (object(), b"a", ["a"], {"a": 1}, 1 + 2j):
        assert not holds(text("not_equals", "b"), value, "user:text")
        assert holds(text("exists", False), value, "user:text")


def test_every_operator_is_compared_with_the_evaluator() -> None:
    """On a few values of each type that it takes, plain, negated and with or_missing."""
    values: dict[Kind, tuple[Any, ...]] = {
        Kind.BOOLEAN: (True, False),
        Kind.INTEGER: (0, 1, 2, 3),
        Kind.FLOAT: (0.0, 1.5, 2),
        Kind.STRING: ("", "a", "ab"),
        Kind.TIME: (NOW - HOUR, NOW, NOW + HOUR),
        Kind.BYTES: (b"a",),
    }
    judged = 0
    for operator in OPERATORS.values():
        for kind in operator.kinds & values.keys():
            value_type = ValueType(kind, operator.on_lists)
            for argument in _arguments(operator.argument.name, values[kind]):
                for or_missing in {False, operator.name != "exists"}:
                    condition = Predicate(NUMBER, operator.name, argument, value_type, or_missing=or_missing)
                    for value in [None, *([values[kind][:n] for n in range(4)] if operator.on_lists else values[kind])]:
                        holds(condition, value)
                        holds(Not(condition), value)
                        judged += 1
    assert judged > 500


def _arguments(shape: str, values: tuple[Any, ...]) -> list[Any]:
    return {
        "LITERAL": list(values),
        "LITERALS": [values[:1], values],
        "PAIR": [(values[0], values[-1]), (values[-1], values[-1])],
        "FLAG": [True, False],
        "DURATION": [1, HOUR, 2 * HOUR],
        "TEXT": ["a", "b", ""],
        "PATTERN": ["^a", "b$"],
        "CALENDAR": [CalendarSpan("day"), CalendarSpan("day", 1, 7)],
    }[shape]


# --- size -----------------------------------------------------------------------------------------------------------


def flag(position: int) -> Predicate:
    return Predicate(FeatureRef("user", f"flag{position}"), "equals", True, BOOLEAN)


def flags(*positions: int) -> Inputs:
    return Inputs({f"user:flag{position}": position in positions for position in range(200)})


def test_alternatives_do_not_multiply() -> None:
    """Ten of ten alternatives each would be ten thousand million conjunctions."""
    rows = [tuple(flag(10 * row + column) for column in range(10)) for row in range(10)]
    index = RuleIndex(program(grid=AllOf(tuple(map(AnyOf, rows))), no_grid=Not(AllOf(tuple(map(AnyOf, rows))))))
    assert index.layout.width < 300
    assert index.match(flags(*range(0, 100, 10)), NOW) == {"grid"}
    assert index.match(flags(*range(5, 100, 10)), NOW) == {"grid"}
    assert index.match(flags(*range(5, 90, 10)), NOW) == {"no_grid"}


def test_many_alternatives_are_linear() -> None:
    index = RuleIndex(program(some=AnyOf(tuple(map(flag, range(150)))), all=AllOf(tuple(map(flag, range(150))))))
    assert index.layout.width <= 152
    assert index.match(flags(149), NOW) == {"some"}
    assert index.match(flags(*range(150)), NOW) == {"some", "all"}
    assert index.match(flags(), NOW) == frozenset()


@pytest.mark.slow
def test_alternatives_on_one_operand_are_one() -> None:
    either = AnyOf(tuple(number("equals", value) for value in range(1000)))
    assert RuleIndex(program(either=either)).layout.width == 1
    assert holds(either, 999)
    assert not holds(either, 1000)


def test_a_chain_of_references_that_doubles_stays_small() -> None:
    """Each link asks for the one before in both ways, so that written out there would be 2**200 leaves."""
    links: dict[str, Condition] = {"link000": flag(0)}
    for position in range(1, 200):
        before = SegmentRef(f"link{position - 1:03d}")
        changed = AnyOf((AllOf((before, Not(flag(position)))), AllOf((Not(before), flag(position)))))
        links[f"link{position:03d}"] = changed
    index = RuleIndex(program(**links))
    assert index.layout.width < 200 * 2 * MAX_PRODUCT
    for chosen in ((), (0,), (3, 50, 199), tuple(range(200))):
        odd = {f"link{end:03d}" for end in range(200) if sum(position <= end for position in chosen) % 2}
        assert index.match(flags(*chosen), NOW) == odd
        assert index.match(flags(*chosen), NOW, ["link199"]) == odd & {"link199"}


def test_many_segments_have_their_names() -> None:
    index = RuleIndex(program(**{f"above{limit:04d}": number("at_least", limit) for limit in range(1500)}))
    for value in (-1, 0, 63, 64, 700, 1499, 5000):
        wanted = {f"above{limit:04d}" for limit in range(min(value + 1, 1500))}
        assert index.match(Inputs({"user:number": value}), NOW) == wanted


def test_tables_too_large_to_keep_are_put_together_when_asked() -> None:
    index = RuleIndex(program(**{f"above{limit:05d}": number("at_least", limit) for limit in range(12_000)}))
    assert any(isinstance(getattr(table, "cells", None), SparseCells) for table in index.tables)
    for value in (-1, 0, 1, 2, 3, 777, 6_000.5, 11_998, 11_999, 12_000):
        found = index.match(Inputs({"user:number": value}), NOW)
        assert found == {f"above{limit:05d}" for limit in range(min(int(value) + 1, 12_000))}


def test_what_decides_nothing_is_not_looked_up() -> None:
    known = AnyOf((number("exists", True), number("exists", False), text("contains", "a")))
    index = RuleIndex(program(count=_count("at_least", 0), known=known, both=AllOf((known, _count("at_least", 0)))))
    assert index.tables == ()
    assert index.match(Inputs(), NOW) == {"count", "known", "both"}


def test_very_many_patterns_on_one_feature() -> None:
    """More than are all tried on a new string: then only those are that can still matter."""
    count = 2 * MAX_TESTS
    parts = {
        f"part{position:03d}": AllOf((text("contains", f"-{position:03d}-"), flag(position % 2)))
        for position in range(count)
    }
    index = RuleIndex(program(**parts, none=text("not_equals", "x")))
    for value in ("-000-001-", "-126-", "x", "-007-008-009-"):
        for inputs in (flags(0), flags(1), flags(0, 1), flags()):
            given = Inputs({**inputs.features, "user:text": value})
            evaluation = Evaluation(index.program, given, NOW)
            wanted = {name for name in index.program.names if evaluation.segment(name) is True}
            assert index.match(given, NOW) == wanted


def test_strings_are_forgotten_when_there_are_too_many() -> None:
    index = RuleIndex(program(even=text("matches", "[02468]$"), seven=text("contains", "7")))
    for value in [*range(10_000), *range(1_000)]:
        wanted = {"even"} if value % 2 == 0 else set()
        wanted |= {"seven"} if "7" in str(value) else set()
        assert index.match(Inputs({"user:text": str(value)}), NOW) == wanted


def test_nothing_at_all() -> None:
    index = RuleIndex(Program({}))
    assert index.match(Inputs(), NOW) == frozenset()
    assert index.match_until(Inputs(), NOW) == (frozenset(), None)


# --- what is asked ----------------------------------------------------------------------------------------------------


def test_a_segment_that_does_not_exist() -> None:
    index = RuleIndex(program(adult=number("at_least", 18)))
    for ask in (index.match, index.match_until):
        with pytest.raises(UnknownNameError, match="there is no segment `adlt`") as caught:
            ask(Inputs(), NOW, ["adlt"])
        assert caught.value.hint == "did you mean `adult`?"
        with pytest.raises(UnknownNameError, match="there is no segment `zzz`") as caught:
            ask(Inputs(), NOW, ["zzz"])
        assert caught.value.hint == "there is `adult`"
    assert index.match(Inputs({"user:number": 20}), NOW, []) == frozenset()


def test_contradictions_are_seen() -> None:
    never = {
        "range": AllOf((number("greater_than", 5), number("less_than", 3))),
        "words": AllOf((text("equals", "a"), Not(text("in", ("a", "b"))))),
        "prefix": AllOf((text("starts_with", "a"), text("equals", "b"))),
        "missing": AllOf((text("exists", False), text("equals", "b"))),
        "count": _count("less_than", 0),
        "no_count": Predicate(_views(DAY), "exists", False, INTEGER),
        "own_negation": AllOf((SegmentRef("fine"), Not(SegmentRef("fine")))),
        "refers": AllOf((SegmentRef("range"), text("exists", True))),
        "day": AllOf(tuple(Predicate(_DAY, "not_equals", day, _DAY_TYPE) for day in _DAYS)),
        "hours": AllOf((Predicate(_HOURS, "at_least", 9 * HOUR, _TIME_OF_DAY), _before_nine())),
        "wait": AllOf((_opened("in_last", HOUR), _opened("in_next", HOUR))),
        "list": AllOf((_tags("includes", "a"), _tags("includes_none", ("a", "b")))),
    }
    always = {
        "any_number": AnyOf((number("greater_than", 3), number("at_most", 3), number("exists", False))),
        "any_count": _count("at_least", 0),
    }
    fine = {"fine": number("equals", 4), "maybe": AnyOf((SegmentRef("range"), number("equals", 1)))}
    every = program(**never, **always, **fine)
    assert never_true(every) == never.keys()
    assert never_false(every) >= always.keys()
    assert not never_false(every) & fine.keys()
    assert RuleIndex(every).match(Inputs(), NOW) == always.keys()


_DAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
_DAY, _DAY_TYPE = ClockRef(ClockField.DAY_OF_WEEK), ValueType(Kind.DAY_OF_WEEK)
_HOURS, _TIME_OF_DAY = ClockRef(ClockField.TIME_OF_DAY), ValueType(Kind.TIME_OF_DAY)


def _before_nine() -> Predicate:
    return Predicate(_HOURS, "less_than", 9 * HOUR, _TIME_OF_DAY)


def _opened(operator: str, window: int) -> Predicate:
    return Predicate(FeatureRef("user", "opened"), operator, window, TIME)


def _tags(operator: str, argument: Any) -> Predicate:
    return Predicate(FeatureRef("user", "tags"), operator, argument, ValueType(Kind.STRING, is_list=True))


def _views(within: int | None) -> EventAggregate:
    return EventAggregate(Aggregate.COUNT, EventMatch("view"), within)


def _count(operator: str, argument: int, within: int | None = DAY) -> Predicate:
    return Predicate(_views(within), operator, argument, INTEGER)


# --- events and time ------------------------------------------------------------------------------------------------


class Witness(LoggedEvents):
    """A log that writes down what it is asked."""

    def __init__(self, events: tuple[Event, ...]) -> None:
        super().__init__(events)
        self.asked: list[Operand | Sequence] = []

    def aggregate(self, aggregate: EventAggregate, now: int) -> Any:
        self.asked.append(aggregate)
        return super().aggregate(aggregate, now)

    def sequence(self, sequence: Sequence, now: int) -> bool:
        self.asked.append(sequence)
        return super().sequence(sequence, now)


def test_events_are_asked_once_and_only_if_they_can_matter() -> None:
    funnel = Sequence((SequenceStep(EventMatch("view")), SequenceStep(EventMatch("buy"))))
    index = RuleIndex(
        program(
            busy=AllOf((number("at_least", 18), _count("at_least", 2))),
            very_busy=AllOf((number("at_least", 21), _count("at_least", 5))),
            bought=AllOf((number("at_least", 60), funnel)),
        )
    )
    events = (Event("view", NOW - 2, "a"), Event("view", NOW - 1, "b"), Event("buy", NOW, "c"))
    asked = {}
    for age in (10, 30, 70):
        witness = Witness(events)
        index.match(Inputs({"user:number": age}), NOW, events=witness)
        asked[age] = witness.asked
    assert asked == {10: [], 30: [_views(DAY)], 70: [_views(DAY), funnel]}
    assert index.match(Inputs({"user:number": 70}, events=events), NOW) == {"busy", "bought"}


def test_the_set_changes_when_it_is_said_to() -> None:
    index = RuleIndex(
        program(seen=_count("at_least", 1, HOUR), fresh=_opened("in_last", DAY), late=Not(_before_nine()))
    )
    inputs = Inputs(
        {"user:opened": NOW - DAY + 1, "user:number": 5},
        events=(Event("view", NOW, "a"), Event("view", NOW + 10, "b")),
        expires_at={"user": NOW + 7},
    )
    assert index.match_until(inputs, NOW) == ({"seen", "fresh", "late"}, NOW + 1)
    assert index.match_until(inputs, NOW + 1) == ({"seen", "late"}, NOW + HOUR + 10)
    assert index.match_until(inputs, NOW + HOUR + 10) == ({"late"}, NOW + 12 * HOUR)
    assert index.match_until(inputs, NOW, ["late"]) == ({"late"}, NOW + 12 * HOUR)
    assert index.match_until(inputs, NOW + HOUR + 10, ["seen"]) == (frozenset(), None)


def test_a_value_that_expires_leaves_and_lets_others_in() -> None:
    index = RuleIndex(program(known=number("exists", True), unknown=number("exists", False)))
    inputs = Inputs({"user:number": 5}, expires_at={"user": NOW + 7, "other": NOW + 3})
    assert index.match_until(inputs, NOW) == ({"known"}, NOW + 7)
    assert index.match_until(inputs, NOW + 7) == ({"unknown"}, None)


def test_times_beyond_the_calendar_change_nothing() -> None:
    index = RuleIndex(program(due=AllOf((_opened("in_next", HOUR), Not(_before_nine())))))
    for value in (2**62, -(2**62), 10**30):
        assert index.match_until(Inputs({"user:opened": value}), NOW) == (frozenset(), None)


def test_a_zone_that_a_feature_names() -> None:
    zone = ClockRef(ClockField.TIME_OF_DAY, FeatureRef("user", "zone"))
    index = RuleIndex(program(morning=Predicate(zone, "less_than", 12 * HOUR, _TIME_OF_DAY)))
    found = {
        name: index.match(Inputs({"user:zone": name}), NOW)
        for name in ("UTC", "America/New_York", "Asia/Tokyo", "Mars/Olympus", None, 5)
    }
    assert [name for name, segments in found.items() if segments] == ["America/New_York"]


# --- sharing ----------------------------------------------------------------------------------------------------------


def test_threads_share_one_index() -> None:
    segments = {
        f"s{limit:03d}": AllOf((number("at_least", limit), text("contains", str(limit)))) for limit in range(100)
    }
    index = RuleIndex(program(**segments))
    expected = {
        value: frozenset(f"s{limit:03d}" for limit in range(100) if limit <= value and str(limit) in f"<{value * 7}>")
        for value in range(200)
    }
    wrong: list[int] = []

    def work(start: int) -> None:
        for turn in range(600):
            value = (start + turn * 7) % 200
            inputs = Inputs({"user:number": value, "user:text": f"<{value * 7}>"})
            asked = sorted(segments)[value % 90 : value % 90 + 10]
            if index.match(inputs, NOW) != expected[value]:
                wrong.append(value)
            if index.match(inputs, NOW, asked) != expected[value] & set(asked):
                wrong.append(value)

    threads = [threading.Thread(target=work, args=(start,)) for start in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_the_path_of_one_user_is_light() -> None:
    code = (
        "import sys, rules_engine.targets.index.rule_index; "
        "print([name for name in ('numpy', 'pyarrow', 'pandas', 'feast') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
