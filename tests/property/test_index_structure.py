"""Large and deep conditions: what is set aside as a part, shared or folded away changes no answer."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from rules_engine.rules.evaluate import Evaluation
from rules_engine.rules.inputs import Inputs
from rules_engine.rules.nodes import AllOf, AnyOf, Condition, FeatureRef, Not, Predicate, Segment, SegmentRef
from rules_engine.rules.program import Program
from rules_engine.rules.types import BOOLEAN, INTEGER, STRING, Kind, ValueType
from rules_engine.targets.index.normal_form import MAX_LAYERS, MAX_PRODUCT, normalize
from rules_engine.targets.index.rule_index import RuleIndex

TAGS = ValueType(Kind.STRING, is_list=True)
NUMBERS = (-1, 0, 1, 2, 3, 1.5, 2.0, True, None)
WORDS = ("a", "b", "ab", "B", "", 1, None)
LISTS = ((), ("a",), ("a", "b"), ("b", "c"), None)

#: Every feature with its type, its values and what it is asked.
FEATURES = {
    **{f"n:{name}": NUMBERS for name in "abc"},
    **{f"s:{name}": WORDS for name in "ab"},
    **{f"f:{name}": (True, False, 1, None) for name in "abc"},
    "l:a": LISTS,
}


def ask(key: str, value_type: ValueType, operator: str, argument: object, **options: bool) -> Predicate:
    view, name = key.split(":")
    return Predicate(FeatureRef(view, name), operator, argument, value_type, **options)


LEAVES: list[Condition] = [
    *(ask(f"n:{name}", INTEGER, "at_least", number) for name in "abc" for number in (0, 1, 2.0)),
    *(ask(f"n:{name}", INTEGER, "in", (1, 3), or_missing=True) for name in "abc"),
    *(ask(f"s:{name}", STRING, "equals", word) for name in "ab" for word in ("a", "b", "")),
    *(ask(f"s:{name}", STRING, "equals", "b", ignore_case=True) for name in "ab"),
    *(ask(f"s:{name}", STRING, "starts_with", "a") for name in "ab"),
    *(ask(f"s:{name}", STRING, "ends_with", "b", or_missing=True) for name in "ab"),
    *(ask(f"s:{name}", STRING, "contains", "b") for name in "ab"),
    *(ask(f"f:{name}", BOOLEAN, "equals", flag) for name in "abc" for flag in (True, False)),
    *(ask(f"{name}:a", kind, "exists", True) for name, kind in (("n", INTEGER), ("s", STRING), ("l", TAGS))),
    ask("l:a", TAGS, "includes", "a"),
    ask("l:a", TAGS, "includes_all", ("a", "b")),
    ask("l:a", TAGS, "includes_any", ("b", "c"), or_missing=True),
    ask("l:a", TAGS, "includes_none", ("c",)),
]

USERS = st.lists(
    st.fixed_dictionaries({}, optional={key: st.sampled_from(values) for key, values in FEATURES.items()}),
    min_size=3,
    max_size=8,
)


def conditions(names: tuple[str, ...]) -> st.SearchStrategy[Condition]:
    """Wide conditions: groups of up to twelve, three deep, often of the other kind inside."""
    leaf = st.sampled_from([*LEAVES, *(SegmentRef(name) for name in names for _ in range(6))])
    plain_or_not = leaf | leaf.map(Not)

    def group(inner: st.SearchStrategy[Condition]) -> st.SearchStrategy[Condition]:
        many = st.lists(inner, min_size=1, max_size=12).map(tuple)
        return many.map(AllOf) | many.map(AnyOf) | many.map(lambda found: Not(AnyOf(found)))

    ors = st.lists(plain_or_not, min_size=2, max_size=10).map(tuple).map(AnyOf)
    return group(plain_or_not) | group(ors | plain_or_not) | group(group(ors))


@st.composite
def programs(draw: st.DrawFn) -> Program:
    names: tuple[str, ...] = ()
    segments = {}
    for name in "pqrs"[: draw(st.integers(1, 4))]:
        segments[name] = Segment(name, draw(conditions(names)))
        names = (*names, name)
    return Program(segments)


@given(programs(), USERS)
def test_large_conditions_keep_their_answers(program: Program, users: list[dict[str, object]]) -> None:
    index = RuleIndex(program)
    for features in users:
        inputs = Inputs(features)
        evaluation = Evaluation(program, inputs, 0)
        wanted = {name for name in program.names if evaluation.segment(name) is True}
        assert index.match(inputs, 0) == wanted
        for name in program.names:
            assert index.match(inputs, 0, {name}) == wanted & {name}


@given(programs())
def test_the_normal_form_stays_within_its_bounds(program: Program) -> None:
    form = normalize(program)
    assert all(len(found) <= MAX_LAYERS for found in form.segments.values())
    leaves = sum(_size(segment.when) for segment in program.segments.values())
    conjunctions = sum(map(len, form.segments.values())) + sum(map(len, form.parts))
    assert conjunctions <= 2 * MAX_PRODUCT * leaves


def _size(condition: Condition) -> int:
    if isinstance(condition, AllOf | AnyOf):
        return 1 + sum(map(_size, condition.conditions))
    return _size(condition.condition) if isinstance(condition, Not) else 1


def test_examples_are_of_every_kind() -> None:
    """A guard: there are parts and there are none, and segments are true, false and unknown."""
    with_parts: Counter[bool] = Counter()
    answers: Counter[object] = Counter()

    @given(programs(), USERS)
    def count(program: Program, users: list[dict[str, object]]) -> None:
        with_parts[bool(normalize(program).parts)] += 1
        for features in users:
            evaluation = Evaluation(program, Inputs(features), 0)
            answers.update(evaluation.segment(name) for name in program.names)

    count()
    assert min(with_parts[True], with_parts[False]) >= 20, with_parts
    assert min(answers[truth] for truth in (True, False, None)) >= sum(answers.values()) * 0.1, answers
