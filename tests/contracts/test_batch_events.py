"""Segments that read events, for everybody as of any instant: what the plain evaluator finds in the whole history."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from rules_engine.batch.engine import BatchProject, BatchRules
from rules_engine.clock import HOUR, to_micros
from rules_engine.events.log import offline, sorting
from rules_engine.folders import Project
from rules_engine.rules.inputs import Event
from rules_engine.stream.event_sink import event_log
from tests.batch_shop import NOW, History, history, make_shop


@pytest.fixture(scope="module")
def happened() -> History:
    return history(seed=3)


@pytest.fixture
def shop(make_project: Callable[..., Project], happened: History) -> BatchProject:
    return BatchProject.open(make_shop(make_project, happened))


@pytest.fixture(params=["duckdb", "arrow"])
def engine(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """How the log is read: by DuckDB, or without it."""
    if request.param == "arrow":
        monkeypatch.setattr(offline, "find_spec", lambda name: None)
    return str(request.param)


def found(rules: BatchRules, as_of: int, keys: list[str] | None = None) -> dict[str, frozenset[str]]:
    answers: dict[str, frozenset[str]] = {}
    for answered in rules.answers(as_of, keys):
        named = dict(zip(answered.entities.to_pylist(), answered.matches.segments(), strict=True))
        assert not named.keys() & answers.keys(), "everyone comes once"
        answers |= named
    return answers


def test_everyone_is_answered_as_by_the_whole_history(shop: BatchProject, happened: History, engine: str) -> None:
    rules = BatchRules(shop.repo, shop.program)
    seen: dict[str, set[bool]] = {name: set() for name in rules.names}
    for instant in happened.instants(seed=1, number=4):
        as_of = to_micros(instant)
        want = happened.members(shop.program, as_of)
        assert found(rules, as_of) == want, instant
        for name, answers in seen.items():
            answers.update(name in segments for segments in want.values())
    assert all(answers == {True, False} for answers in seen.values()), "every segment has members and others"


def test_pieces_are_cut_between_users(
    shop: BatchProject, happened: History, engine: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sorting, "PIECE", 7)
    rules = BatchRules(shop.repo, shop.program)
    assert found(rules, to_micros(NOW)) == happened.members(shop.program, to_micros(NOW))


def test_some_users_can_be_asked_for_and_explained(shop: BatchProject, happened: History, engine: str) -> None:
    rules, now = BatchRules(shop.repo, shop.program), to_micros(NOW)
    want = happened.members(shop.program, now)
    some = [*sorted(want)[::5], "nobody"]
    assert found(rules, now, some) == {user: want[user] for user in some if user in want}
    inputs = rules.inputs(now, some)
    assert inputs.keys() == {user for user in some if user in want}
    for user, read in inputs.items():
        for name in rules.names:
            assert (rules.explain(name, user, read, now).verdict is True) == (name in want[user])


def test_who_did_something_only_long_ago_counts_too(shop: BatchProject, happened: History, engine: str) -> None:
    rules = BatchRules(shop.repo, shop.program, ["idle"])
    much_later = to_micros(NOW) + 5_000 * HOUR
    answers = found(rules, much_later)
    viewers = {user for user, events in happened.events.items() if any(event.name == "view" for event in events)}
    with_rows = {str(row["user_id"]) for rows in happened.rows.values() for row in rows}
    assert answers == dict.fromkeys(viewers | with_rows, frozenset({"idle"}))
    assert viewers - with_rows


def test_a_project_without_a_log_has_no_events(shop: BatchProject, happened: History, engine: str) -> None:
    shop.repo.project.feature_repo.joinpath("data", "events").rename(shop.repo.project.root / "elsewhere")
    answers = found(BatchRules(shop.repo, shop.program), to_micros(NOW))
    assert answers == History(happened.rows, {}).members(shop.program, to_micros(NOW))
    assert any("idle" in segments for segments in answers.values())


def test_of_two_deliveries_with_one_id_the_first_that_was_stored_counts(shop: BatchProject, engine: str) -> None:
    log, now = event_log(shop.repo.project), to_micros(NOW)
    carts = [
        Event("cart", now - at, "cart:twice", {"sku": "x", "value": value}) for at, value in ((2, 500.0), (1, 1.0))
    ]
    log.append([("twice", carts[0])], stored_at=now + 10**9)
    log.append([("twice", carts[1])], stored_at=now + 10**9 + 1)
    (segments,) = found(BatchRules(shop.repo, shop.program, ["spent", "cheapest"]), now, ["twice"]).values()
    assert segments == {"spent"}


def test_values_that_no_column_holds_are_judged_exactly(shop: BatchProject, engine: str) -> None:
    """A sum beyond 64 bits beside others."""
    log, now = event_log(shop.repo.project), to_micros(NOW)
    large = [Event("cart", now - at, f"cart:{at}", {"sku": "x", "value": 2**62}) for at in range(3)]
    log.append([("large", event) for event in large], stored_at=now)
    answers = found(BatchRules(shop.repo, shop.program, ["spent"]), now)
    assert "spent" in answers["large"]


def test_a_damaged_log_says_so(shop: BatchProject, engine: str) -> None:
    from rules_engine.errors import ProjectError

    path = next(shop.repo.project.feature_repo.glob("data/events/event=view/*/*.parquet"))
    path.write_bytes(b"PAR1 is not all of it")
    with pytest.raises(ProjectError, match="the event log cannot be read"):
        found(BatchRules(shop.repo, shop.program), to_micros(NOW))


def test_a_file_that_compaction_takes_away_is_looked_for_again(
    shop: BatchProject, happened: History, engine: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    list_files, taken = offline.EventLog.files, []

    def files(self: Any, *arguments: Any) -> list[Any]:
        """Files, of which one is gone when it is read; what was in it is in another."""
        listed = list_files(self, *arguments)
        if not taken:
            taken.append(listed[0])
            listed[0].rename(listed[0].with_name(f"9{listed[0].name[1:]}"))
        return listed

    monkeypatch.setattr(offline.EventLog, "files", files)
    assert found(BatchRules(shop.repo, shop.program), to_micros(NOW)) == happened.members(shop.program, to_micros(NOW))
    assert taken
