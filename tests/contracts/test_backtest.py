"""A segment over time is what the plain evaluator finds in the whole history at each instant, however it is read."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pyarrow.csv
import pyarrow.parquet as pq
import pytest

from rules_engine.batch import through_time
from rules_engine.batch.backtest import Backtest, backtest, instants, shown_points, write
from rules_engine.batch.engine import BatchProject
from rules_engine.batch.through_time import RulesThroughTime
from rules_engine.clock import HOUR, to_micros
from rules_engine.errors import DataError
from rules_engine.events.log import offline
from rules_engine.features.offline import history as offline_history
from rules_engine.features.offline.history import Instants
from rules_engine.folders import Project
from tests.batch_shop import NOW, History, history, make_shop

FEATURES_ONLY = """\
segment: rich
when: {feature: facts:amount, at_least: 50}
---
segment: scored
when: {feature: fresh:score, greater_than: 0}
---
segment: wordless
when: {not: {feature: facts:word, equals: a, or_missing: true}}
"""
MIXED = """\
---
segment: keen
when: {did: view, within: 6h, count: {at_least: 2}}
---
segment: idle_or_scored
when: {any: [{did_not: view, within: 12h}, {in_segment: scored}]}
"""
SCORED = ("rich", "scored", "wordless")


@pytest.fixture(scope="module")
def happened() -> History:
    return history(seed=5)


@pytest.fixture
def shop(make_project: Callable[..., Project], happened: History) -> BatchProject:
    return BatchProject.open(make_shop(make_project, happened, FEATURES_ONLY + MIXED))


#: Four days in steps of seven hours and a bit, the last of them after everything.
EVERY = 7 * HOUR + 1
AT = Instants(to_micros(NOW) - 96 * HOUR, EVERY, 15)


#: The events that the segments read: who did one of them is a user.
READ = {"keen": {"view"}, "idle_or_scored": {"view"}}


def members(happened: History, shop: BatchProject, at: int, events: set[str]) -> dict[str, frozenset[str]]:
    """By user the segments: of those who have a row by then, or did one of these events."""
    known = {str(row["user_id"]) for rows in happened.rows.values() for row in rows if to_micros(row["at"]) <= at}
    known |= {
        user for user, log in happened.events.items() if any(event.at <= at and event.name in events for event in log)
    }
    return {user: segments for user, segments in happened.members(shop.program, at).items() if user in known}


def expected(happened: History, shop: BatchProject, segment: str, within: int) -> list[tuple[int, ...]]:
    """By instant: users, size, entered, left, flaps; user by user and move by move."""
    rows, before, moved = [], set[str](), dict[str, int]()
    for number, at in enumerate(AT):
        answers = members(happened, shop, at, READ.get(segment, set()))
        now = {user for user, segments in answers.items() if segment in segments}
        movers = now ^ before if number else set()
        flaps = sum(user in moved and at - moved[user] <= within for user in movers)
        moved |= dict.fromkeys(movers, at)
        rows.append((len(answers), len(now), len(movers & now), len(movers - now), flaps))
        before = now
    return rows


def found(done: Backtest) -> list[tuple[int, ...]]:
    return [(point.users, point.size, point.entered, point.left, point.flaps) for point in done.points]


@pytest.mark.parametrize("groups", [1, 9])
@pytest.mark.parametrize("segment", [*SCORED, "keen", "idle_or_scored"])
def test_sizes_and_moves_are_those_of_every_single_instant(
    shop: BatchProject, happened: History, segment: str, groups: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(offline_history, "_groups", lambda sources: groups)
    within = 3 * EVERY
    rules = RulesThroughTime(shop.repo, shop.program, [segment])
    done = backtest(rules, segment, AT)
    want = expected(happened, shop, segment, within)
    assert found(done) == want
    assert done.moves == sum(entered + left for _, _, entered, left, _ in want)
    assert done.moves > 10, "or the comparison says little"
    assert done.flap_rate == sum(row[4] for row in want) / done.moves


@pytest.mark.parametrize("segment", ["scored", "keen"])
def test_other_stores_are_read_at_every_instant_with_the_same_answers(
    shop: BatchProject, happened: History, segment: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(offline_history.OfflineHistory, "is_available", False)
    done = backtest(RulesThroughTime(shop.repo, shop.program, [segment]), segment, AT)
    assert found(done) == expected(happened, shop, segment, 3 * EVERY)


def test_the_log_may_be_read_without_duckdb(
    shop: BatchProject, happened: History, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(offline, "find_spec", lambda name: None)
    done = backtest(RulesThroughTime(shop.repo, shop.program, ["idle_or_scored"]), "idle_or_scored", AT)
    assert found(done) == expected(happened, shop, "idle_or_scored", 3 * EVERY)


def test_many_events_make_more_groups(shop: BatchProject, happened: History, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(through_time, "_EVENTS_PER_GROUP", 20)
    rules = RulesThroughTime(shop.repo, shop.program, ["keen"])
    assert sum(1 for group in rules.groups(AT) if [list(parts) for parts in group]) > 3
    assert found(backtest(rules, "keen", AT)) == expected(happened, shop, "keen", 3 * EVERY)


def test_a_flap_is_a_move_that_is_undone_soon(shop: BatchProject, happened: History) -> None:
    rates = {}
    for within in (EVERY, 3 * EVERY, 100 * EVERY):
        done = backtest(RulesThroughTime(shop.repo, shop.program, ["scored"]), "scored", AT, within)
        assert [point.flaps for point in done.points] == [row[4] for row in expected(happened, shop, "scored", within)]
        rates[within] = done.flap_rate
    assert 0 < rates[EVERY] < rates[3 * EVERY] < rates[100 * EVERY] < 1


def test_others_are_compared_at_every_instant(shop: BatchProject, happened: History) -> None:
    done = backtest(RulesThroughTime(shop.repo, shop.program), "rich", AT)
    assert set(done.points[0].others) == set(shop.program.names) - {"rich"}
    for point in done.points:
        answers = members(happened, shop, point.at, {"view"}).values()
        for name in point.others:
            assert point.others[name] == sum(name in segments for segments in answers)
            assert point.both[name] == sum({name, "rich"} <= segments for segments in answers)
            either = sum(bool({name, "rich"} & segments) for segments in answers)
            assert point.jaccard(name) == (point.both[name] / either if either else 0)
    means = [sum(point.jaccard(name) for point in done.points) for name in done.alike()]
    assert means == sorted(means, reverse=True)


class _Seen(list[tuple[int, float]]):
    def add(self, users: int, done: float) -> None:
        self.append((users, done))


def test_progress_only_grows_and_ends_at_the_end(shop: BatchProject, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(offline_history, "_groups", lambda sources: 3)
    for names in (["rich"], ["keen"]):
        seen = _Seen()
        backtest(RulesThroughTime(shop.repo, shop.program, names), names[0], AT, None, seen.add)
        assert seen == sorted(seen)
        assert seen[-1][1] == pytest.approx(1, abs=1 / 15)


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_a_file_has_a_row_for_each_instant(shop: BatchProject, tmp_path: Path, ending: str) -> None:
    done = backtest(RulesThroughTime(shop.repo, shop.program, ["rich", "scored"]), "rich", AT)
    path = tmp_path / f"rich.{ending}"
    write(done, path)
    rows = (pq.read_table(path) if ending == "parquet" else pyarrow.csv.read_csv(path)).to_pylist()
    assert [(row["users"], row["size"], row["entered"], row["left"], row["flaps"]) for row in rows] == found(done)
    assert [row["both_scored"] for row in rows] == [point.both["scored"] for point in done.points]
    assert [to_micros(row["at"]) for row in rows] == list(AT)


def test_instants_are_from_the_start_up_to_the_end() -> None:
    assert list(instants(5, 5, 10)) == [5]
    assert list(instants(0, 29, 10)) == [0, 10, 20]
    assert instants(0, 29, 10).last == 20
    with pytest.raises(DataError, match="ends before it starts"):
        instants(5, 4, 1)
    with pytest.raises(DataError, match="at most 10,000"):
        instants(0, 10**9, 1)


def test_long_backtests_are_shown_by_their_ends(shop: BatchProject) -> None:
    done = backtest(RulesThroughTime(shop.repo, shop.program, ["rich"]), "rich", AT)
    assert list(shown_points(done, 15)) == list(done.points)
    assert list(shown_points(done, 4)) == [*done.points[:2], None, *done.points[-2:]]
