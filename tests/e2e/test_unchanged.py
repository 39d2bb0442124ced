"""An apply that has nothing to do knows it without Feast, and asks Feast whenever anything may differ."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import redis
from typer.testing import CliRunner

from rules_engine.cli import main
from rules_engine.deploy.definitions import apply_project
from rules_engine.deploy.stage_finder import owe_sweep
from rules_engine.deploy.unchanged import unchanged
from rules_engine.folders import Project
from rules_engine.read_plan import ReadPlan
from rules_engine.redis.embedded import EmbeddedStore

VIEWS = """\
from datetime import timedelta
from feast import Entity, FeatureView, Field, FileSource, ValueType
from feast.types import Int64
user = Entity(name="user", join_keys=["user_id"], value_type=ValueType.STRING)
profile = FeatureView(
    name="profile", entities=[user], ttl=timedelta(0),
    source=FileSource(path="profile.parquet", timestamp_field="at"),
    schema=[Field(name="age", dtype=Int64)],
)
"""
EVENTS = "events:\n  view:\n    properties: {page: {type: string}}\n    retention: 30d\n"
SEGMENTS = """\
segment: adults
when: {feature: profile:age, at_least: 18}
---
segment: looking
when: {did: view, within: 1h}
"""


def write_ages(project: Project, *ages: int) -> None:
    rows = {
        "user_id": [f"u{number}" for number in range(len(ages))],
        "age": list(ages),
        "at": pa.array([datetime(2026, 1, 1, tzinfo=UTC)] * len(ages), pa.timestamp("us", "UTC")),
    }
    pq.write_table(pa.table(rows), project.feature_repo / "profile.parquet")


@pytest.fixture
def project(make_project: Callable[..., Project]) -> Project:
    """A project that was applied."""
    made = make_project(
        {"feature_repo/views.py": VIEWS, "feature_repo/events.yaml": EVENTS, "segments/a.yaml": SEGMENTS}
    )
    write_ages(made, 17, 40)
    apply_project(made)
    return made


def segments(project: Project, *arguments: str) -> str:
    done = CliRunner().invoke(main.app, [*arguments, "--repo", str(project.root)])
    assert done.exit_code == 0, done.output
    return done.stdout


def test_commands_that_have_nothing_to_do_import_no_feast(project: Project) -> None:
    code = (
        "import sys\nfrom rules_engine.cli.start import main\n"
        "try:\n    main()\nexcept SystemExit as ended:\n    assert not ended.code\n"
        "assert not {'feast', 'pandas', 'pyarrow'} & sys.modules.keys()\n"
    )
    for command in ("plan", "apply"):
        for output_format in ("text", "json"):
            arguments = [command, "--repo", str(project.root), "--format", output_format]
            subprocess.run([sys.executable, "-c", code, *arguments], check=True, timeout=60)


def test_what_is_known_is_what_feast_says(project: Project) -> None:
    quick = [json.loads(segments(project, command, "--format", "json")) for command in ("plan", "apply")]
    (project.state_dir / "unchanged.json").unlink()
    slow = [json.loads(segments(project, command, "--format", "json")) for command in ("plan", "apply")]
    for one, other in zip(quick, slow, strict=True):
        one.pop("as_of", None), other.pop("as_of", None)
        assert one == other
    assert unchanged(project) is not None, "the slow way knows it afterwards"


def test_whatever_may_change_the_outcome_is_noticed(project: Project) -> None:
    file, views = project.segments_dir / "a.yaml", project.feature_repo / "views.py"
    text = file.read_text()
    changes: dict[str, Callable[[], object]] = {
        "a definition": lambda: file.write_text(text.replace("18", "21")),
        "a new file": lambda: (project.segments_dir / "b.yaml").write_text(
            "segment: b\nwhen: {did: view, within: 2h}\n"
        ),
        "a feature": lambda: views.write_text(views.read_text().replace("age", "years")),
        "an event": lambda: project.events_yaml.write_text(EVENTS.replace("30d", "60d")),
        "a source": lambda: write_ages(project, 1, 2, 3),
        "the registry": lambda: (project.state_dir / "registry.db").write_bytes(b""),
        "the plan in effect": lambda: project.read_plan.write_bytes(project.read_plan.read_bytes() + b"\n"),
        "a sweep that is owed": lambda: owe_sweep(project, ["adults"]),
        "the schema for editors": (project.state_dir / "schema.json").unlink,
        "the store": lambda: _flush(project),
    }
    kept = {path: path.read_bytes() for path in project.root.rglob("*") if path.is_file() and "store" not in path.parts}
    for what, change in changes.items():
        assert unchanged(project) is not None, what
        times = {path: path.stat().st_mtime_ns for path in kept}
        change()
        assert unchanged(project) is None, what
        (project.segments_dir / "b.yaml").unlink(missing_ok=True)
        (project.state_dir / "owed_sweep.json").unlink(missing_ok=True)
        for path, content in kept.items():
            path.write_bytes(content)
            os.utime(path, ns=(times[path], times[path]))


def _flush(project: Project) -> None:
    with redis.Redis.from_url(EmbeddedStore(project.root).url) as client:
        client.flushall()


def test_definitions_that_ask_the_environment_are_always_asked(project: Project) -> None:
    views = project.feature_repo / "views.py"
    views.write_text(f"import os\nNOTE = os.environ.get('NOTE')\n{VIEWS}")
    apply_project(project)
    assert unchanged(project) is None
    assert not json.loads(segments(project, "apply", "--format", "json"))["changed"]


def test_a_module_outside_of_the_project_is_watched(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = project.root / "shared"
    folder.mkdir()
    (folder / "shared_names.py").write_text("AGE = 'age'\n")
    monkeypatch.syspath_prepend(str(folder))
    (project.feature_repo / "views.py").write_text("import shared_names\n" + VIEWS)
    apply_project(project)
    assert unchanged(project) is not None
    (folder / "shared_names.py").write_text("AGE = 'years'\n")
    assert unchanged(project) is None


def test_many_changes_are_summed_up_for_people_and_listed_for_programs(project: Project) -> None:
    made = [f"segment: s{number:03d}\nwhen: {{feature: profile:age, at_least: {number}}}\n" for number in range(60)]
    (project.segments_dir / "many.yaml").write_text("---\n".join(made))
    shown = segments(project, "plan")
    assert "and 40 segments more (40 added)" in shown
    assert "s018, s019 and 40 more" in shown
    rows = [line for line in shown.splitlines() if line.startswith("s0") and "added" in line]
    assert len(rows) == 20
    data = json.loads(segments(project, "plan", "--format", "json"))
    assert len(data["segments"]) == 60
    assert all(one["examples"] for one in data["segments"] if one["enters"])
    assert "s018, s019 and 40 more" in segments(project, "apply")


def test_a_plan_of_another_release_is_replaced(project: Project) -> None:
    plan = ReadPlan.load(project.read_plan)
    definitions = json.loads(json.dumps(plan.definitions))
    for segment in definitions["segments"].values():
        segment.pop("description")  # as if that had not been there yet
    replace(plan, definitions=definitions).save(project.read_plan)
    assert "adults" in segments(project, "plan")
    assert json.loads(segments(project, "apply", "--format", "json"))["changed"]
    assert ReadPlan.load(project.read_plan).definitions == plan.definitions
