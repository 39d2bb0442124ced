"""Memberships as a feature view: what Feast and the SDK read of it is who was in which segment, and since when."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import pandas as pd
import pytest
from typer.testing import CliRunner

from rules_engine.batch.training import training_set
from rules_engine.cli import main
from rules_engine.clock import DAY, to_micros
from rules_engine.deploy import memberships
from rules_engine.features.feast.repo import FeastRepo
from rules_engine.folders import Project
from rules_engine.rules.program import Program
from rules_engine.sdk import SegmentClient
from rules_engine.stream.ledger import Ledger
from rules_engine.triggers.record import MembershipChange, Transition
from tests.batch_shop import NOW, History, history, make_shop

SEGMENTS = """\
segment: rich
description: Has "much"
when: {feature: facts:amount, at_least: 50}
---
segment: keen
when: {did: view, within: 24h}
---
segment: idle_or_scored
when: {any: [{did_not: view, within: 12h}, {feature: fresh:score, greater_than: 0}]}
"""
NAMES = ("idle_or_scored", "keen", "rich")
ONLINE = "rules_engine.features.online_store.EmbeddedOnlineStore"
EARLIER = NOW - timedelta(days=2)
COLUMNS = [f"user_segments:{name}{end}" for name in NAMES for end in ("", "_since")]


@pytest.fixture(scope="module")
def happened() -> History:
    return history(seed=21, users=60)


@pytest.fixture
def shop(make_project: Callable[..., Project], happened: History) -> Project:
    project = make_shop(make_project, happened, SEGMENTS, online=ONLINE)
    views = project.feature_repo / "views.py"  # Feast's DuckDB store knows no ttl of a day and some hours
    views.write_text(views.read_text().replace("timedelta(hours=30)", "timedelta(days=300)"))
    run(project, "apply")
    return project


def run(project: Project, *arguments: str, code: int = 0) -> str:
    done = CliRunner().invoke(main.app, [*arguments, "--repo", str(project.root)])
    assert done.exit_code == code, done.output
    return done.stdout if code == 0 else done.stderr


def write(project: Project, at: datetime = NOW, **options: int) -> Any:
    arguments = ["materialize", "--memberships", "--at", at.isoformat(), "--format", "json"]
    return run(project, *arguments, code=1) if options else json.loads(run(project, *arguments))["memberships"]


def rows(project: Project) -> pd.DataFrame:
    return pd.read_parquet(project.feature_repo / "data" / "user_segments.parquet")


def brute_force(happened: History, program: Program, at: datetime) -> dict[str, frozenset[str]]:
    """As the evaluator finds it, with a ttl that never ends; who only did other events is no user of these segments."""
    known = {str(row["user_id"]) for rows in happened.rows.values() for row in rows if row["at"] <= at}
    known |= {
        user for user, log in happened.events.items() if any(e.at <= to_micros(at) and e.name == "view" for e in log)
    }
    fresh = {
        str(row["user_id"]): row for row in sorted(happened.rows["fresh"], key=lambda row: row["at"]) if row["at"] <= at
    }
    found = {}
    for user, segments in happened.members(program, to_micros(at)).items():
        if user in known:
            score = fresh.get(user, {}).get("score")
            found[user] = segments | ({"idle_or_scored"} if score is not None and score > 0 else set())
    return found


def program_of(project: Project) -> Program:
    with SegmentClient(project) as client:
        return client.program


def test_feast_and_the_sdk_read_who_is_in_what_since_when(shop: Project, happened: History) -> None:
    program = program_of(shop)
    first, second = (brute_force(happened, program, at) for at in (EARLIER, NOW))
    done = write(shop, EARLIER)
    assert (done["defined"], done["users"], done["changed"]) == (True, len(first), len(first))
    again = write(shop, NOW)
    assert (again["defined"], again["users"]) == (False, len(second))
    assert again["changed"] == sum(second[user] != first.get(user) for user in second)
    assert again["segments"] == {name: sum(name in found for found in second.values()) for name in NAMES}
    kept = [user for user in second if second[user] & first.get(user, frozenset())]
    assert 3 < again["changed"] < len(second), "or the comparison says little"
    assert len(kept) > 3
    assert write(shop, NOW)["changed"] == 0
    with SegmentClient(shop) as client:
        for user, segments in second.items():
            assert client.lookup(user).segments == segments
            read = client.features(user, COLUMNS)
            for name in NAMES:
                since = EARLIER if name in first.get(user, ()) else NOW
                assert read[f"user_segments:{name}"] is (name in segments)
                assert read[f"user_segments:{name}_since"] == (since if name in segments else None), (user, name)
    store, everyone = FeastRepo(shop).store, sorted(second)
    online = store.get_online_features(features=COLUMNS, entity_rows=[{"user_id": user} for user in everyone]).to_dict()
    assert dict(zip(everyone, online["keen"], strict=True)) == {user: "keen" in second[user] for user in everyone}


def test_a_training_set_has_the_membership_of_its_time(shop: Project, happened: History) -> None:
    program = program_of(shop)
    write(shop, EARLIER)
    write(shop, NOW)
    first, second = (brute_force(happened, program, at) for at in (EARLIER, NOW))
    moments = {
        EARLIER - timedelta(microseconds=1): None,
        EARLIER: first,
        NOW - timedelta(microseconds=1): first,
        NOW: second,
    }
    asked = [{"user_id": user, "event_timestamp": pd.Timestamp(at)} for at in moments for user in second]
    found = training_set(shop, pd.DataFrame(asked), ["user_segments:keen", "user_segments:rich"])
    for row in found.to_dict("records"):
        then = moments[row["event_timestamp"].to_pydatetime()]
        for name in ("keen", "rich"):
            value = row[f"user_segments:{name}"]
            want = None if then is None or row["user_id"] not in then else name in then[row["user_id"]]
            assert (None if pd.isna(value) else value) == want


def test_since_when_is_what_the_workers_noted(shop: Project, happened: History) -> None:
    second = brute_force(happened, program_of(shop), NOW)
    stays, returned, unnoted = [user for user in sorted(second) if "rich" in second[user]][:3]

    def moved(user: str, change: MembershipChange, days: int) -> tuple[str, Transition]:
        at = to_micros(NOW) - days * DAY
        return user, Transition("rich", change, at, "event", "1")

    noted = [
        moved(stays, MembershipChange.ENTER, 9), moved(stays, MembershipChange.EXIT, 8),
        moved(stays, MembershipChange.ENTER, 7),
        moved(returned, MembershipChange.ENTER, 6), moved(returned, MembershipChange.EXIT, 5),
    ]  # fmt: skip
    Ledger.of(shop).append(noted, stored_at=to_micros(NOW))
    write(shop)
    since = rows(shop).set_index("user_id")["rich_since"]
    assert since[stays] == NOW - timedelta(days=7)
    assert since[returned] == since[unnoted] == NOW, "the ledger has not heard of it yet"


def test_other_segments_make_another_view(shop: Project, happened: History) -> None:
    write(shop, EARLIER)
    path = shop.segments_dir / "all.yaml"
    path.write_text(path.read_text().replace("segment: rich", "segment: wealthy"))
    run(shop, "apply")
    done = write(shop)
    assert done["defined"]
    table = rows(shop)
    assert set(table.columns) == {"user_id", "event_timestamp"} | {
        f"{name}{end}" for name in ("idle_or_scored", "keen", "wealthy") for end in ("", "_since")
    }
    assert table[table["event_timestamp"] == pd.Timestamp(EARLIER)]["wealthy"].isna().all(), "nobody knows"
    assert done["changed"] == done["users"]
    with SegmentClient(shop) as client:
        assert client.features("u000", ["user_segments:wealthy"])["user_segments:wealthy"] is not None
    assert run(shop, "plan") == "Nothing differs from what is applied\n"


def test_the_rows_of_one_instant_are_replaced(shop: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memberships, "_ROW_GROUP", 7)
    write(shop)
    before = rows(shop)
    path = shop.segments_dir / "all.yaml"
    path.write_text(path.read_text().replace("at_least: 50", "at_least: 90"))
    run(shop, "apply")
    changed = write(shop)["changed"]
    after = rows(shop)
    assert 0 < changed < len(before)
    assert len(after) == len(before)
    assert not after.duplicated(["user_id", "event_timestamp"]).any()
    assert after["rich"].sum() == before["rich"].sum() - changed


def test_what_cannot_be_is_refused_and_nothing_is_written(shop: Project) -> None:
    data, definition = shop.feature_repo / "data" / "user_segments.parquet", shop.feature_repo / "user_segments.py"
    views = shop.feature_repo / "views.py"
    text = views.read_text()
    views.write_text(text.replace('"word"', '"term"'))
    assert "feature_repo/ differs from what is applied" in write(shop, code=1)
    own = text.replace('name="fresh"', 'name="user_segments"')
    views.write_text(own)
    assert "defines a feature view `user_segments` that cannot hold memberships" in write(shop, code=1)
    views.write_text(
        text + "\nfrom feast import FeatureService\ns = FeatureService(name='user_segments', features=[facts])\n"
    )
    assert "defines something else named `user_segments`" in write(shop, code=1)
    views.write_text(text)
    definition.write_text("mine = 1\n")
    assert "is there already, and `--memberships` did not write it" in write(shop, code=1)
    assert definition.read_text() == "mine = 1\n"
    definition.unlink()
    assert not data.exists()
    write(shop)
    assert "there are memberships of 2026-03-01T00:00:00Z already" in write(shop, EARLIER, code=1)


def test_two_columns_of_one_name_are_refused(shop: Project) -> None:
    path = shop.segments_dir / "all.yaml"
    path.write_text(path.read_text() + "---\nsegment: keen_since\nwhen: {in_segment: keen}\n")
    run(shop, "apply")
    assert "would be one column of `user_segments`" in write(shop, code=1)


def test_a_clone_without_rows_gets_new_ones(shop: Project) -> None:
    users = write(shop)["users"]
    (shop.feature_repo / "data" / "user_segments.parquet").unlink()
    assert json.loads(run(shop, "evaluate", "--format", "json"))["users"] == users
    assert rows(shop).empty
    (shop.feature_repo / "data" / "user_segments.parquet").unlink()
    done = write(shop)
    assert (done["defined"], done["changed"]) == (False, users)
