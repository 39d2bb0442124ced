"""Training sets out of Feast, and scores into it: point in time both ways, in real stores."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from rules_engine.clock import DAY, from_micros, parse_instant
from rules_engine.errors import DataError, ProjectError
from rules_engine.events.log import EventLog
from rules_engine.features.feast_repo import FeastRepo
from rules_engine.lifecycle.apply import apply
from rules_engine.ml.models.attach import attach
from rules_engine.ml.models.drift import model_drift
from rules_engine.ml.models.fit import Material, fit
from rules_engine.ml.models.model import PropensityModel
from rules_engine.ml.models.project import ModelProject
from rules_engine.ml.models.retrain import due
from rules_engine.ml.models.versions import Versions
from rules_engine.ml.offline import features_as_of
from rules_engine.project import Project
from rules_engine.rules.inputs import Event
from tests.model_data import CUTS, plain

TIME = pa.timestamp("us", tz="UTC")
USERS = [f"u{number:04d}" for number in range(300)]
SPRING = [parse_instant(cut) for cut in CUTS]
NOW = parse_instant("2026-06-15T00:00:00Z")

VIEWS = """\
from datetime import timedelta
from pathlib import Path

from feast import Entity, FeatureView, Field, FileSource, ValueType
from feast.data_format import ParquetFormat
from feast.types import Bool, Float64, Int64, String, UnixTimestamp

DATA = Path(__file__).parent / "data"
user = Entity(name="user", join_keys=["user_id"], value_type=ValueType.STRING)


def view(name, ttl, schema, file=None):
    return FeatureView(
        name=name, entities=[user], ttl=timedelta(days=ttl), schema=schema,
        source=FileSource(
            name=name, path=str(DATA / (file or f"{name}.parquet")), timestamp_field="event_timestamp",
            file_format=ParquetFormat(),
        ),
    )


habits = view("habits", 45, [
    Field(name="recency", dtype=Int64), Field(name="orders", dtype=Int64), Field(name="basket", dtype=Float64),
    Field(name="city", dtype=String), Field(name="member", dtype=Bool), Field(name="joined", dtype=UnixTimestamp),
])
orders = view("orders", 0, [Field(name="amount", dtype=Float64)])
propensity = view("propensity", 0, [
    Field(name="score", dtype=Float64), Field(name="percentile", dtype=Float64),
    Field(name="model_version", dtype=String),
], "{file}")
"""
EVENTS = """\
events:
  purchase:
    properties: {amount: {type: number}}
    retention: 400d
"""


def habits(seed: int = 0) -> pd.DataFrame:
    """Everyone's habits at the first of each month, January to June."""
    random = np.random.default_rng(seed)
    parts = []
    for month in range(1, 7):
        at = pd.Timestamp(f"2026-0{month}-01", tz="UTC")
        size = len(USERS)
        parts.append(
            pd.DataFrame(
                {
                    "user_id": USERS,
                    "event_timestamp": at,
                    "recency": random.integers(0, 100, size),
                    "orders": 1 + np.arange(size) % 7,
                    "basket": np.where(np.arange(size) % 5 == 0, np.nan, random.gamma(2, 20, size)),
                    "city": np.where(np.arange(size) % 3 == 0, "oslo", "bergen"),
                    "member": np.arange(size) % 2 == 0,
                    "joined": at - pd.to_timedelta(np.arange(size), unit="D"),
                }
            )
        )
    return pd.concat(parts, ignore_index=True)


def orders(seed: int = 1) -> pd.DataFrame:
    """Who ordered often orders more: a few orders of each of them, at any time of the half year."""
    random = np.random.default_rng(seed)
    counts = random.poisson(0.4 + (np.arange(len(USERS)) % 7) * 0.5)
    users = np.repeat(USERS, counts)
    days = random.uniform(0, 165, len(users))
    at = pd.Timestamp("2026-01-01", tz="UTC") + pd.to_timedelta(days * 86_400 // 1, unit="s")
    return pd.DataFrame({"user_id": users, "event_timestamp": at, "amount": random.gamma(2, 20, len(users))})


HABITS = pa.schema(
    [
        ("user_id", pa.string()),
        ("event_timestamp", TIME),
        ("recency", pa.int64()),
        ("orders", pa.int64()),
        ("basket", pa.float64()),
        ("city", pa.string()),
        ("member", pa.bool_()),
        ("joined", TIME),
    ]
)
ORDERS = pa.schema([("user_id", pa.string()), ("event_timestamp", TIME), ("amount", pa.float64())])
SCORES = pa.schema(
    [
        ("user_id", pa.string()),
        ("event_timestamp", TIME),
        ("score", pa.float64()),
        ("percentile", pa.float64()),
        ("model_version", pa.string()),
    ]
)


def write(project: Project, name: str, frame: pd.DataFrame, schema: pa.Schema) -> None:
    table = pa.Table.from_pandas(frame, schema=schema, preserve_index=False)
    pq.write_table(table, project.feature_repo / "data" / name)


@pytest.fixture
def make_shop(make_project: Callable[..., Project]) -> Callable[..., Project]:
    def make(file: str = "propensity.parquet", segments: Mapping[str, str] | None = None, **changes: Any) -> Project:
        project = make_project(
            {
                "feature_repo/views.py": VIEWS.replace("{file}", file),
                "feature_repo/models.yaml": yaml.safe_dump(plain(**changes), sort_keys=False),
                "feature_repo/events.yaml": EVENTS,
                "segments/project.yaml": "project: shop\nnow: 2026-06-15T00:00:00Z\n",
                **(segments or {}),
            }
        )
        (project.feature_repo / "data").mkdir()
        write(project, "habits.parquet", habits(), HABITS)
        write(project, "orders.parquet", orders(), ORDERS)
        pq.write_table(SCORES.empty_table(), project.feature_repo / "data" / file)
        return project

    return make


def opened(project: Project) -> ModelProject:
    repo = FeastRepo(project)
    apply(project, {}, repo=repo, now=NOW)
    return ModelProject.open(project)


def fitted(shop: ModelProject, version: str = "v1") -> PropensityModel:
    model = fit(shop.definition, shop.material(), shop.now)
    return replace(model, version=version, scorer=replace(model.scorer, version=version))


def facts(material: Material) -> dict[tuple[str, int], tuple[Any, ...]]:
    """By user and cut, the row's features and whether the user did it."""
    found = {}
    for rows in (material.train, material.test):
        columns = [rows.values[name].tolist() for name in sorted(rows.values)]
        for user, cut, *values, did in zip(rows.users, rows.cuts.tolist(), *columns, rows.did.tolist(), strict=True):
            found[user, cut] = (tuple("missing" if value != value else value for value in values), did)
    return found


# --- training sets --------------------------------------------------------------------------------------------------


def test_features_are_what_feasts_own_join_gives_and_labels_what_came_after(make_shop: Callable[..., Project]) -> None:
    shop = opened(make_shop())
    material = shop.material()
    assert [sorted(set(rows.cuts.tolist())) for rows in (material.train, material.test)] == [SPRING[:3], SPRING[3:]]
    bought = orders()
    for rows in (material.train, material.test):
        for cut in sorted(set(rows.cuts.tolist())):
            mine = rows.take(rows.cuts == cut)
            expected = features_as_of(shop.repo, shop.definition.keys, cut)
            assert mine.users.tolist() == expected.index.tolist() == USERS
            for name in ("habits:recency", "habits:orders", "habits:basket"):
                assert np.array_equal(mine.values[name], expected[name].to_numpy(float), equal_nan=True)
            assert mine.values["habits:city"].tolist() == expected["habits:city"].tolist()
            ages = (pd.Timestamp(from_micros(cut)) - expected["habits:joined"]).dt.total_seconds() / 86_400
            assert np.allclose(mine.values["habits:joined"], ages, rtol=0, atol=1e-9)
            start, end = (pd.Timestamp(from_micros(at)) for at in (cut, cut + 30 * DAY))
            after = bought[(bought["event_timestamp"] > start) & (bought["event_timestamp"] <= end)]
            assert set(mine.users[mine.did]) == set(after["user_id"])
            assert 0.2 < mine.did.mean() < 0.9


def test_what_a_user_does_later_changes_no_row_before(make_shop: Callable[..., Project]) -> None:
    project = make_shop()
    before = facts(opened(project).material())
    cut = SPRING[1]
    # Everyone orders and changes their habits after the second cut's horizon, and some rows move.
    frontier = pd.Timestamp(from_micros(cut + 30 * DAY))
    late = pd.DataFrame({"user_id": USERS, "event_timestamp": frontier + pd.Timedelta(seconds=1), "amount": 1.0})
    early = orders()
    moved = early["event_timestamp"] > frontier
    early.loc[moved, "event_timestamp"] += pd.Timedelta(days=3)
    write(project, "orders.parquet", pd.concat([early, late]), ORDERS)
    changed = habits()
    changed.loc[changed["event_timestamp"] > frontier, "recency"] += 1000
    write(project, "habits.parquet", changed, HABITS)
    after = facts(opened(project).material())
    assert before.keys() == after.keys()
    same = {key: before[key] == after[key] for key in before}
    assert all(same[user, at] for user in USERS for at in SPRING[:2])
    # It is not for lack of effect: the features and labels of what came later did change.
    assert not any(same[user, SPRING[3]] for user in USERS)


def test_features_of_a_cut_do_not_see_its_horizon(make_shop: Callable[..., Project]) -> None:
    project = make_shop()
    before = facts(opened(project).material())
    cut = SPRING[2]
    write(project, "orders.parquet", pd.concat([orders(), _order(USERS, cut + 1)]), ORDERS)
    changed = pd.concat([habits(), habits(5).iloc[:300].assign(event_timestamp=from_micros(cut + 1), recency=999)])
    write(project, "habits.parquet", changed, HABITS)
    after = facts(opened(project).material())
    rows = [(user, cut) for user in USERS]
    assert [before[row][0] for row in rows] == [after[row][0] for row in rows]
    assert all(after[row][1] for row in rows)
    assert not all(before[row][1] for row in rows)


def _order(users: list[str], at: int) -> pd.DataFrame:
    return pd.DataFrame({"user_id": users, "event_timestamp": from_micros(at), "amount": 1.0})


def test_the_horizon_begins_after_the_cut_and_ends_with_its_last_instant(make_shop: Callable[..., Project]) -> None:
    project = make_shop()
    cut, horizon = SPRING[0], 30 * DAY
    instants = {"u0000": cut, "u0001": cut + 1, "u0002": cut + horizon, "u0003": cut + horizon + 1}
    kept = orders()[lambda frame: ~frame["user_id"].isin(list(instants))]
    write(project, "orders.parquet", pd.concat([kept, *(_order([u], at) for u, at in instants.items())]), ORDERS)
    found = facts(opened(project).material())
    assert [found[user, cut][1] for user in instants] == [False, True, True, False]


def test_a_population_is_a_segment_as_of_each_cut(make_shop: Callable[..., Project]) -> None:
    near = "segment: near\nwhen: {feature: habits:recency, at_most: 50}\n"
    shop = opened(make_shop(segments={"segments/near.yaml": near}, population="near"))
    material = shop.material()
    recency = habits().set_index(["user_id", "event_timestamp"])["recency"]
    for user, cut in facts(material):
        assert recency[user, pd.Timestamp(from_micros(cut))] <= 50
    expected = sum(int((recency.xs(pd.Timestamp(from_micros(cut)), level=1) <= 50).sum()) for cut in SPRING)
    assert len(material.train) + len(material.test) == expected
    scored = attach(shop.repo, fitted(shop), shop.population(fitted(shop)), shop.now)
    assert scored.users == int((recency.xs(pd.Timestamp("2026-06-01", tz="UTC"), level=1) <= 50).sum())


def test_a_population_that_reads_the_score_itself_is_refused(make_shop: Callable[..., Project]) -> None:
    likely = "segment: likely\nwhen: {feature: propensity:score, at_least: 0.5}\n"
    project = make_shop(segments={"segments/likely.yaml": likely}, population="likely")
    with pytest.raises(DataError, match="the population of `propensity` is `likely`, which reads propensity:score"):
        opened(project)


def test_events_of_the_log_are_a_target_too(make_shop: Callable[..., Project]) -> None:
    target = {"did": "purchase", "where": {"amount": {"at_least": 50}}, "within": "30d"}
    project = make_shop(target=target)
    cut = SPRING[0]
    log = EventLog(project.feature_repo / "data" / "events")
    bought = [
        ("u0000", cut, 60.0),
        ("u0001", cut + 1, 60.0),
        ("u0002", cut + 5 * DAY, 49.0),
        ("u0003", cut + 30 * DAY, 50.0),
        ("u0004", cut + 30 * DAY + 1, 90.0),
    ]
    events = [(user, Event("purchase", at, f"e{user}", {"amount": amount})) for user, at, amount in bought]
    log.append(events, stored_at=NOW)
    found = facts(opened(project).material())
    assert [user for user in USERS if found[user, cut][1]] == ["u0001", "u0003"]
    assert [user for user in USERS if found[user, SPRING[1]][1]] == []


def test_of_too_many_rows_some_users_are_taken_with_all_their_rows(make_shop: Callable[..., Project]) -> None:
    shop = opened(make_shop(max_rows=1000))
    shop = replace(shop, definition=replace(shop.definition, max_rows=400))
    train = shop.material().train
    assert 100 < len(train) <= 400
    assert train.share in (0.5, 0.25)
    assert all((train.users == user).sum() == 3 for user in set(train.users))
    assert shop.material().train.digest() == train.digest()


# --- scores ---------------------------------------------------------------------------------------------------------


def _online(shop: ModelProject, users: list[str]) -> list[tuple[Any, ...]]:
    names = ["score", "percentile", "model_version"]
    rows = [{"user_id": user} for user in users]
    found = shop.repo.store.get_online_features([f"propensity:{name}" for name in names], rows).to_dict()
    return list(zip(*(found[name] for name in names), strict=True))


def test_scores_reach_both_stores_with_their_version_and_are_a_history(make_shop: Callable[..., Project]) -> None:
    project = make_shop()
    shop = opened(project)
    model = fitted(shop)
    june, july = parse_instant("2026-06-02T00:00:00Z"), shop.now
    done = attach(shop.repo, model, shop.population(model), june)
    assert (done.users, done.left_out, done.online, sum(done.parts)) == (300, 0, True, 300)
    attach(shop.repo, replace(model, version="v2"), shop.population(model), july)
    rows = pq.read_table(project.feature_repo / "data" / "propensity.parquet").to_pandas()
    assert len(rows) == 600
    keys = ["propensity:score", "propensity:model_version"]
    then, now = (features_as_of(shop.repo, keys, at) for at in (july - 1, july))
    assert set(then["propensity:model_version"]) == {"v1"}
    assert set(now["propensity:model_version"]) == {"v2"}
    assert not then["propensity:score"].equals(now["propensity:score"])  # `joined` is a time: everyone is older
    online = _online(shop, USERS)
    assert [row[0] for row in online] == now["propensity:score"].tolist()
    assert {row[2] for row in online} == {"v2"}
    assert all(0 <= row[1] <= 1 for row in online)


def test_a_run_for_the_same_instant_replaces_the_one_before(make_shop: Callable[..., Project]) -> None:
    project = make_shop()
    shop = opened(project)
    model = fitted(shop)
    for version in ("v1", "v2"):
        attach(shop.repo, replace(model, version=version), shop.population(model), shop.now)
    rows = pq.read_table(project.feature_repo / "data" / "propensity.parquet")
    assert rows.num_rows == 300
    assert rows.schema.equals(SCORES)
    assert set(rows["model_version"].to_pylist()) == {"v2"} == {row[2] for row in _online(shop, USERS[:9])}


def test_an_earlier_run_fills_in_history_and_leaves_the_online_store(make_shop: Callable[..., Project]) -> None:
    shop = opened(make_shop())
    model = fitted(shop)
    attach(shop.repo, replace(model, version="v2"), shop.population(model), shop.now)
    earlier = shop.now - 10 * DAY
    assert not attach(shop.repo, model, shop.population(model), earlier).online
    assert {row[2] for row in _online(shop, USERS[:9])} == {"v2"}
    then = features_as_of(shop.repo, ["propensity:model_version"], earlier)
    assert set(then["propensity:model_version"]) == {"v1"}
    with pytest.raises(DataError, match=r"v1 learned from what users did until 2026-03-31T00:00:00Z, and scores as of"):
        attach(shop.repo, model, shop.population(model), model.train.until - 1)


def test_a_source_that_can_only_be_added_to_gets_strictly_newer_rows(make_shop: Callable[..., Project]) -> None:
    """What is not named as a Parquet file is written by Feast itself, as a table in a warehouse is."""
    project = make_shop("scores.pq")
    shop = opened(project)
    model = fitted(shop)
    for version in ("v1", "v2"):
        attach(shop.repo, replace(model, version=version), shop.population(model), shop.now)
    rows = pq.read_table(project.feature_repo / "data" / "scores.pq").to_pandas()
    instants = sorted({instant.value // 1000 for instant in rows["event_timestamp"]})
    assert (len(rows), instants) == (600, [shop.now, shop.now + 1])
    assert {row[2] for row in _online(shop, USERS[:9])} == {"v2"}


def test_a_view_that_cannot_hold_scores_is_refused(make_shop: Callable[..., Project]) -> None:
    shop = opened(make_shop())
    model = fitted(shop)
    for name, said in (
        ("nothing", "there is no feature view `nothing`"),
        ("orders", "holds other features than scores"),
    ):
        other = replace(model, definition=replace(model.definition, name=name))
        with pytest.raises(ProjectError, match=said):
            attach(shop.repo, other, shop.population(model), shop.now)
    gone = replace(model.definition, features=(replace(model.definition.features[0], feature="habits:gone"),))
    with pytest.raises(DataError, match=r"needs `?habits:gone`?, which is gone"):
        shop.population(replace(model, definition=gone))


# --- drift and retraining -------------------------------------------------------------------------------------------


def test_drift_is_of_scores_and_of_what_became_of_them(make_shop: Callable[..., Project]) -> None:
    project = make_shop(features=["habits:recency", {"feature": "habits:orders", "scale": "log"}])
    shop = opened(project)
    versions = Versions(project, "propensity")
    assert due(shop, versions, older=30 * DAY, drifted=True) == (True, "")
    model, _ = versions.save(fit(shop.definition, shop.material(), shop.now), 0)
    versions.promote("v1", 0)
    calm = model_drift(shop, model)
    assert calm.users == 300
    assert calm.psi < 0.1
    assert calm.performance is None
    assert due(shop, versions, older=30 * DAY, drifted=True) == (False, "v1 is only 0s old and v1 has not drifted")
    later = replace(shop, now=shop.now + 30 * DAY)
    assert due(later, versions, older=30 * DAY, drifted=False) == (True, "v1 is 30d old")

    attach(shop.repo, model, shop.population(model), SPRING[3])
    found = model_drift(shop, model).performance
    assert found is not None
    assert (found.version, found.at) == ("v1", SPRING[3])
    assert found.metrics.roc_auc == pytest.approx(model.judgement.overall.roc_auc)
    assert found.metrics.brier == pytest.approx(model.judgement.overall.brier)

    moved = habits()
    june = moved["event_timestamp"] == pd.Timestamp("2026-06-01", tz="UTC")
    moved.loc[june, "orders"] *= 40
    write(project, "habits.parquet", moved, HABITS)
    wild = model_drift(shop, model)
    assert wild.psi > 0.2
    assert wild.ks > 0.2
    wanted, why = due(shop, versions, older=None, drifted=True)
    assert wanted
    assert "v1 has drifted: the population stability index of its scores is" in why
