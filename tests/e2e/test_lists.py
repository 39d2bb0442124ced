"""Segments that are lists: imported by `apply`, read in lookups, in batch and in SQL like any feature."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from rules_engine.cli import main
from rules_engine.folders import Project
from rules_engine.sdk import SegmentClient

VIEWS = """\
from datetime import timedelta
from pathlib import Path

from feast import Entity, FeatureView, Field, FileSource, ValueType
from feast.types import Int64

user = Entity(name="user", join_keys=["user_id"], value_type=ValueType.STRING)
path = str(Path(__file__).parent / "facts.parquet")
source = FileSource(name="facts", path=path, timestamp_field="at")
facts = FeatureView(
    name="facts", entities=[user], ttl=timedelta(0), source=source, schema=[Field(name="amount", dtype=Int64)]
)
"""
STORE = """\
project: {name}
provider: local
registry: ../.segments/registry.db
offline_store: {{type: duckdb}}
online_store: {{type: rules_engine.features.online_store.EmbeddedOnlineStore}}
entity_key_serialization_version: 3
"""
SEGMENTS = """\
segment: vip
owner: sales@example.com
list: segments/lists/vip.csv
---
segment: rich_vip
when: {all: [{in_segment: vip}, {feature: facts:amount, at_least: 50}]}
---
segment: not_vip
when: {not_in_segment: vip}
"""


@pytest.fixture
def shop(make_project: Callable[..., Project]) -> Project:
    project = make_project(
        {
            "feature_repo/feature_store.yaml": STORE.format(name="shop"),
            "feature_repo/views.py": VIEWS,
            "segments/all.yaml": SEGMENTS,
            "segments/lists/vip.csv": "user_id,name\n1,Ada\n2,Ole\n2,Ole\n9,Kari\n",
        }
    )
    at = datetime.now(UTC) - timedelta(days=1)
    rows = {"user_id": ["1", "2", "3"], "at": [at] * 3, "amount": [100, 10, 100]}
    pd.DataFrame(rows).to_parquet(project.feature_repo / "facts.parquet")
    return project


def run(project: Project, *arguments: str, code: int = 0) -> str:
    done = CliRunner().invoke(main.app, [*arguments, "--repo", str(project.root)])
    assert done.exit_code == code, done.output
    return done.stdout if code == 0 else done.stderr


def write(project: Project, text: str, name: str = "vip.csv") -> None:
    (project.segments_dir / "lists" / name).write_text(text, encoding="utf-8")


def members(project: Project) -> dict[str, set[str]]:
    with SegmentClient(project) as client:
        return {one.entity: set(one.segments) for one in client.lookup_many(["1", "2", "3", "9", "nobody"])}


def exported(project: Project, segment: str) -> set[str]:
    out = project.root / "members.jsonl"
    run(project, "export", segment, "--out", str(out))
    return {json.loads(line)["user_id"] for line in out.read_text().splitlines()}


def stages(project: Project) -> list[dict[str, Any]]:
    return json.loads(run(project, "plan", "--format", "json"))["stages"]


def test_a_list_is_imported_and_read_like_any_feature(shop: Project) -> None:
    [imported] = [stage for stage in stages(shop) if stage["stage"] == "import_lists"]
    assert imported["lists"] == [
        {"segment": "vip", "file": "segments/lists/vip.csv", "size": 3, "joins": 3, "leaves": 0, "repeated": 1}
    ]
    assert not (shop.feature_repo / "segment_lists.py").exists(), "a plan changes nothing"
    done = run(shop, "apply")
    assert "import lists: vip (3 in segments/lists/vip.csv: 3 join, 0 leave, 1 given twice)" in done
    run(shop, "materialize")
    expected = {
        "1": {"vip", "rich_vip"},
        "2": {"vip"},
        "3": {"not_vip"},
        "9": {"vip"},
        "nobody": {"not_vip"},
    }
    assert members(shop) == expected
    for segment in ("vip", "rich_vip", "not_vip"):
        assert exported(shop, segment) == {name for name in "1239" if segment in expected[name]}
    assert "Nothing differs" in run(shop, "plan")
    with SegmentClient(shop) as client:
        assert "segment_lists:vip exists true (is true; observed" in str(client.explain("1", "vip"))
        assert "segment_lists:vip exists true (missing: absent)" in str(client.explain("3", "vip"))


def test_who_joins_and_leaves_is_planned_and_applied(shop: Project) -> None:
    run(shop, "apply")
    write(shop, "user_id\n1\n3\n")
    shown = run(shop, "plan")
    assert "import lists: vip (2 in segments/lists/vip.csv: 1 join, 2 leave)" in shown
    assert members(shop)["2"] == {"vip"}, "a plan changes nothing"
    run(shop, "apply")
    found = members(shop)
    assert [name for name in found if "vip" in found[name]] == ["1", "3"]
    rows = pq.read_table(shop.feature_repo / "data" / "segment_lists.parquet").to_pylist()
    assert sorted((row["user_id"], str(row["vip"])) for row in rows) == [
        ("1", "True"), ("2", "None"), ("2", "True"), ("3", "True"), ("9", "None"), ("9", "True"),
    ]  # fmt: skip
    assert "Nothing differs" in run(shop, "plan")


def test_lists_come_and_go(shop: Project) -> None:
    run(shop, "apply")
    pq.write_table(pa.table({"customer": [3, 9]}), shop.segments_dir / "lists" / "press.parquet")
    more = "\n---\nsegment: press\nlist: {file: segments/lists/press.parquet, column: customer}\n"
    (shop.segments_dir / "all.yaml").write_text(SEGMENTS + more)
    run(shop, "apply")
    assert members(shop)["9"] == {"vip", "press"}
    (shop.segments_dir / "all.yaml").write_text("segment: all\nwhen: {feature: facts:amount, exists: true}\n")
    run(shop, "apply")
    assert not (shop.feature_repo / "segment_lists.py").exists()
    assert members(shop)["9"] == set()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("user_id\n1\n\n 2\n", "line 3: there is no key"),
        ("user_id\n1\n 2\n", "line 3: ' 2' begins or ends with a space"),
        ("user_id,n\n1,2\n,3\n", "line 3: there is no key"),
        ("user_id\n" + "x" * 1_001 + "\n", "line 2: a key has at most 1,000 characters, and this one has 1,001"),
        ("id\n1\n", "has no column `user_id`; it has id"),
        ("", "is empty"),
        ("user_id,n\n1\n", "cannot be read"),
    ],
)
def test_a_file_that_is_no_list_is_refused_and_nothing_is_imported(shop: Project, content: str, message: str) -> None:
    write(shop, content)
    refused = run(shop, "apply", code=1)
    assert "segments/all.yaml:3:7: error[invalid-list]" in refused
    assert message in refused.replace("\n", " ")
    assert not (shop.feature_repo / "segment_lists.py").exists()


def test_a_list_that_is_not_there_is_refused(shop: Project) -> None:
    (shop.segments_dir / "lists" / "vip.csv").unlink()
    assert "there is no file `segments/lists/vip.csv`" in run(shop, "plan", code=1)
