"""Random definitions, users, requests and event logs for property tests.

``examples()`` draws a condition that loads, beside the other segments that it refers to, and the data that it is judged
on. Everything comes from the pools of `pools.py`, and the instants of events and times lie on the edges of the windows
of the very condition, so that edges, ties and equal values are the rule and not the exception.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from hypothesis import strategies as st

from tests.property import pools
from tests.property.leaves import (
    NUMERIC,
    Condition,
    Draw,
    Vocabulary,
    aggregate_leaf,
    calculation_leaf,
    clock_leaf,
    context_leaf,
    days_leaf,
    did_any_leaf,
    did_leaf,
    draw_list,
    feature_leaf,
    first_time_leaf,
    maybe,
    nth_leaf,
    one_of,
    present_value,
    scalar_pool,
    sequence_leaf,
)
from tests.reference_values import predicate


@dataclass(frozen=True)
class Example:
    """A condition and what it is judged on."""

    condition: Condition
    now: datetime
    features: Mapping[str, Any] = field(default_factory=dict)
    context: Mapping[str, Any] = field(default_factory=dict)
    events: Sequence[Mapping[str, Any]] = ()
    types: Mapping[str, str] = field(default_factory=dict)
    segments: Mapping[str, Condition] = field(default_factory=dict)
    updated_at: Mapping[str, datetime] = field(default_factory=dict)
    ttl: Mapping[str, str] = field(default_factory=dict)

    def data(self) -> dict[str, Any]:
        """Return everything but the condition, as the keyword arguments of an evaluator."""
        names = ("features", "context", "events", "types", "segments", "updated_at", "ttl", "now")
        return {name: getattr(self, name) for name in names}


# ---------------------------------------------------------------------------------------------- conditions


def draw_leaf(draw: Draw, words: Vocabulary, names: Sequence[str]) -> Condition:
    leaves: list[Callable[[Draw, Vocabulary], Condition]]
    leaves = (
        [feature_leaf, feature_leaf, clock_leaf] if words.lively else [feature_leaf] * 6 + [context_leaf, clock_leaf]
    )
    if words.events:
        leaves += [did_leaf, aggregate_leaf, sequence_leaf] * 3 + [
            days_leaf,
            first_time_leaf,
            nth_leaf,
            did_any_leaf,
            calculation_leaf,
        ]
    if names and maybe(draw, 15):
        return {one_of(draw, ("in_segment", "not_in_segment")): one_of(draw, names)}
    return one_of(draw, leaves)(draw, words)


def draw_condition(draw: Draw, words: Vocabulary, names: Sequence[str], depth: int) -> Condition:
    """Draw a condition of at most this depth."""
    if depth <= 1 or maybe(draw, 30):
        return draw_leaf(draw, words, names)
    form = one_of(draw, ("all", "all", "any", "any", "none", "not"))
    if form == "not":
        return {"not": draw_condition(draw, words, names, depth - 1)}
    children = [draw_condition(draw, words, names, depth - 1) for _ in range(draw(st.integers(1, 3)))]
    return {form: without_constants(form, children, words)}


def without_constants(form: str, children: list[Condition], words: Vocabulary) -> list[Condition]:
    """Leave out children that, with others on the same operand, could make the group always or never true."""
    groups: dict[str, list[Condition]] = {}
    kept = []
    for child in children:
        group = groups.setdefault(operand_key(child), [])
        if not group or has_witness(form, [*group, child], words):
            group.append(child)
            kept.append(child)
    return kept


def operand_key(child: Condition) -> str:
    """Name what a child reads; children of one name are judged together."""
    for form in ("feature", "context", "clock"):
        if form in child:
            return f"{form} {child[form]}"
    if "did" in child or "did_not" in child:
        return f"did {child.get('did', child.get('did_not'))} {child['within']}"
    source = next((source for source in child.values() if isinstance(source, dict) and "of" in source), None)
    return f"only {id(child)}" if source is None else f"{source} {child['within']}"


def has_witness(form: str, group: list[Condition], words: Vocabulary) -> bool:
    """Tell whether some value is known to make all of the tests true (all), or all of them false (any)."""
    values: Sequence[Any] = ()
    if "feature" in group[0]:
        feast_type = words.types[group[0]["feature"]]
        values = scalar_pool(feast_type) if feast_type in ("String", "Bool", *NUMERIC) else ()
    if "context" in group[0]:
        values = {"string": pools.STRINGS, "number": pools.SMALL_INTEGERS}.get(pools.CONTEXT[group[0]["context"]], ())
    return any(all(predicate(test, value, words.now) is (form == "all") for test in group) for value in values)


# ---------------------------------------------------------------------------------------------- data


def draw_events(draw: Draw, words: Vocabulary, largest: int) -> list[dict[str, Any]]:
    return [draw_event(draw, words) for _ in range(one_of(draw, (0, *range(2, largest + 1))))] if words.events else []


def draw_event(draw: Draw, words: Vocabulary) -> dict[str, Any]:
    event: dict[str, Any] = {"event": one_of(draw, pools.EVENTS), "at": draw(words.instants())}
    if maybe(draw, 20):
        event["event_id"] = one_of(draw, pools.IDS)
    for name, kind in pools.PROPERTIES.items():
        if maybe(draw, 65):
            event[name] = draw_any(draw, kind, words)
    return event


def draw_any(draw: Draw, kind: str, words: Vocabulary) -> Any:
    """Draw a value of an event property or the context: mostly of the kind, else null, NaN or of another."""
    if maybe(draw, 12):
        return one_of(draw, (None, *pools.WRONG[kind]))
    if kind == "number":
        return one_of(draw, (*(pools.PRICES if words.exact else pools.INEXACT_PRICES), float("nan")))
    if kind == "time":
        return draw(words.instants())
    if kind == "list":
        return draw_list(draw, "String")
    return one_of(draw, (True, False) if kind == "bool" else (*pools.SHORT_STRINGS * 3, *pools.STRINGS))


def draw_features(draw: Draw, words: Vocabulary) -> dict[str, Any]:
    features: dict[str, Any] = {}
    for name, feast_type in words.types.items():
        if name == "u:zone":
            features[name] = one_of(draw, (words.zone, words.zone, words.zone, None, *pools.NO_ZONES))
        elif maybe(draw, 90):
            features[name] = None if maybe(draw, 10) else present_value(draw, feast_type, words)
    return features


def draw_vocabulary(draw: Draw, events: bool, exact: bool) -> Vocabulary:
    names = draw(st.lists(st.sampled_from("abcdefgh"), min_size=2, max_size=5, unique=True))
    lively = maybe(draw, 50)
    pool = pools.LIVELY_TYPES if lively else pools.TYPES
    types = {f"{one_of(draw, ('u', 'v'))}:{name}": one_of(draw, pool) for name in names}
    durations = draw(st.lists(st.sampled_from(pools.DURATIONS), min_size=2, max_size=4, unique=True))
    return Vocabulary(
        types={**types, "u:zone": "String"},
        now=one_of(draw, pools.NOWS),
        durations=tuple(durations),
        zone=one_of(draw, pools.ZONES),
        exact=exact,
        events=events,
        lively=lively,
    )


@st.composite
def examples(draw: Draw, *, events: bool = True, exact: bool = False, depth: int = 4, largest: int = 10) -> Example:
    """Draw a condition with everything that it is judged on.

    Parameters
    ----------
    events
        False leaves out the conditions that read events.
    exact
        True draws only prices whose sums and means are the same in whatever order they are added.
    depth
        of the nested groups.
    largest
        number of events.
    """
    words = draw_vocabulary(draw, events, exact)
    segments: dict[str, Condition] = {}
    for name in ("first", "second", "third")[: one_of(draw, (0, 0, 1, 2, 3))]:
        segments[name] = draw_condition(draw, words, sorted(segments), 2)
    condition = draw_condition(draw, words, sorted(segments), depth)
    views = [view for view in ("u", "v") if maybe(draw, 40)]
    return Example(
        condition=condition,
        now=words.now,
        features=draw_features(draw, words),
        context={name: draw_any(draw, kind, words) for name, kind in pools.CONTEXT.items() if maybe(draw, 70)},
        events=draw_events(draw, words, largest),
        types=words.types,
        segments=segments,
        updated_at={view: draw(words.instants(future=False)) for view in views},
        ttl={view: one_of(draw, words.durations) for view in views if maybe(draw, 80)},
    )
