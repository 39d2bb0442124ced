"""The batch commands on the demo: against pandas on its Parquet files, and against the online store."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rules_engine.sdk import SegmentClient
from tests.e2e.conftest import Demo

pytestmark = pytest.mark.slow

#: Whose segments can be told from purchases alone.
SEGMENTS = (
    "at_risk", "big_basket", "champions", "free_sample_only", "holiday_newcomers", "lapsed_champions",
    "one_time_buyers", "overdue_regulars", "promising", "winback",
)  # fmt: skip
PROBE = """\
segment: {name}
when: {{all: [{condition}, {{feature: purchase_history:frequency, at_least: 1}}]}}
"""


@cache
def rows(root: Path, view: str) -> pd.DataFrame:
    return pd.read_parquet(root / "feature_repo" / "data" / f"{view}.parquet")


def newest(root: Path, view: str, instant: datetime) -> pd.DataFrame:
    """Brute force: all rows up to an instant, the last of each user."""
    found = rows(root, view)
    found = found[found["event_timestamp"] <= pd.Timestamp(instant)].sort_values("event_timestamp", kind="stable")
    return found.groupby("user_id").last()


def expected(root: Path, instant: datetime) -> dict[str, set[str]]:
    """The members of the demo's segments, with none of the project's rules."""
    facts, now = newest(root, "purchase_history", instant), pd.Timestamp(instant)
    often, spent, gap = facts["frequency"], facts["monetary_value"], facts["typical_gap_days"]

    def within(days: int) -> pd.Series:
        return facts["last_purchase"] > now - pd.Timedelta(days=days)

    lapsed = (often >= 6) & (spent >= 200) & ~within(180)
    at_risk = ((often >= 4) | (spent >= 150)) & ~within(90) & within(180)
    overdue = (
        ((gap <= 14) & ~within(45))
        | ((gap > 14) & (gap <= 45) & ~within(120))
        | ((gap > 45) & (gap <= 90) & ~within(240))
    )
    overdue &= (often >= 4) & within(365)
    found = {
        "at_risk": at_risk,
        "big_basket": (facts["mean_basket"] >= 75) & (often > 1),
        "champions": (often >= 8) & (spent >= 300) & within(60),
        "free_sample_only": spent == 0,
        "holiday_newcomers": facts["first_purchase"] <= pd.Timestamp("1997-01-07T23:59:59Z"),
        "lapsed_champions": lapsed,
        "one_time_buyers": often == 1,
        "overdue_regulars": overdue,
        "promising": often.between(2, 4) & within(60) & ((gap <= 60) | (facts["last_basket"] >= 30)),
        "winback": (lapsed | at_risk | overdue) & (facts["mean_basket"] >= 15) & ~within(30) & (spent != 0),
    }
    return {name: set(facts.index[members]) for name, members in found.items()}


def instants(root: Path) -> list[datetime]:
    """Random ones, and such at which somebody enters or leaves a window, with the microseconds beside."""
    draw, step = random.Random(42), timedelta(microseconds=1)
    start = datetime(1997, 2, 1, tzinfo=UTC)
    anywhere = [start + timedelta(seconds=draw.randrange(500 * 86_400)) for _ in range(8)]
    purchases = rows(root, "purchase_history")["event_timestamp"].sample(4, random_state=1)
    edges = [at.to_pydatetime() + timedelta(days=draw.choice([0, 30, 60, 90, 180])) for at in purchases]
    return [*anywhere, *(edge + shift for edge in edges for shift in (-step, timedelta(0), step))]


def members(path: Path) -> dict[str, set[str]]:
    table = pd.read_parquet(path)
    return {str(name): set(group["user_id"]) for name, group in table.groupby("segment")}


def test_everyone_as_of_any_instant_is_what_brute_force_finds(demo: Demo, tmp_path: Path) -> None:
    from rules_engine.batch.engine import BatchProject, BatchRules
    from rules_engine.batch.evaluate import evaluate
    from rules_engine.clock import to_micros
    from rules_engine.folders import Project

    opened = BatchProject.open(Project.open(demo.root))
    rules = BatchRules(opened.repo, opened.program, SEGMENTS)
    asked = instants(demo.root)
    assert len(asked) == 20
    for instant in asked:
        sizes = evaluate(rules, to_micros(instant), tmp_path / "members.parquet")
        want = expected(demo.root, instant)
        found = members(tmp_path / "members.parquet")
        assert {name: found.get(name, set()) for name in SEGMENTS} == want, instant
        assert sizes.members == {name: len(users) for name, users in want.items()}
        assert sizes.users == len(newest(demo.root, "purchase_history", instant))


def test_a_row_counts_until_its_ttl_is_past(demo: Demo, tmp_path: Path) -> None:
    """Of rfm, which has a ttl of 40 days: after its last snapshot, on the microsecond."""
    definition = demo.root / "segments" / "recently_measured.yaml"
    condition = "{feature: rfm:purchases_90d, exists: true}"
    definition.write_text(PROBE.format(name="recently_measured", condition=condition))
    last = rows(demo.root, "rfm")["event_timestamp"].max().to_pydatetime()
    try:
        for shift, share in ((timedelta(0), 1.0), (timedelta(microseconds=1), 0.0)):
            at = (last + timedelta(days=40) + shift).isoformat()
            done = json.loads(demo.run(f"evaluate --as-of {at} --segment recently_measured --format json"))
            assert done["segments"]["recently_measured"]["share"] == share
    finally:
        definition.unlink()


def sizes(demo: Demo, arguments: str) -> Mapping[str, int]:
    done = json.loads(demo.run(f"evaluate {arguments} --format json"))
    return {name: found["users"] for name, found in done["segments"].items()}


def test_the_command_prints_writes_and_takes_a_context(demo: Demo) -> None:
    shown = demo.run("evaluate --out all.csv")
    assert shown.startswith("23,570 users as of 1998-07-01T00:00:00Z\nsegment ")
    assert shown.endswith("Wrote all.csv\n")
    pairs = pd.read_csv(demo.root / "all.csv", dtype=str)
    assert list(pairs.columns) == ["user_id", "segment"]
    found = sizes(demo, "--out all.jsonl --matrix")
    flags = pd.read_json(demo.root / "all.jsonl", lines=True, dtype={"user_id": str})
    assert flags.drop(columns="user_id").sum().to_dict() == found
    assert pairs.groupby("segment").size().to_dict() == {name: count for name, count in found.items() if count}
    saturday = "--as-of 1998-07-04T16:00:00Z --segment weekend_mobile_regulars"
    assert sizes(demo, f"{saturday} --context device=mobile")["weekend_mobile_regulars"] > 500
    assert sizes(demo, saturday)["weekend_mobile_regulars"] == 0


def test_what_cannot_be_done_is_said(demo: Demo) -> None:
    for arguments, code, part in (
        ("--segment chmpions", 1, "there is no segment `chmpions`"),
        ("--out all.xlsx", 1, "`.xlsx`, which names no format"),
        ("--matrix", 2, "needs --out FILE"),
        ("--as-of 1998-07-01", 2, "1998-07-01"),
    ):
        done = demo.segments(f"evaluate {arguments}")
        assert (done.returncode, part in done.stderr) == (code, True), done.stderr


# --- plan -----------------------------------------------------------------------------------------------------------


def online(root: Path, everyone: list[str]) -> dict[str, frozenset[str]]:
    with SegmentClient.from_repo(root) as client:
        return {found.entity: found.segments for found in client.lookup_many(everyone)}


def test_a_plan_names_the_very_users_that_move_when_it_is_applied(demo: Demo) -> None:
    everyone = sorted(rows(demo.root, "purchase_history")["user_id"].unique())
    assert demo.run("plan") == "Nothing differs from what is applied\n"
    changed, removed = (demo.root / "segments" / f"{name}.yaml" for name in ("champions", "promising"))
    added = demo.root / "segments" / "spenders.yaml"
    texts = {path: path.read_text() for path in (changed, removed)}
    tests = removed.with_suffix(".test.yaml")
    texts[tests] = tests.read_text()
    try:
        changed.write_text(texts[changed].replace("in_last: 60d", "in_last: 30d").replace("at_least: 8", "at_least: 6"))
        removed.unlink()
        tests.unlink()
        spent = "{feature: purchase_history:monetary_value, at_least: 500}"
        added.write_text(PROBE.format(name="spenders", condition=spent))
        plan = json.loads(demo.run("plan --format json --out moves.parquet"))
        before = online(demo.root, everyone)
        demo.run("apply")
        after = online(demo.root, everyone)
    finally:
        for path, text in texts.items():
            path.write_text(text)
        added.unlink()
        demo.run("apply")
    moves = pd.read_parquet(demo.root / "moves.parquet")
    named = set(moves.itertuples(index=False, name=None))
    assert named == {(user, name, "enters") for user in everyone for name in after[user] - before[user]} | {
        (user, name, "leaves") for user in everyone for name in before[user] - after[user]
    }
    kinds = {found["segment"]: found["change"] for found in plan["segments"]}
    assert kinds == {"champions": "changed", "next_champions": "affected", "promising": "removed", "spenders": "added"}
    counts = moves.groupby(["segment", "change"]).size()
    for found in plan["segments"]:
        name = found["segment"]
        assert (found["enters"], found["leaves"]) == (counts.get((name, "enters"), 0), counts.get((name, "leaves"), 0))
        assert found["stays"] == sum(name in before[user] & after[user] for user in everyone)
        for example in found["examples"]:
            assert (example["entity"], name, example["move"]) in named
            if example["explanation"] is not None:
                assert example["explanation"]["verdict"] is (example["move"] == "enters")
    assert {found["segment"]: found["dependents"] for found in plan["segments"]}["champions"] == ["next_champions"]
    assert all(counts[name, move] > 10 for name, move in (("champions", "enters"), ("champions", "leaves")))


def test_a_plan_can_be_a_gate_and_a_comment(demo: Demo) -> None:
    changed = demo.root / "segments" / "champions.yaml"
    text = changed.read_text()
    try:
        changed.write_text(text.replace("at_least: 8", "at_least: 6"))
        strict = demo.segments("plan --format markdown --fail-if-change 10%")
        loose = demo.segments("plan --fail-if-change 20.5%")
        misspelt = demo.segments("plan --fail-if-change 20")
    finally:
        changed.write_text(text)
    assert strict.returncode == 1
    assert "| champions | changed | 95 | 0 | 722 |" in strict.stdout
    assert "<details><summary>" in strict.stdout
    assert strict.stderr == "error: 13.2% of `champions` moves; 10.0% may\n"
    assert (loose.returncode, loose.stderr) == (0, "")
    assert misspelt.returncode == 2


# --- parity ---------------------------------------------------------------------------------------------------------


def test_the_online_store_and_batch_agree_on_everyone(demo: Demo) -> None:
    everyone = rows(demo.root, "purchase_history")["user_id"].nunique()
    found = json.loads(demo.run("parity --all --format json"))
    assert (found["users"], found["disagreements"]) == (everyone, [])
    assert len(found["segments"]) == 12
    other = json.loads(demo.run("parity --sample 300 --seed 1 --as-of 1998-08-11T00:00:00.000001Z --format json"))
    assert (other["users"], other["as_of"]) == (300, "1998-08-11T00:00:00.000001Z")
    assert other["disagreements"] == [], "past the ttl of rfm"


def test_a_disagreement_is_shown_with_both_values_and_fails(demo: Demo) -> None:
    path = demo.root / "feature_repo" / "data" / "purchase_history.parquet"
    original = path.read_bytes()
    with SegmentClient.from_repo(demo.root) as client:
        everyone = sorted(rows(demo.root, "purchase_history")["user_id"].unique())
        champion = next(found.entity for found in client.lookup_many(everyone) if "champions" in found)
    history = pd.read_parquet(path)
    history.loc[history["user_id"] == champion, "frequency"] = 2
    try:
        table = pa.Table.from_pandas(history, schema=pq.read_schema(path), preserve_index=False)
        pq.write_table(table, path)
        done = demo.segments("parity --all --format json")
        shown = demo.segments("parity --all")
    finally:
        path.write_bytes(original)
    assert (done.returncode, done.stderr) == (1, "")
    found = json.loads(done.stdout)
    assert found["users"] == len(everyone)
    assert {disagreement["entity"] for disagreement in found["disagreements"]} == {champion}
    of_champions = [found for found in found["disagreements"] if found["segment"] == "champions"]
    member, condition = of_champions
    assert (member["condition"], member["online"], member["offline"]) == ("member", True, False)
    assert condition["condition"] == "purchase_history:frequency at_least 8"
    assert (condition["online"], condition["offline"], condition["offline_value"]) == (True, False, "2")
    assert int(condition["online_value"]) >= 8
    assert shown.returncode == 1
    assert "false (2)" in shown.stdout


# --- overlap --------------------------------------------------------------------------------------------------------


def test_pairs_are_those_of_the_sets(demo: Demo) -> None:
    found = json.loads(demo.run("overlap --format json --plot overlap.png"))
    want = expected(demo.root, datetime(1998, 7, 1, tzinfo=UTC))
    checked = [pair for pair in found["pairs"] if {pair["first"], pair["second"]} <= want.keys()]
    assert len(checked) == len(SEGMENTS) * (len(SEGMENTS) - 1) // 2
    for pair in checked:
        one, other = want[pair["first"]], want[pair["second"]]
        assert pair["both"] == len(one & other)
        assert pair["jaccard"] == pytest.approx(len(one & other) / len(one | other))
        assert (pair["of_first"], pair["of_second"]) == (len(one & other) / len(one), len(one & other) / len(other))
    assert [pair["jaccard"] for pair in found["pairs"]] == sorted(
        (pair["jaccard"] for pair in found["pairs"]), reverse=True
    )
    assert (demo.root / "overlap.png").read_bytes().startswith(b"\x89PNG")
    shown = demo.run("overlap --duplicates 0.5 --segment winback --segment at_risk")
    assert "at_risk and winback are nearly the same: " in shown


# --- export ---------------------------------------------------------------------------------------------------------


def test_changes_since_the_last_export_lead_from_one_to_the_next(demo: Demo) -> None:
    days = (datetime(1998, 5, 1, tzinfo=UTC), datetime(1998, 6, 1, tzinfo=UTC), datetime(1998, 7, 1, tzinfo=UTC))
    known: set[str] = set()
    for day in days:
        changes = "export champions --out to/champions.csv --changes-since-last --format json"
        done = json.loads(demo.run(f"{changes} --as-of {day.isoformat()}"))
        moved = pd.read_csv(demo.root / "to" / "champions.csv", dtype=str)
        entered, left = (set(moved[moved["change"] == change]["user_id"]) for change in ("entered", "left"))
        assert (done["entered"], done["left"]) == (len(entered), len(left))
        assert left <= known
        assert not entered & known
        known = (known | entered) - left
        assert known == expected(demo.root, day)["champions"]
        assert done["members"] == len(known)
        assert (done["since"] is None) == (day == days[0])
    back = demo.segments("export champions --out to/champions.csv --changes-since-last --as-of 1998-06-01T00:00:00Z")
    assert back.returncode == 1
    assert "is as of 1998-07-01T00:00:00Z, which is later" in back.stderr
    shown = demo.run("export champions --out to/all.jsonl")
    assert shown == f"Wrote to/all.jsonl: champions has {len(known)} users as of 1998-07-01T00:00:00Z\n"
    everyone = [json.loads(line)["user_id"] for line in (demo.root / "to" / "all.jsonl").read_text().splitlines()]
    assert set(everyone) == known
    assert len(everyone) == len(known)
    again = json.loads(demo.run("export champions --out to/all.jsonl --changes-since-last --format json"))
    assert (again["entered"], again["left"]) == (0, 0)
