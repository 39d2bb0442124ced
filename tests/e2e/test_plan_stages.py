"""A plan of segments that read events, and of triggers: whom it names moves when applied, and it is what is done."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pandas as pd
import pytest
import redis
from typer.testing import CliRunner

from rules_engine.cli import main
from rules_engine.deploy import apply as applying
from rules_engine.deploy.definitions import apply_project, project_stages
from rules_engine.deploy.stages import BuildStates, CatchUp, KeepVersion, Reevaluate, Register, Stage, Switch
from rules_engine.errors import ProjectError
from rules_engine.events.looks import sweeps_key
from rules_engine.features.feast.repo import FeastRepo
from rules_engine.folders import Project
from rules_engine.redis.embedded import EmbeddedStore
from rules_engine.sdk import SegmentClient
from tests.batch_shop import History, history, make_shop

SEGMENTS = """\
segment: keen
when: {did: view, within: WINDOW, count: {at_least: COUNT}}
---
segment: keen_and_rich
when: {all: [{in_segment: keen}, {feature: facts:amount, at_least: 50}]}
---
segment: plain
when: {feature: facts:amount, at_least: 90}
---
trigger: greet
on_enter: keen
send: [{stream: actions}]
---
trigger: part
on_exit: keen_and_rich
send: [{stream: actions}]
---
trigger: other
on_enter: plain
send: [{stream: actions}]
"""
ONLINE = "rules_engine.features.online_store.EmbeddedOnlineStore"


def segments(window: str, count: int) -> str:
    return SEGMENTS.replace("WINDOW", window).replace("COUNT", str(count))


pytestmark = pytest.mark.disagreeing("features are not materialized here")


@pytest.fixture(scope="module")
def happened() -> History:
    return history(seed=11, users=80)


@pytest.fixture
def shop(make_project: Callable[..., Project], happened: History) -> Project:
    return make_shop(make_project, happened, segments("1h", 1), online=ONLINE)


def run(project: Project, *arguments: str, code: int = 0) -> str:
    done = CliRunner().invoke(main.app, [*arguments, "--repo", str(project.root)])
    assert done.exit_code == code, done.output
    return done.stdout if code == 0 else done.stderr


def members(project: Project, everyone: list[str]) -> dict[str, frozenset[str]]:
    with SegmentClient(project) as client:
        return {found.entity: found.segments for found in client.lookup_many(everyone)}


def rewrite(project: Project, text: str) -> None:
    path = project.segments_dir / "all.yaml"
    path.write_text(path.read_text().split("---\n")[0] + "---\n" + text)


def sweeps(project: Project) -> int:
    with redis.Redis.from_url(EmbeddedStore(project.root).url) as client:
        return int(client.xlen(sweeps_key("shop")))


def test_whom_a_plan_names_moves_and_whom_it_does_not_stays(shop: Project, happened: History) -> None:
    everyone = sorted({*happened.events, *(str(row["user_id"]) for row in happened.rows["facts"])})
    run(shop, "apply")
    run(shop, "materialize")
    rewrite(shop, segments("24h", 2))
    out = shop.root / "moves.parquet"
    plan = json.loads(run(shop, "plan", "--format", "json", "--out", str(out)))
    assert run(shop, "plan") == run(shop, "plan")
    before = members(shop, everyone)
    applied = json.loads(run(shop, "apply", "--expect", plan["plan"], "--format", "json"))
    after = members(shop, everyone)
    named = set(pd.read_parquet(out).itertuples(index=False, name=None))
    moved = {(user, name, "enters") for user in everyone for name in after[user] - before[user]}
    moved |= {(user, name, "leaves") for user in everyone for name in before[user] - after[user]}
    assert named == moved
    counts = {
        (name, move): len({user for user, *of in moved if of == [name, move]})
        for name in ("keen", "keen_and_rich")
        for move in ("enters", "leaves")
    }
    assert min(counts["keen", "enters"], counts["keen", "leaves"]) > 3, "or it says little"
    starts = {start["trigger"]: start for found in plan["segments"] for start in found["triggers"]}
    assert {name: (start["move"], start["users"]) for name, start in starts.items()} == {
        "greet": ("enters", counts["keen", "enters"]),
        "part": ("leaves", counts["keen_and_rich", "leaves"]),
    }
    assert applied["stages"] == plan["stages"]
    assert [stage["stage"] for stage in plan["stages"]] == ["build_states", "keep", "switch", "catch_up", "sweep"]
    assert plan["stages"][-1]["segments"] == ["keen", "keen_and_rich"]
    assert plan["stages"][-1]["triggers"] == ["greet", "part"]
    assert json.loads(run(shop, "plan", "--format", "json"))["stages"] == []


def test_what_must_be_built_is_what_the_log_holds(shop: Project, happened: History) -> None:
    stages = project_stages(shop, FeastRepo(shop)).stages
    assert [type(stage) for stage in stages] == [Register, BuildStates, KeepVersion, Switch, CatchUp, Reevaluate]
    assert isinstance(stages[-1], Reevaluate)
    assert stages[-1].triggers == (), "nobody enters what is new"
    build = next(stage for stage in stages if isinstance(stage, BuildStates))
    log = {user: [event for event in events if event.name in build.events] for user, events in happened.events.items()}
    assert build.users == sum(bool(events) for events in log.values())
    assert build.rows >= sum(map(len, log.values()))
    first = min(event.at for events in log.values() for event in events)
    assert build.since is not None
    assert 0 <= first - build.since < 86_400_000_000


def test_a_killed_apply_leaves_its_sweep_to_the_next_one(shop: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[Stage] = []
    apply_project(shop, done=done.append)
    assert sweeps(shop) == 1
    rewrite(shop, segments("24h", 2))

    def killed(self: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(applying._StageWalk, "_sweep", killed)
        with pytest.raises(KeyboardInterrupt):
            apply_project(shop)
    assert sweeps(shop) == 1
    with SegmentClient(shop) as client:
        assert "in 1d at_least 2" in str(client.program.segment("keen").when), "the new definitions are in effect"
    again = apply_project(shop, done=done.append)
    assert again.stages.differs
    assert isinstance(done[-1], Reevaluate)
    assert done[-1].segments == ("keen", "keen_and_rich")
    assert sweeps(shop) == 2
    assert not apply_project(shop).stages.differs


def test_a_plan_that_is_out_of_date_is_not_applied(shop: Project) -> None:
    repo = FeastRepo(shop)
    stages = project_stages(shop, repo)
    apply_project(shop)
    before = shop.read_plan.read_bytes()
    with pytest.raises(ProjectError, match="something else was applied meanwhile"):
        applying.perform(shop, stages, repo)
    assert "and plan 0123 was expected" in run(shop, "apply", "--expect", "0123", code=1)
    assert shop.read_plan.read_bytes() == before


def test_a_plan_needs_no_store(shop: Project) -> None:
    """In CI, where a pull request is looked at, there may be none."""
    store = shop.feature_repo / "feature_store.yaml"
    text = store.read_text()
    gone = "{type: rules_engine.features.online_store.BulkRedisOnlineStore, connection_string: 'localhost:1'}"
    store.write_text(text.replace(f"{{type: {ONLINE}}}", gone))
    plan = json.loads(run(shop, "plan", "--format", "json"))
    assert [stage["stage"] for stage in plan["stages"]][:2] == ["register", "build_states"]
    assert all(found["enters"] for found in plan["segments"])
    assert "error: " in run(shop, "apply", code=1)
