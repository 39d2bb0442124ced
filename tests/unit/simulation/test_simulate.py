"""`segments simulate`: a recorded log through segments and triggers, beside a computation by hand."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from rules_engine.cli.main import app
from rules_engine.clock import parse_instant
from rules_engine.deploy.new_project import new_project
from rules_engine.errors import DataError, UnknownNameError
from rules_engine.events.log.event_log import EventLog
from rules_engine.folders import Project
from rules_engine.rules.inputs import Event
from rules_engine.simulation.simulate import Happening, Simulation, Simulator
from rules_engine.simulation.spool import Spool
from rules_engine.stream.files.mapping import Mapped
from rules_engine.triggers.record import State, Transition
from tests import clickstream

MAPPED = Mapped(**clickstream.COLUMNS, names=clickstream.WORDS, at_unit="ms")


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    made = new_project(tmp_path_factory.mktemp("projects") / "shop")
    (made.feature_repo / "events.yaml").write_text(clickstream.EVENTS)
    (made.segments_dir / "clicks.yaml").write_text(clickstream.DEFINITIONS)
    return made


@pytest.fixture(scope="module")
def made_up(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("logs") / "clicks.csv"
    clickstream.write_made_up(path, users=40, seed=5)
    return path


NAMES = ["abandoned", "interrupted", "keen", "no_buyer_yet"]


def simulate(project: Project, path: Path) -> tuple[Simulation, list[Happening]]:
    told: list[Happening] = []
    simulator = Simulator(project, NAMES, ["remind", "help", "congratulate", "thank"], features=False)
    return simulator.run(path, MAPPED, tell=told.append), told


def plain(told: list[Happening]) -> list[clickstream.Happening]:
    found = []
    for one in told:
        what = one.what
        assert what.at % 1000 == 0
        if isinstance(what, Transition):
            found.append((what.at // 1000, one.entity, what.segment, what.change.value, None))
        elif what.state is not State.PENDING:
            detail = dict(what.payload) if what.state is State.FIRED else what.reason.value if what.reason else None
            found.append((what.at // 1000, one.entity, what.trigger, what.state.value, detail))
    return sorted(found, key=lambda one: (*one[:4], str(one[4])))


def check_against_hand(path: Path, project: Project) -> list[clickstream.Happening]:
    """Compare all that happens; where several carts have one instant, each may be the last."""
    users, end = clickstream.read(path)
    found, told = simulate(project, path)
    mine, theirs = plain(told), clickstream.happenings(users, end)
    assert [one[:4] for one in mine] == [one[:4] for one in theirs]
    for one, other in zip(mine, theirs, strict=True):
        if isinstance(one[4], dict) and "aid" in one[4]:
            assert one[4]["aid"] in other[4]["aid"]  # type: ignore[index]
        else:
            assert one[4] == other[4]
    assert found.entities == len(users)
    return theirs


@pytest.mark.slow
def test_a_made_up_log_does_what_it_does_by_hand(project: Project, made_up: Path) -> None:
    theirs = check_against_hand(made_up, project)
    seen = {(one[2], one[3]) for one in theirs}
    assert seen >= {
        *((name, change) for name in NAMES for change in ("enter", "exit")),
        *(("remind", state) for state in ("fired", "cancelled", "suppressed")),
        *((name, state) for name in ("help", "thank") for state in ("fired", "suppressed")),
        ("congratulate", "fired"),
    }


@pytest.mark.skipif(not clickstream.REAL.exists(), reason="the real clicks are not beside the repository")
def test_real_clicks_do_what_they_do_by_hand(project: Project) -> None:
    theirs = check_against_hand(clickstream.REAL, project)
    assert len(theirs) > 100
    assert sum(one[2:4] == ("remind", "fired") for one in theirs) >= 5


def test_the_report_counts_what_happens(project: Project, made_up: Path) -> None:
    found, told = simulate(project, made_up)
    happened = [(one.what.segment, one.what.change.value) for one in told if isinstance(one.what, Transition)]
    for name in NAMES:
        counts = found.segments[name]
        assert counts.entered == happened.count((name, "enter"))
        assert counts.left == happened.count((name, "exit"))
        assert counts.at_end == counts.entered - counts.left
        assert counts.at_start == 0
    for counts_of in found.triggers.values():
        ended = counts_of.fired + counts_of.cancelled + counts_of.suppressed.total()
        assert counts_of.started == ended + counts_of.pending
    fired = sorted(
        one.what.at for one in told if not isinstance(one.what, Transition) and one.what.state is State.FIRED
    )
    assert [one.what.at for one in found.actions] == fired[:20]


def test_what_was_before_the_start_is_known_and_starts_nothing(project: Project, made_up: Path) -> None:
    start = parse_instant("2022-08-10T00:00:00Z")
    told: list[Happening] = []
    simulator = Simulator(project, ["abandoned"], features=False)
    found = simulator.run(made_up, MAPPED, start, tell=told.append)
    users, end = clickstream.read(made_up)
    by_hand = [one for one in clickstream.happenings(users, end) if one[2] == "abandoned"]
    later = [one for one in by_hand if one[0] * 1000 > start]
    assert [one for one in plain(told) if one[3] in ("enter", "exit") and one[2] == "abandoned"] == later
    entered, left = (sum(one[3] == word and one[0] * 1000 <= start for one in by_hand) for word in ("enter", "exit"))
    assert found.segments["abandoned"].at_start == entered - left > 0
    assert found.triggers["remind"].started == sum(one[3] == "enter" for one in later)


def test_the_log_of_the_project_is_what_is_simulated_without_a_file(project: Project, made_up: Path) -> None:
    users, _ = clickstream.read(made_up)
    events = [
        (user, Event(name, at * 1000, f"{name}:{at}-{aid}", {"aid": aid}))
        for user, clicks in users.items()
        for name, rows in clicks.items()
        for at, aid in rows
    ]
    with pytest.raises(DataError, match="the project's event log is empty: name a file of events"):
        Simulator(project, features=False).run(None)
    EventLog(project.feature_repo / "data" / "events").append(events, 0)
    found = Simulator(project, NAMES, ["remind"], features=False).run(None)
    assert found.segments == simulate(project, made_up)[0].segments


def test_features_are_those_as_of_the_start(project: Project, tmp_path: Path) -> None:
    (project.segments_dir / "mixed.yaml").write_text(
        "segment: subscribed_viewers\n"
        "when: {all: [{feature: 'profile:newsletter', equals: true}, {did: view, within: 1h}]}\n"
    )
    path = tmp_path / "views.jsonl"
    rows = [{"entity": f"c{number:03d}", "event": "view", "at": "2026-02-01T00:00:00Z"} for number in range(1, 201)]
    path.write_text("\n".join(map(json.dumps, rows)))
    with_features, without = (
        Simulator(project, ["subscribed_viewers"], features=features).run(path) for features in (True, False)
    )
    assert 80 < with_features.segments["subscribed_viewers"].entered < 160
    assert without.segments["subscribed_viewers"].entered == 0
    (project.segments_dir / "mixed.yaml").unlink()


def test_the_command(project: Project, made_up: Path, tmp_path: Path) -> None:
    out = tmp_path / "told.jsonl"
    options = ["--map", "entity=session", "--map", "event=type", "--map", "at=ts", "--at-unit", "ms", "--no-features"]
    options += [word for name, event in clickstream.WORDS.items() for word in ("--name", f"{name}={event}")]
    command = ["simulate", str(made_up), *options, "--repo", str(project.root), "--segment", "abandoned"]
    shown = CliRunner().invoke(app, [*command, "--limit", "1"])
    assert shown.exit_code == 0, shown.output
    assert "remind was suppressed: cooldown" in shown.stdout
    assert "other" in shown.stdout
    data = json.loads(CliRunner().invoke(app, [*command, "--format", "json", "--out", str(out)]).stdout)
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert data["triggers"]["remind"]["fired"] == sum(row["state"] == "fired" for row in rows)
    assert data["segments"].keys() == {"abandoned"}
    assert {row["kind"] for row in rows} == {"segment", "trigger"}


def test_what_cannot_be_simulated(project: Project, tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match="there is no trigger `remnd`"):
        Simulator(project, None, ["remnd"], features=False)
    path = tmp_path / "a.jsonl"
    path.write_text('{"entity": "a", "event": "click", "at": 1}\n{"event": "view", "at": "2026-01-01T00:00:00Z"}\n')
    with pytest.raises(DataError, match=r"no event that is as declared: `missing-entity \(1\)`, `unknown-event \(1\)`"):
        Simulator(project, features=False).run(path)
    path.write_text('{"entity": "a"\n[1]\n')
    with pytest.raises(DataError, match=r"no event that is as declared: `invalid-event \(2\)`"):
        Simulator(project, features=False).run(path)


def test_more_events_than_memory_go_over_disk() -> None:
    events = [(f"u{number % 7}", Event("view", -number, f"view:{number}", {"n": number})) for number in range(100)]
    with Spool(in_memory=9) as over_disk, Spool() as in_memory:
        for one in events:
            over_disk.add(*one)
            in_memory.add(*one)
        assert sorted(over_disk.entities()) == list(in_memory.entities())
        assert (over_disk.first, over_disk.last, over_disk.events) == (-99, 0, 100)
