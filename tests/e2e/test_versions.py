"""Versions of what was applied, on a small project of their own."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from rules_engine.cli import main
from rules_engine.folders import Project
from rules_engine.sdk import SegmentClient

VIEWS = """\
from datetime import timedelta
from feast import Entity, FeatureView, Field, FileSource, ValueType
from feast.types import {type}
user = Entity(name="user", join_keys=["user_id"], value_type=ValueType.STRING)
profile = FeatureView(
    name="profile", entities=[user], ttl=timedelta(0),
    source=FileSource(path="profile.parquet", timestamp_field="at"),
    schema=[Field(name="{name}", dtype={type})],
)
"""
SEGMENT = "segment: {name}\nwhen: {{feature: profile:age, at_least: {age}}}\n"


@pytest.fixture
def project(make_project: Callable[..., Project]) -> Project:
    return make_project(
        {
            "feature_repo/views.py": VIEWS.format(name="age", type="Int64"),
            "segments/a.yaml": SEGMENT.format(name="adults", age=18),
        }
    )


def apply(project: Project, *options: str, code: int = 0) -> Any:
    done = CliRunner().invoke(main.app, ["apply", "--repo", str(project.root), "--format", "json", *options])
    assert done.exit_code == code, done.output
    return json.loads(done.stdout) if code == 0 else done.stderr


def plans(project: Project) -> list[Path]:
    return sorted((project.state_dir / "versions").iterdir())


def test_every_change_is_a_version_and_an_old_one_can_be_applied_again(project: Project) -> None:
    file = project.segments_dir / "a.yaml"
    assert apply(project)["version"] == 1
    assert apply(project)["version"] == 1, "nothing changed"
    first = project.read_plan.read_text()
    file.write_text(SEGMENT.format(name="adults", age=21))
    (project.segments_dir / "b.yaml").write_text(SEGMENT.format(name="old", age=70))
    assert apply(project)["version"] == 2
    back = apply(project, "--to", "1")
    assert (back["version"], back["segments"]) == (3, {"added": [], "changed": ["adults"], "removed": ["old"]})
    again, before = (json.loads(text) for text in (project.read_plan.read_text(), first))
    assert again.pop("applied_at") > before.pop("applied_at")
    assert again.pop("checksum") != before.pop("checksum"), "it is of the instant too"
    assert again == before
    with SegmentClient(project) as client:
        assert client.program.names == ("adults",)
    listed = apply(project, "--versions")
    assert [(row["version"], row["segments"]) for row in listed] == [(1, 1), (2, 2), (3, 1)]
    assert listed[0]["hash"] == listed[2]["hash"] != listed[1]["hash"]
    assert all(row["who"] and row["applied_at"].endswith("Z") for row in listed)
    assert file.read_text() == SEGMENT.format(name="adults", age=21), "the files stay"


def test_what_cannot_be_gone_back_to_is_refused_and_changes_nothing(project: Project) -> None:
    apply(project)
    assert "there is no version 7" in apply(project, "--to", "7", code=1)
    (project.feature_repo / "views.py").write_text(VIEWS.format(name="age", type="String"))
    (project.segments_dir / "a.yaml").write_text("segment: adults\nwhen: {feature: profile:age, equals: adult}\n")
    apply(project)
    before = project.read_plan.read_text()
    refused = apply(project, "--to", "1", code=1)
    assert "version 1 reads features that are gone or have another type now: profile:age" in refused
    assert project.read_plan.read_text() == before
    plans(project)[0].write_text("{}")
    assert "is damaged" in apply(project, "--to", "1", code=1)


def test_what_only_a_trigger_of_a_version_reads_must_be_there_too(project: Project) -> None:
    trigger = "---\ntrigger: t\non_enter: adults\npayload: {height: {feature: profile:height}}\nsend: [{stream: a}]\n"
    views = project.feature_repo / "views.py"
    both = VIEWS.format(name="age", type="Int64")
    field = 'Field(name="age", dtype=Int64)'
    views.write_text(both.replace(field, f'{field}, Field(name="height", dtype=Int64)'))
    file = project.segments_dir / "a.yaml"
    file.write_text(SEGMENT.format(name="adults", age=18) + trigger)
    assert apply(project)["triggers"]["added"] == ["t"]
    file.write_text(SEGMENT.format(name="adults", age=18))
    views.write_text(both)
    assert apply(project)["triggers"]["removed"] == ["t"]
    assert "gone or have another type now: profile:height" in apply(project, "--to", "1", code=1)
    views.write_text(both.replace(field, f'{field}, Field(name="height", dtype=Int64)'))
    assert apply(project, "--to", "1")["triggers"]["added"] == ["t"]


def test_versions_are_readable_as_the_read_plan_is(project: Project) -> None:
    apply(project)
    assert [path.stat().st_mode for path in plans(project)] == [project.read_plan.stat().st_mode]
