"""What the event state keeps, and no more; what it says where it cannot be exact."""

from __future__ import annotations

import re
from typing import Any

import pytest

from rules_engine.clock import DAY, HOUR, MINUTE
from rules_engine.errors import DataError
from rules_engine.events.state.entity_state import EventState, empty_state, update
from rules_engine.events.state.kept_events import StateEvents
from rules_engine.events.state.pruning import prune
from rules_engine.events.state.reading import StateLayout, StateReader
from rules_engine.events.state.requirements import StateRequirements, requirements_of
from rules_engine.rules.aggregates import Aggregate
from rules_engine.rules.explain import explain
from rules_engine.rules.inputs import Event, Inputs
from rules_engine.rules.nodes import EventAggregate, EventMatch, Sequence
from rules_engine.rules.program import Program
from rules_engine.rules.types import FLOAT, STRING
from rules_engine.rules.undecided import Undecided
from rules_engine.testing import Scenario

NOW = 1_800_000_000_000_000
VIEWS = EventAggregate(Aggregate.COUNT, EventMatch("view"), DAY)
SPENT = EventAggregate(Aggregate.SUM, EventMatch("buy"), None, "amount", FLOAT)


def program(**conditions: Any) -> Program:
    """Segments of these conditions, beside one that is of no interest here."""
    return Scenario({"feature": "user:id", "exists": True}, segments=conditions).program


def kept_for(**conditions: Any) -> StateRequirements:
    return requirements_of(program(**conditions))


def state_of(requirements: StateRequirements, *events: Event, now: int = NOW) -> EventState:
    return prune(update(empty_state(requirements), events, requirements), requirements, now)


def event(name: str, age: int, **properties: Any) -> Event:
    """An event so long ago, with an id that says when it was."""
    return Event(name, NOW - age, f"{name} {age} {len(properties)}", properties)


def reader_of(state: EventState, requirements: StateRequirements) -> StateReader:
    return StateReader(state, StateLayout(requirements))


def ages(state: EventState) -> list[int]:
    return [NOW - at for kept in state.kept for at in kept.ats][::-1]


# --- data minimization ----------------------------------------------------------------------------------------------


def test_an_event_that_no_definition_names_is_not_kept() -> None:
    requirements = kept_for(a={"did": "view", "within": "1d"})
    assert state_of(requirements, event("buy", 1)) == state_of(requirements)


def test_what_where_excludes_is_not_kept() -> None:
    requirements = kept_for(a={"did": "view", "within": "1d", "where": {"kind": "shoe"}})
    assert ages(
        state_of(requirements, event("view", 1, kind="shoe"), event("view", 2, kind="hat"), event("view", 3))
    ) == [1]


def test_properties_are_kept_only_where_a_value_is_read() -> None:
    requirements = kept_for(
        a={"did": "view", "within": "1d", "where": {"kind": "shoe", "secret": {"exists": False}}},
        b={"sum": {"event": "buy", "of": "amount"}, "within": "1d", "at_least": 5},
    )
    state = state_of(requirements, event("view", 1, kind="shoe", note="n"), event("buy", 2, amount=5.0, card="c"))
    assert {column for kept in state.kept for column in kept.columns} == {(5.0,)}


def test_a_value_goes_when_no_window_reads_it_any_more() -> None:
    requirements = kept_for(
        a={"sum": {"event": "buy", "of": "amount"}, "within": "1h", "at_least": 5},
        b={"did": "buy", "within": "1d", "count": {"at_least": 9}},
    )
    state = state_of(requirements, event("buy", 1, amount=5), event("buy", HOUR, amount=7))
    assert state.kept[0].columns == ((None, 5),)


@pytest.mark.parametrize(
    ("condition", "left"),
    [
        ({"did": "view", "within": "10s"}, [1]),
        ({"did": "view", "within": "10s", "count": {"at_least": 3}}, [1, 2, 3]),
        ({"did": "view", "within": "10s", "count": {"less_than": 3}}, [1, 2, 3]),
        ({"did": "view", "within": "10s", "count": {"greater_than": 1}}, [1, 2]),
        ({"did": "view", "within": "10s", "count": {"in": [0, 2]}}, [1, 2, 3]),
        ({"did": "view", "within": "10s", "count": {"between": [1, 2]}}, [1, 2, 3]),
        ({"did_not": "view", "within": "3s"}, [1]),
        ({"did": "view", "within": "ever", "count": {"equals": 2}}, [1, 2, 3]),
        ({"last": {"event": "view", "of": "n"}, "within": "ever", "equals": 1}, [1]),
        ({"first": {"event": "view", "of": "n"}, "within": "ever", "equals": 1}, [5]),
        ({"max": {"event": "view", "of": "n"}, "within": "10s", "at_least": 1}, [1, 2, 4]),
        ({"min": {"event": "view", "of": "n"}, "within": "ever", "at_least": 1}, [1, 5]),
        ({"distinct": {"event": "view", "of": "n"}, "within": "10s", "at_least": 9}, [1, 2, 4, 5]),
        ({"distinct": {"event": "view", "of": "n"}, "within": "10s", "equals": 1}, [1, 2]),
        ({"avg": {"event": "view", "of": "n"}, "within": "4s", "at_least": 1}, [1, 2, 3]),
        ({"sequence": [{"did": "view"}, {"did_not": "buy", "within": "1s"}]}, [1]),
        ({"sequence": [{"did": "view"}, {"did": "buy"}], "within": "4s"}, [1, 2, 3]),
    ],
)
def test_how_many_events_are_kept(condition: Any, left: list[int]) -> None:
    values = {1: 2, 2: 3, 3: 2, 4: 7, 5: 1}
    requirements = kept_for(a=condition)
    state = state_of(requirements, *(event("view", age * 1_000_000, n=value) for age, value in values.items()))
    assert [age // 1_000_000 for age in ages(state)] == left


def test_a_count_that_a_named_feature_reads_is_not_cut_short() -> None:
    requirements = requirements_of(program(a={"did": "view", "within": "1d"}), {"views": VIEWS})
    state = state_of(requirements, *(event("view", age) for age in range(30)))
    assert reader_of(state, requirements).aggregate(VIEWS, NOW) == 30


def test_the_same_needs_in_any_order_make_the_same_state() -> None:
    conditions = {
        "a": {"did": "view", "within": "1d", "where": {"kind": "shoe"}},
        "b": {"did": "view", "within": "2d"},
        "c": {"max": {"event": "buy", "of": "n"}, "within": "1d", "at_least": 1},
    }
    backwards = {name: conditions[other] for name, other in zip("abc", "cba", strict=True)}
    assert kept_for(**conditions).events == kept_for(**backwards).events
    assert kept_for(**conditions).fingerprint == kept_for(**backwards).fingerprint
    assert kept_for(**conditions).fingerprint != kept_for(a=conditions["a"]).fingerprint


# --- redelivery and disorder ----------------------------------------------------------------------------------------


def test_a_redelivery_with_other_content_changes_nothing_while_the_event_is_known() -> None:
    requirements = kept_for(a={"sum": {"event": "buy", "of": "n"}, "within": "1d", "at_least": 5})
    first = Event("buy", NOW, "x", {"n": 1})
    state = state_of(requirements, first)
    assert update(state, [Event("buy", NOW + 5, "x", {"n": 9})], requirements) == state


def test_ties_are_decided_by_whole_ids() -> None:
    last = EventAggregate(Aggregate.LAST, EventMatch("view"), DAY, "page", STRING)
    requirements = requirements_of(Program({}), {"last": last})
    for ids in (("1", "2"), ("2", "1")):
        state = empty_state(requirements)
        for name in ids:
            state = update(state, [Event("view", NOW, name, {"page": name})], requirements)
            state = prune(state, requirements, NOW)
        assert reader_of(state, requirements).aggregate(last, NOW) == "2"


def test_totals_count_a_redelivery_once_however_late() -> None:
    requirements = requirements_of(Program({}), {"spent": SPENT})
    bought = [event("buy", age * DAY, amount=0.1) for age in range(20)]
    state = state_of(requirements, *bought)
    assert len(state.kept[0].ats) == 7
    again = prune(update(state, bought, requirements), requirements, NOW)
    assert [reader_of(one, requirements).aggregate(SPENT, NOW) for one in (state, again)] == [2.0, 2.0]


def test_an_event_too_late_for_a_total_is_not_counted_and_that_is_said() -> None:
    requirements = requirements_of(Program({}), {"spent": SPENT})
    state = state_of(requirements, event("buy", 0, amount=1))
    assert reader_of(state, requirements).incomplete_until(SPENT, NOW) is None
    state = prune(update(state, [event("buy", 8 * DAY, amount=10)], requirements), requirements, NOW)
    assert reader_of(state, requirements).aggregate(SPENT, NOW) == 1
    assert reader_of(state, requirements).incomplete_until(SPENT, NOW) == NOW - 7 * DAY


def test_a_log_of_the_past_is_counted_whole_if_pruning_follows_it() -> None:
    requirements = requirements_of(Program({}), {"spent": SPENT})
    state = empty_state(requirements)
    for age in (400, 300, 200, 100, 0):
        state = prune(update(state, [event("buy", age * DAY, amount=1)], requirements), requirements, NOW - age * DAY)
    assert reader_of(state, requirements).aggregate(SPENT, NOW) == 5


# --- bounds ---------------------------------------------------------------------------------------------------------


def test_beyond_the_bound_the_oldest_go_and_that_is_said() -> None:
    requirements = requirements_of(Program({}), {"views": VIEWS}, bound=10)
    state = state_of(requirements, *(event("view", age) for age in range(30)))
    reader = reader_of(state, requirements)
    assert ages(state) == list(range(10))
    assert (reader.aggregate(VIEWS, NOW), reader.incomplete_until(VIEWS, NOW)) == (Undecided(10), NOW - 10)
    later = NOW - 10 + DAY  # what was dropped is out of the window
    assert (reader.aggregate(VIEWS, later), reader.incomplete_until(VIEWS, later)) == (10, None)
    assert prune(state, requirements, later).kept[0].lost == {}


def test_a_count_that_decides_is_exact_beyond_the_bound() -> None:
    requirements = requirements_of(program(a={"did": "view", "within": "1d", "count": {"at_least": 3}}), bound=10)
    state = state_of(requirements, *(event("view", age) for age in range(30)))
    reader = reader_of(state, requirements)
    assert (reader.aggregate(VIEWS, NOW), reader.incomplete_until(VIEWS, NOW)) == (3, None)


def test_a_total_beyond_the_bound_stays_exact() -> None:
    requirements = requirements_of(Program({}), {"spent": SPENT}, bound=3)
    state = state_of(requirements, *(event("buy", age, amount=1) for age in range(30)))
    assert len(state.kept[0].ats) == 3
    assert reader_of(state, requirements).aggregate(SPENT, NOW) == 30
    assert reader_of(state, requirements).incomplete_until(SPENT, NOW) is None


# --- reading --------------------------------------------------------------------------------------------------------


def test_a_pruned_state_refuses_the_past() -> None:
    requirements = requirements_of(Program({}), {"views": VIEWS})
    reader = reader_of(state_of(requirements, event("view", 0)), requirements)
    with pytest.raises(DataError, match="answers from 2027-01-15T08:00:00Z on"):
        reader.aggregate(VIEWS, NOW - 1)


def test_pruning_backwards_does_nothing() -> None:
    requirements = requirements_of(Program({}), {"views": VIEWS})
    state = state_of(requirements, event("view", 0))
    assert prune(state, requirements, NOW - DAY) == state


def test_a_condition_that_the_state_was_not_kept_for() -> None:
    requirements = requirements_of(Program({}), {"views": VIEWS})
    with pytest.raises(KeyError):
        reader_of(empty_state(requirements), requirements).aggregate(SPENT, NOW)


def explained(condition: Any, *events: Event, bound: int = 10) -> str:
    """The explanation on what is kept of the events."""
    views = program(viewers=condition)
    requirements = requirements_of(views, bound=bound)
    kept = StateEvents(reader_of(state_of(requirements, *events), requirements))
    return str(explain(views, "viewers", Inputs(events=kept), NOW, "42"))


def test_explanations_on_what_is_kept_are_those_on_the_log() -> None:
    condition = {"did": "view", "within": "1d", "where": {"kind": "shoe"}, "count": {"at_least": 3}}
    log = (event("view", 2 * HOUR, kind="shoe"), event("view", HOUR, kind="hat"), event("view", MINUTE, kind="shoe"))
    on_log = explain(program(viewers=condition), "viewers", Inputs(events=log), NOW, "42")
    assert explained(condition, *log) == str(on_log)


@pytest.mark.parametrize(
    ("condition", "number", "note"),
    [
        ({"did": "view", "within": "1d"}, 5, "is at least 1; events at "),
        ({"max": {"event": "view", "of": "n"}, "within": "1d", "less_than": 0}, 5, "events that no longer decide are"),
        (
            {"sum": {"event": "view", "of": "n"}, "within": "1d", "at_least": 0},
            20,
            "unknown: .*more than 10 events came, and the oldest of them",
        ),
        ({"sequence": [{"did": "view"}, {"did": "buy"}], "within": "1d"}, 20, "unknown: .*more than 10 events came"),
    ],
)
def test_explanations_say_what_is_not_kept(condition: Any, number: int, note: str) -> None:
    assert re.search(note, explained(condition, *(event("view", age, n=1) for age in range(number))))


def test_what_the_bound_leaves_unknown_is_shown_as_such() -> None:
    often = {"did": "view", "within": "1d", "count": {"at_least": 15}}
    shown = explained(often, *(event("view", age) for age in range(20)))
    assert shown.startswith("42 is not known to be in viewers")
    assert "is at least 10; " in shown
    assert "is in" in explained(often | {"count": {"not_in": [3, 15_000]}}, *(event("view", age) for age in range(5)))


def test_the_latest_start_has_to_have_the_property_that_is_matched_on() -> None:
    condition = {"sequence": [{"did": "cart"}, {"did_not": "buy", "within": "1m"}], "match_on": "sku"}
    requirements = kept_for(a=condition)
    state = state_of(requirements, event("cart", HOUR, sku="x"), event("cart", MINUTE))
    (sequence,) = requirements.sequences
    assert isinstance(sequence, Sequence)
    assert reader_of(state, requirements).sequence(sequence, NOW) is True
