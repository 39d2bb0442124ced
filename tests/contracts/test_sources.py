"""The files behind feature views: what they may hold, in every path that reads them, and what is said of other files.

Each test writes a project, and asks the online store after a materialization, batch with DuckDB and without it, and
training sets the same question.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rules_engine.batch.engine import BatchProject, BatchRules
from rules_engine.batch.parity import compare
from rules_engine.batch.training import training_set
from rules_engine.clock import to_micros
from rules_engine.deploy.check import check_project
from rules_engine.deploy.definitions import apply_project
from rules_engine.deploy.materialize import materialize
from rules_engine.deploy.plan import make_plan
from rules_engine.errors import (
    DataError,
    DefinitionError,
    FeatureColumnError,
    NotAppliedError,
    ProjectError,
    StoreDataError,
)
from rules_engine.features.feast.repo import FeastRepo
from rules_engine.features.offline import newest
from rules_engine.folders import Project
from rules_engine.sdk import SegmentClient
from tests.source_project import HEAD, STORE

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
BEFORE = datetime(2026, 2, 1, tzinfo=UTC)
UTC_MICROS = pa.timestamp("us", "UTC")

Maker = Callable[..., Project]


@pytest.fixture(params=["file", "duckdb"])
def shop(request: pytest.FixtureRequest, make_project: Callable[..., Project]) -> Maker:
    def make(views: str, tables: Mapping[str, Mapping[str, Any]], segments: str) -> Project:
        project = make_project(
            {
                "feature_repo/feature_store.yaml": STORE.format(offline=request.param),
                "feature_repo/views.py": HEAD + views,
                "segments/all.yaml": f"project: shop\nnow: {NOW.isoformat()}\n---\n{segments}",
            }
        )
        for name, columns in tables.items():
            write(project, name, columns)
        return project

    return make


def write(project: Project, name: str, columns: Mapping[str, Any]) -> None:
    rows = len(next(iter(columns.values())))
    table = {"at": pa.array([BEFORE] * rows, UTC_MICROS), **columns}
    pq.write_table(pa.table(table), project.feature_repo / f"{name}.parquet")


def everywhere(project: Project, features: list[str], keys: list[str], monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The features of entities online, in batch with DuckDB and without it, and in a training set: a list for each."""
    found = []
    with SegmentClient(project) as client:
        found.append([client.features(key, features) for key in keys])
    for has_duckdb in (True, False):
        with monkeypatch.context() as patched:
            if not has_duckdb:
                patched.setattr(newest, "has_duckdb", lambda: False)
            opened = BatchProject.open(project)
            rules = BatchRules(opened.repo, opened.program)
            inputs = rules.inputs(to_micros(NOW), keys)
        empty = dict.fromkeys(features)
        rows = [empty | dict(inputs[key].features) if key in inputs else empty for key in keys]
        found.append([{name: as_client(name, row[name]) for name in features} for row in rows])
    asked = pd.DataFrame({"user_id": keys, "event_timestamp": pd.Timestamp(NOW)})
    rows = training_set(project, asked, features)[features].to_dict("records")
    found.append([{name: as_client(name, value) for name, value in row.items()} for row in rows])
    return found


def as_client(name: str, value: Any) -> Any:
    """A value as the client gives it."""
    if isinstance(value, tuple) or type(value).__name__ == "ndarray":
        return [as_client("", each) for each in value]
    if value is None or value is pd.NA or value is pd.NaT or value != value:
        return None
    if name.endswith("seen") and isinstance(value, int):
        return datetime.fromtimestamp(value / 1e6, tz=UTC)
    return value.to_pydatetime() if isinstance(value, pd.Timestamp) else value


VIEWS = 'v = view("v", n=Int64, x=Float64, word=String, seen=UnixTimestamp, tags=Array(String), yes=Bool)\n'
NAMES = [f"v:{name}" for name in ("n", "x", "word", "seen", "tags", "yes")]
SEGMENTS = """\
segment: exact
when: {feature: v:n, equals: 9007199254740993}
---
segment: tagged
when: {feature: v:tags, includes: a}
---
segment: seen_lately
when: {feature: v:seen, after: 2026-01-01T00:00:00Z}
---
segment: others
when: {all: [{feature: v:x, exists: true}, {feature: v:word, exists: true}, {feature: v:yes, exists: true}]}
"""


def test_every_path_gives_the_value_of_the_table(shop: Maker, monkeypatch: pytest.MonkeyPatch) -> None:
    instant = datetime(2026, 1, 2, 3, 4, 5, 999_999, tzinfo=UTC)
    columns = {
        "user_id": ["a", "b", None, "c"],
        "n": pa.array([2**53 + 1, None, 7, -(2**63)]),
        "x": pa.array([1, None, 3, 2**53]),
        "word": pa.array(["é", None, "nobody's", ""]).dictionary_encode(),
        "seen": pa.array([instant, None, None, datetime(1969, 12, 31, 23, 59, 59, 1, tzinfo=UTC)], UTC_MICROS),
        "tags": pa.array([["a", None], None, ["z"], []]),
        "yes": pa.array([True, None, True, False]),
    }
    project = shop(VIEWS, {"v": columns}, SEGMENTS)
    applied = apply_project(project)
    assert applied.notes == ("1 row of v has no `user_id`, left out",)
    assert materialize(project).views[0].notes == applied.notes
    nothing = dict.fromkeys(NAMES)
    second = instant.replace(microsecond=0)
    expected = [
        dict(zip(NAMES, [2**53 + 1, 1.0, "é", second, ["a"], True], strict=True)),
        nothing,
        dict(
            zip(NAMES, [-(2**63), 2.0**53, "", datetime(1969, 12, 31, 23, 59, 59, tzinfo=UTC), [], False], strict=True)
        ),
        nothing,
    ]
    for found in everywhere(project, NAMES, ["a", "b", "c", "nobody"], monkeypatch):
        assert found == expected
    assert compare(project, None).disagreements == ()


def test_a_column_that_nobody_has_may_be_of_any_type(shop: Maker, monkeypatch: pytest.MonkeyPatch) -> None:
    """pandas writes floats for a date, a text or a list that nobody has yet."""
    nan = pa.array([float("nan"), None])
    project = shop(VIEWS, {"v": {"user_id": ["a", "b"], **dict.fromkeys([name[2:] for name in NAMES], nan)}}, SEGMENTS)
    assert check_project(project).problems == ()
    apply_project(project)
    materialize(project)
    for found in everywhere(project, NAMES, ["a", "b"], monkeypatch):
        assert found == [dict.fromkeys(NAMES)] * 2
    assert compare(project, None).disagreements == ()


@pytest.mark.parametrize("keys", [pa.array([42, None, 7]), pa.array([42.0, float("nan"), 7.0])])
def test_whole_numbers_are_keys_of_one_spelling(shop: Maker, keys: pa.Array, monkeypatch: pytest.MonkeyPatch) -> None:
    project = shop(
        'v = view("v", n=Int64)\n',
        {"v": {"user_id": keys, "n": [1, 2, 3]}},
        "segment: one\nwhen: {feature: v:n, equals: 1}\n",
    )
    apply_project(project)
    assert materialize(project).views[0].notes == ("1 row of v has no `user_id`, left out",)
    for found in everywhere(project, ["v:n"], ["42", "7", "42.0"], monkeypatch):
        assert found == [{"v:n": 1}, {"v:n": 3}, {"v:n": None}]
    assert compare(project, None).disagreements == ()


def test_days_are_instants_of_rows_and_texts_are_not(shop: Maker, monkeypatch: pytest.MonkeyPatch) -> None:
    days = {
        "user_id": ["a", "a", "b"],
        "n": [1, 2, 3],
        "at": pa.array([date(2026, 2, 1), date(2026, 2, 2), date(2026, 3, 2)]),
    }
    segments = "segment: two\nwhen: {feature: v:n, equals: 2}\n"
    project = shop('v = view("v", n=Int64)\n', {"v": days}, segments)
    apply_project(project)
    materialize(project)
    for found in everywhere(project, ["v:n"], ["a", "b"], monkeypatch):
        assert found == [{"v:n": 2}, {"v:n": None}]
    write(project, "v", days | {"at": ["2026-02-01", "2026-02-02T00:00:00Z", "x"]})
    refused = "the timestamp column `at` holds string, and rows need timestamps"
    assert [problem.message for problem in check_project(project).problems] == [refused]
    for act in (lambda: apply_project(project), lambda: materialize(project), lambda: answers(project)):
        with pytest.raises((DataError, DefinitionError), match=refused):
            act()


def answers(project: Project, *segments: str) -> dict[str, int]:
    opened = BatchProject.open(project)
    return BatchRules(opened.repo, opened.program, segments or None).sizes(opened.now).members


def test_validate_and_apply_refuse_a_column_at_its_definition(shop: Maker) -> None:
    project = shop(
        'v = view("v", n=Int64)\nw = view("w", word=String, gone=Int64)\n',
        {"v": {"user_id": ["a"], "n": ["3"]}, "w": {"user_id": ["a"], "word": [150]}},
        "segment: one\nwhen: {feature: v:n, equals: 1}\n",
    )
    problems = check_project(project).problems
    assert [(problem.code, problem.span.text) for problem in problems] == [
        ("source-column", 'v = view("v", n=Int64)'),
        ("source-column", 'w = view("w", word=String, gone=Int64)'),
        ("source-column", 'w = view("w", word=String, gone=Int64)'),
    ]
    said = sorted(problem.message for problem in problems)
    assert "feature `v:n` is declared Int64, and its source holds string" in said
    assert "feature `w:word` is declared String, and its source holds int64" in said
    assert f"{project.feature_repo / 'w.parquet'} has no column `gone`, which is feature `w:gone`" in said
    assert all(problem.hint for problem in problems)
    with pytest.raises(DefinitionError, match="declared String, and its source holds int64"):
        apply_project(project)
    assert not project.read_plan.exists()


TWO = """\
segment: good
when: {feature: v:n, equals: 1}
---
segment: bad
when: {feature: w:seen, after: 2026-01-01T00:00:00Z}
---
segment: by_reference
when: {not_in_segment: bad}
"""


def test_a_view_that_cannot_be_read_stops_only_what_reads_it(shop: Maker) -> None:
    milliseconds = {"user_id": ["a"], "seen": [1_795_046_400_000]}
    project = shop(
        'v = view("v", n=Int64)\nw = view("w", seen=UnixTimestamp)\n',
        {"v": {"user_id": ["a"], "n": [1]}, "w": milliseconds},
        TWO,
    )
    apply_project(project)
    with pytest.raises(FeatureColumnError, match=r"`w:seen` .* is the year 58852; are these milliseconds\?"):
        materialize(project)
    with SegmentClient(project) as client:
        assert client.features("a") == {"v:n": 1, "w:seen": None}
    found = compare(project, None)
    assert (found.segments, found.disagreements) == (("good",), ())
    assert found.refused.keys() == {"bad", "by_reference"}
    assert answers(project, "good") == {"good": 1}
    with pytest.raises(FeatureColumnError):
        answers(project, "good", "by_reference")
    path = project.segments_dir / "all.yaml"
    path.write_text(path.read_text().replace("equals: 1}", "equals: 2}").replace("2026-01-01", "2026-01-02"))
    moved = {movement.segment: movement for movement in make_plan(project).movements}
    assert moved["good"].leaves == 1
    assert "are these milliseconds" in str(moved["bad"].uncounted)
    assert "are these milliseconds" in str(moved["by_reference"].uncounted)


def test_the_last_of_tied_rows_counts_and_corrections_arrive(shop: Maker, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = {"user_id": ["a", "b", "a", "c", "c"], "n": [1, 2, 3, 5, 4]}
    made = {"made": pa.array([BEFORE, None, None, NOW, BEFORE], UTC_MICROS)}
    project = shop(
        'v = view("v", n=Int64)\nw = view("w", created="made", n=Int64)\n',
        {"v": rows, "w": rows | made},
        "segment: three\nwhen: {all: [{feature: v:n, equals: 3}, {feature: w:n, equals: 1}]}\n",
    )
    tied = "2 ties in v: rows of one `user_id` with the same `at`; the last one in the file counts"
    assert apply_project(project).notes == (tied,)
    assert [view.notes for view in materialize(project).views] == [(tied,), ()]
    last = [{"v:n": 3, "w:n": 1}, {"v:n": 2, "w:n": 2}, {"v:n": 4, "w:n": 5}]
    for found in everywhere(project, ["v:n", "w:n"], ["a", "b", "c"], monkeypatch):
        assert found == last
    assert compare(project, None).disagreements == ()
    write(project, "v", {name: [*values, value] for (name, values), value in zip(rows.items(), ["b", 9], strict=True)})
    materialize(project)
    for found in everywhere(project, ["v:n"], ["b"], monkeypatch):
        assert found == [{"v:n": 9}], "a correction at the same instant"


def test_a_copied_project_never_reads_the_original(shop: Maker, tmp_path: Path) -> None:
    segments = "segment: one\nwhen: {feature: v:n, equals: 1}\n"
    original = shop('v = view("v", n=Int64)\n', {"v": {"user_id": ["a"], "n": [1]}}, segments)
    apply_project(original)
    shutil.copytree(original.root, tmp_path / "copy", ignore=shutil.ignore_patterns("v.sock"))
    copy = Project.open(tmp_path / "copy")
    write(copy, "v", {"user_id": ["a"], "n": [777]})
    with pytest.raises(NotAppliedError, match="feature_repo/ differs from what is applied") as refused:
        materialize(copy)
    assert "run `segments apply`" in str(refused.value.hint)
    with pytest.raises(NotAppliedError):
        FeastRepo(copy).registered_view("v")
    apply_project(copy)
    materialize(copy)
    with SegmentClient(copy) as client:
        assert client.features("a") == {"v:n": 777}


def test_a_source_that_is_not_there_or_is_no_parquet_says_so_without_sql(shop: Maker) -> None:
    segments = "segment: one\nwhen: {feature: v:n, equals: 1}\n"
    project = shop('v = view("v", n=Int64)\n', {"v": {"user_id": ["a"], "n": [1]}}, segments)
    apply_project(project)
    for damage in (lambda path: path.write_bytes(b"PAR1 is not all of it"), Path.unlink):
        damage(project.feature_repo / "v.parquet")
        for act in (lambda: materialize(project), lambda: answers(project)):
            with pytest.raises(
                (DataError, ProjectError), match="the source of feature view `v` cannot be read"
            ) as raised:
                act()
            assert "SELECT" not in str(raised.value)
            assert raised.value.hint


def test_an_instant_beyond_the_calendar_in_the_store_is_a_named_error(shop: Maker) -> None:
    """Feast's own writes take milliseconds for seconds."""
    segments = "segment: seen\nwhen: {feature: v:seen, exists: true}\n"
    project = shop('v = view("v", seen=UnixTimestamp)\n', {"v": {"user_id": ["a"], "seen": [1_700_000_000]}}, segments)
    apply_project(project)
    store = FeastRepo(project).store
    rows = pd.DataFrame({"user_id": ["a"], "at": [pd.Timestamp(BEFORE)], "seen": [1_795_046_400_000]})
    store.write_to_online_store("v", rows)
    with SegmentClient(project) as client:
        with pytest.raises(StoreDataError, match="after the year 9999 for the feature v:seen") as raised:
            client.features("a")
        assert "materialize --full" in str(raised.value.hint)
