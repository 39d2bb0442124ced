"""Random sources: the value that the newest row holds, by brute force, is what every path reads.

Columns of every type that a declared type takes, with nulls, NaN and values at the edges; rows that tie on their
instants and creation times, without keys or timestamps; and columns of types that are refused, by every path alike.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rules_engine.batch.engine import BatchProject, BatchRules
from rules_engine.batch.parity import compare
from rules_engine.batch.training import training_set
from rules_engine.clock import to_micros
from rules_engine.deploy.apply import apply
from rules_engine.deploy.definitions import load_project
from rules_engine.deploy.materialize import materialize
from rules_engine.errors import DataError, FeatureColumnError
from rules_engine.events.declarations.events_yaml import read_events
from rules_engine.features.feast.repo import FeastRepo
from rules_engine.features.feast_import import quiet
from rules_engine.features.offline import newest
from rules_engine.folders import Project
from rules_engine.sdk import SegmentClient
from rules_engine.sdk.rules import encode_definitions
from tests.property.columns import COLUMNS, REFUSED
from tests.source_project import HEAD, STORE

NOW = datetime(2026, 3, 1, tzinfo=UTC)
UTC_MICROS = pa.timestamp("us", "UTC")


class View:
    """One random view: its rows, and what its entities' newest rows hold."""

    def __init__(self, draw: random.Random, name: str, rows: int, users: int, *, refused: bool = False) -> None:
        self.name = name
        self.created = draw.choice(["", "made"])
        self.fields: dict[str, str] = {}
        self.is_refused = refused
        numeric = draw.random() < 0.3
        keys = [None if draw.random() < 0.01 else draw.randrange(users) for _ in range(rows)]
        instants = [None if draw.random() < 0.01 else NOW - timedelta(hours=draw.randrange(-3, 9)) for _ in range(rows)]
        made = [None if draw.random() < 0.2 else NOW + timedelta(hours=draw.randrange(2)) for _ in range(rows)]
        columns: dict[str, pa.Array] = {
            "user_id": pa.array([key if numeric or key is None else str(key) for key in keys]),
            "at": pa.array(instants, UTC_MICROS),
            "made": pa.array(made, UTC_MICROS),
        }
        values: dict[str, list[Any]] = {}
        for number in range(3):
            declared = draw.choice(sorted(COLUMNS))
            column = draw.choice(COLUMNS[declared])
            field, nulls = f"c{number}", draw.choice([0.0, 0.1, 0.3, 0.5, 1.0])
            drawn = [None if draw.random() < nulls else draw.choice(column.values) for _ in range(rows)]
            self.fields[field], columns[field] = declared, column.array(drawn)
            values[field] = [column.read(value) for value in drawn]
        if refused:
            declared, kind, value = draw.choice(REFUSED)
            self.fields["bad"], columns["bad"] = declared, pa.array([value] * rows, kind)
        self.table = pa.table(columns)
        best: dict[str, tuple[Any, ...]] = {}
        for row, (key, at, created) in enumerate(zip(keys, instants, made, strict=True)):
            if key is None or at is None or at > NOW:
                continue
            order = (at, created or datetime.min.replace(tzinfo=UTC), row) if self.created else (at, row)
            best[str(key)] = max(best.get(str(key), order), order)
        self.newest = {
            key: {f"{name}:{field}": found[order[-1]] for field, found in values.items()} for key, order in best.items()
        }

    @property
    def features(self) -> list[str]:
        """The features that can be read."""
        return [f"{self.name}:{field}" for field in self.fields if field != "bad"]

    @property
    def definition(self) -> str:
        fields = ", ".join(f"{field}={declared}" for field, declared in self.fields.items())
        return f'{self.name} = view("{self.name}", "{self.created}", {fields})\n'

    def segments(self) -> Iterator[str]:
        for field in self.fields:
            yield f"segment: {self.name}_{field}\nwhen: {{feature: {self.name}:{field}, exists: true}}\n"


def plain(name: str, value: Any) -> Any:
    """A value as the brute force has it, whatever a path wraps it in."""
    if isinstance(value, tuple | list) or type(value).__name__ == "ndarray":
        return [plain("", each) for each in value]
    if value is None or value is pd.NA or value is pd.NaT or value != value:
        return None
    return value.to_pydatetime() if isinstance(value, pd.Timestamp) else value


def make(make_project: Callable[..., Project], views: list[View], offline: str, row_group: int) -> Project:
    project = make_project(
        {
            "feature_repo/feature_store.yaml": STORE.format(offline=offline),
            "feature_repo/views.py": HEAD + "".join(view.definition for view in views),
            "segments/all.yaml": f"project: shop\nnow: {NOW.isoformat()}\n---\n"
            + "---\n".join(segment for view in views for segment in view.segments()),
        }
    )
    for view in views:
        pq.write_table(view.table, project.feature_repo / f"{view.name}.parquet", row_group_size=row_group)
    definitions = load_project(project).definitions
    declared = read_events(project.events_yaml)  # `apply_project` would refuse the columns that it can see
    apply(project, encode_definitions(definitions, declared), now=to_micros(NOW))
    return project


@contextmanager
def without_duckdb(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with monkeypatch.context() as patched:
        patched.setattr(newest, "has_duckdb", lambda: False)
        yield


def in_batch(project: Project, features: list[str], keys: list[str]) -> dict[str, dict[str, Any]]:
    opened = BatchProject.open(project)
    segments = [name.replace(":", "_") for name in features]
    inputs = BatchRules(opened.repo, opened.program, segments).inputs(to_micros(NOW), keys)
    times = {name for name, feature in opened.catalog.features.items() if feature.feast_type == "UnixTimestamp"}
    found = {}
    for key in keys:
        given = inputs[key].features if key in inputs else {}
        read = {name: plain(name, given.get(name)) for name in features}
        epoch = datetime(1970, 1, 1, tzinfo=UTC)
        found[key] = {
            name: epoch + timedelta(microseconds=value) if name in times and value is not None else value
            for name, value in read.items()
        }
    return found


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.filterwarnings("ignore")  # Feast's and dask's deprecations
def test_every_path_reads_what_the_newest_row_holds(
    make_project: Callable[..., Project], monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    draw = random.Random(seed)
    offline = ["file", "duckdb"][seed % 2]
    views = [View(draw, f"v{number}", rows, 250) for number, rows in enumerate([3, 700, 2_500])]
    views.append(View(draw, "w", 50, 20, refused=True))
    project = make(make_project, views, offline, row_group=draw.choice([50, 10_000]))
    with pytest.raises((DataError, FeatureColumnError), match="w:bad"):
        materialize(project)
    sound = [view for view in views if not view.is_refused]
    features = [name for view in sound for name in view.features]
    keys = sorted({key for view in sound for key in view.newest} | {"nobody"})
    expected = {}
    for key in keys:
        held = {name: value for view in sound for name, value in view.newest.get(key, {}).items()}
        expected[key] = {name: plain(name, held.get(name)) for name in features}
    assert sum(value is not None for row in expected.values() for value in row.values()) > 100, "or it says little"

    with SegmentClient(project) as client:
        online = {key: client.features(key, features) for key in keys}
    assert {key: {name: plain(name, value) for name, value in row.items()} for key, row in online.items()} == expected
    assert in_batch(project, features, keys) == expected
    with without_duckdb(monkeypatch):
        assert in_batch(project, features, keys) == expected
        with pytest.raises(FeatureColumnError, match="w:bad"):
            in_batch(project, ["w:bad"], keys)
    with pytest.raises(FeatureColumnError, match="w:bad"):
        in_batch(project, ["w:bad"], keys)
    asked = pd.DataFrame({"user_id": keys, "event_timestamp": pd.Timestamp(NOW)})
    joined = training_set(project, asked, features).set_index("user_id")[features].to_dict("index")
    assert {key: {name: plain(name, value) for name, value in row.items()} for key, row in joined.items()} == expected
    found = compare(project, None)
    differing = {disagreement.segment for disagreement in found.disagreements}
    assert {name for name in differing if not name.startswith("w_")} == set(), "of `w` nothing was materialized"
    assert set(found.refused) == {"w_bad"}


@pytest.mark.filterwarnings("ignore")  # Feast's and dask's deprecations
@pytest.mark.parametrize("offline", ["file", "duckdb"])
def test_feasts_own_history_agrees_where_it_can(make_project: Callable[..., Project], offline: str) -> None:
    """Texts and floats without ties: Feast rounds whole numbers beside nulls, and has no rule for ties."""
    draw = random.Random(3)
    view = View(draw, "v0", 0, 1)
    rows = 3_000
    keys = [str(draw.randrange(400)) for _ in range(rows)]
    ats = [NOW - timedelta(seconds=number * 7919 % rows) for number in range(rows)]
    view.fields, view.created = {"x": "Float64", "word": "String"}, ""
    words = [draw.choice(["", "é", None]) for _ in range(rows)]
    numbers = [draw.choice([0.1, None, -1e300]) for _ in range(rows)]
    view.table = pa.table(
        {
            "user_id": keys,
            "at": pa.array(ats, UTC_MICROS),
            "made": pa.array(ats, UTC_MICROS),
            "x": numbers,
            "word": words,
        }
    )
    project = make(make_project, [view], offline, row_group=400)
    asked = pd.DataFrame({"user_id": sorted(set(keys)), "event_timestamp": pd.Timestamp(NOW)})
    asked["event_timestamp"] -= pd.to_timedelta([draw.randrange(rows) for _ in range(len(asked))], unit="s")
    ours = training_set(project, asked, ["v0:x", "v0:word"])
    with quiet():
        store = FeastRepo(project).store
        feasts = store.get_historical_features(asked, ["v0:x", "v0:word"], full_feature_names=True).to_df()
    both = asked.merge(feasts, on=["user_id", "event_timestamp"], how="left")
    for name in ("v0:x", "v0:word"):
        mine = [plain(name, value) for value in ours[name]]
        assert mine == [plain(name, value) for value in both[name.replace(":", "__")]]
        assert {None} < set(mine)


def test_more_rows_than_any_batch_holds(make_project: Callable[..., Project], monkeypatch: pytest.MonkeyPatch) -> None:
    rows = 300_000
    draw = random.Random(11)
    keys = [f"user{draw.randrange(140_000)}" for _ in range(rows)]
    hours = [draw.randrange(3) for _ in range(rows)]
    view = View(draw, "v0", 0, 1)
    view.fields, view.created = {"c0": "Int64"}, ""
    view.table = pa.table(
        {
            "user_id": keys,
            "at": pa.array([NOW - timedelta(hours=hour) for hour in hours], UTC_MICROS),
            "made": pa.nulls(rows, UTC_MICROS),
            "c0": pa.array([2**53 + number for number in range(rows)]),
        }
    )
    project = make(make_project, [view], "file", row_group=90_000)
    best: dict[str, tuple[int, int]] = {}
    for row, (key, hour) in enumerate(zip(keys, hours, strict=True)):
        best[key] = max(best.get(key, (-hour, row)), (-hour, row))
    ties = sum(1 for count in pd.Series(list(zip(keys, hours, strict=True))).value_counts() if count > 1)
    (report,) = materialize(project).views
    assert report.rows == len(best)
    assert report.notes == (
        f"{ties:,} ties in v0: rows of one `user_id` with the same `at`; the last one in the file counts",
    )
    sample = draw.sample(sorted(best), 2_000)
    expected = {key: {"v0:c0": 2**53 + best[key][1]} for key in sample}
    with SegmentClient(project) as client:
        assert {key: client.features(key) for key in sample[:300]} == {key: expected[key] for key in sample[:300]}
    assert in_batch(project, ["v0:c0"], sample) == expected
    with without_duckdb(monkeypatch):
        assert in_batch(project, ["v0:c0"], sample) == expected
    everyone = BatchProject.open(project)
    assert BatchRules(everyone.repo, everyone.program).sizes(to_micros(NOW)).members == {"v0_c0": len(best)}
