"""Decisions from their file to an answer: the same online and for everybody at once; experiments that run."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pandas as pd
import pytest

from rules_engine.folders import Project
from rules_engine.sdk import SegmentClient
from tests.commands import bad, good, run
from tests.service import shop

USERS = [f"u{number}" for number in range(300)]
START = datetime.now(UTC) - timedelta(days=1)
DECISIONS = f"""\
experiment: offer
arms: {{control: {{serve: none, weight: 50}}, voucher: {{serve: voucher, weight: 50}}}}
coverage: 80
start: {START.isoformat()}
---
decision: home
variants: {{none: {{value: null}}, voucher: {{value: {{percent: 10}}}}, new_in: {{value: {{banner: new_in}}}}}}
rules:
  - {{when: {{feature: profile:country, equals: NO}}, serve: new_in}}
  - {{when: {{feature: profile:age, at_least: 18}}, experiment: offer}}
  - {{when: {{feature: profile:spent, greater_than: 50}}, serve: {{none: 50, voucher: 50}}}}
default: none
"""


@pytest.fixture
def project(make_project: Callable[..., Project]) -> Project:
    project = make_project({**shop.FILES, "segments/b.yaml": DECISIONS})
    people = {user: ("NO" if at % 7 == 0 else "DE", at % 40, float(at)) for at, user in enumerate(USERS)}
    (project.feature_repo / "data").mkdir()
    shop.rows(**people).to_parquet(project.feature_repo / "data" / "profile.parquet")
    run("apply", "--repo", project.root)
    run("materialize", "--repo", project.root)
    return project


def test_everybody_gets_the_same_online_and_in_batch(project: Project, tmp_path: Path) -> None:
    with SegmentClient(project) as client:
        online = {assignment.entity: assignment.variant for assignment in client.decide_many(USERS, "home")}
    assert set(online.values()) == {"none", "voucher", "new_in"}
    out = tmp_path / "home.parquet"
    counted = json.loads(
        run("evaluate", "--decision", "home", "--out", out, "--repo", project.root, "--format", "json")
    )
    assert pd.read_parquet(out).set_index("user_id")["home"].to_dict() == online
    assert {name: each["users"] for name, each in counted["variants"].items()} == pd.Series(
        online
    ).value_counts().to_dict()


def test_the_command_tells_who_gets_what_and_why(project: Project) -> None:
    told = json.loads(good("decide", "u0", "home", "--repo", project.root, "--format", "json"))
    assert (told[0]["variant"], told[0]["value"], told[0]["because"]) == ("new_in", {"banner": "new_in"}, "rule 1")
    shown = good("decide", "u20", "--repo", project.root)
    assert shown.splitlines()[-1].startswith("home: ")
    explained = good("explain", "u20", "home", "--repo", project.root)
    assert "rule 1 is not met" in explained
    assert "rule 2 is met" in explained
    assert bad("decide", "u0", "hom", "--repo", project.root).count("did you mean `home`?") == 1


def test_the_sql_of_a_decision_is_a_query(project: Project) -> None:
    text = " ".join(good("sql", "home", "--repo", project.root).split())
    assert "WHEN \"decision.home.rule_1.1\" THEN 'new_in'" in text
    assert "ELSE 'none'" in text


def test_a_running_experiment_does_not_change_its_arms(project: Project) -> None:
    file = project.segments_dir / "b.yaml"
    changed = DECISIONS.replace("serve: none, weight: 50", "serve: none, weight: 90").replace(
        "serve: voucher, weight: 50", "serve: voucher, weight: 10"
    )
    file.write_text(changed)
    for command in ("plan", "apply"):
        message = bad(command, "--repo", project.root)
        assert "the experiment `offer` runs since" in message
        assert "write `phase: 2`" in message
    file.write_text(changed.replace("coverage: 80", "coverage: 80\nphase: 2"))
    assert "experiments" in run("plan", "--repo", project.root)
    run("apply", "--repo", project.root)
    file.write_text(changed.replace("coverage: 80", "coverage: 90\nphase: 2"))  # more coverage moves nobody
    run("apply", "--repo", project.root)


def test_validate_warns_of_rules_that_decide_nothing(project: Project) -> None:
    extra = "segments/c.yaml"
    (project.root / extra).write_text(
        "decision: d\nvariants: {a: {value: 1}, b: {value: 2}}\n"
        "rules: [{when: {feature: profile:age, at_least: 18}, serve: a}, "
        "{when: {feature: profile:age, at_least: 21}, serve: b}]\ndefault: b\n"
    )
    told = run("validate", "--repo", project.root)
    assert "rule-never-decides" in told
    assert "rule 1 does for all of them" in told


def test_plan_counts_who_gets_another_variant(project: Project, tmp_path: Path) -> None:
    file = project.segments_dir / "b.yaml"
    command = ("evaluate", "--decision", "home", "--repo", project.root, "--out")
    good(*command, tmp_path / "before.parquet")
    file.write_text(DECISIONS.replace("greater_than: 50", "greater_than: 5").replace("percent: 10", "percent: 20"))
    planned = json.loads(good("plan", "--format", "json", "--repo", project.root))
    good(*command, tmp_path / "after.parquet")
    before, after = (
        pd.read_parquet(tmp_path / f"{name}.parquet").set_index("user_id")["home"] for name in ("before", "after")
    )
    moved = int((before != after[before.index]).sum())
    assert moved > 0
    [told] = planned["decisions"]
    assert (told["decision"], told["change"], told["moved"]) == ("home", "changed", moved)
    assert (told["before"], told["after"]) == (before.value_counts().to_dict(), after.value_counts().to_dict())
    shown = good("plan", "--repo", project.root)
    assert f"decision home is changed: {moved} users get another variant (" in shown
    assert f"decision home is changed: {moved} users" in good("plan", "--format", "markdown", "--repo", project.root)


def test_plan_counts_decisions_whose_experiment_changes_and_names_what_it_cannot_count(project: Project) -> None:
    file = project.segments_dir / "b.yaml"
    file.write_text(DECISIONS.replace("coverage: 80", "coverage: 100"))
    [told] = json.loads(good("plan", "--format", "json", "--repo", project.root))["decisions"]
    assert (told["change"], told["uncounted"]) == ("affected", None)
    assert told["moved"] > 0
    file.write_text(DECISIONS.replace("coverage: 80", "coverage: 80\nhash_version: 1\nphase: 2"))
    [told] = json.loads(good("plan", "--format", "json", "--repo", project.root))["decisions"]
    assert (told["moved"], told["change"]) == (None, "affected")
    assert "version 1 of the hash" in told["uncounted"]
    file.unlink()
    assert "decision home is removed: " in good("plan", "--repo", project.root)
