"""Training sets out of Feast, and scores into it: point in time both ways, in real stores."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from rules_engine.clock import DAY, from_micros, parse_instant
from rules_engine.deploy.check import check_project
from rules_engine.errors import DataError, ProjectError
from rules_engine.events.log.event_log import EventLog
from rules_engine.folders import Project
from rules_engine.ml.offline import features_as_of
from rules_engine.ml.propensity.attach import attach
from rules_engine.ml.propensity.drift import model_drift
from rules_engine.ml.propensity.fit import Material, fit
from rules_engine.ml.propensity.model import MODELS
from rules_engine.ml.propensity.project import ModelProject
from rules_engine.ml.propensity.retrain import due
from rules_engine.ml.versions.store import VersionStore
from rules_engine.rules.inputs import Event
from tests.model_shop import (
    HABITS,
    NOW,
    ORDERS,
    SCORES,
    SPRING,
    USERS,
    fitted,
    habits,
    opened,
    orders,
    shop_maker,
    write,
)


@pytest.fixture
def make_shop(make_project: Callable[..., Project]) -> Callable[..., Project]:
    return shop_maker(make_project)


def facts(material: Material) -> dict[tuple[str, int], tuple[Any, ...]]:
    """By user and cut, the row's features and whether the user did it."""
    found = {}
    for rows in (material.train, material.test):
        columns = [rows.values[name].tolist() for name in sorted(rows.values)]
        for user, cut, *values, did in zip(rows.users, rows.cuts.tolist(), *columns, rows.did.tolist(), strict=True):
            found[user, cut] = (tuple("missing" if value != value else value for value in values), did)
    return found


def test_validate_shows_what_is_wrong_with_a_model(make_shop: Callable[..., Project]) -> None:
    project = make_shop()
    assert check_project(project).problems == ()
    path = project.feature_repo / "models.yaml"
    path.write_text(path.read_text().replace("habits:city", "habits:town"))
    found = check_project(project).problems
    assert {problem.code for problem in found} == {"unknown-feature"}
    assert str(found[0].span).startswith("feature_repo/models.yaml:")


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
    cut, horizon = SPRING[1], 30 * DAY
    instants = {"u0000": cut, "u0001": cut + 1, "u0002": cut + horizon, "u0003": cut + horizon + 1}
    kept = orders()[lambda frame: ~frame["user_id"].isin(list(instants))]
    write(project, "orders.parquet", pd.concat([kept, *(_order([u], at) for u, at in instants.items())]), ORDERS)
    found = facts(opened(project).material())
    assert [found[user, cut][1] for user in instants] == [False, True, True, False]


def test_what_is_past_its_ttl_at_a_cut_is_missing(make_shop: Callable[..., Project]) -> None:
    """The view's ttl is 45 days: a row exactly so old still counts, one a microsecond older does not."""
    project = make_shop(features=["habits:recency", "orders:amount"])
    rows = habits()
    ages = {"u0000": 45 * DAY, "u0001": 45 * DAY + 1, "u0002": 45 * DAY + 1}
    kept = rows[~rows["user_id"].isin(list(ages))]
    old = [
        rows[rows["user_id"] == user].iloc[:1].assign(event_timestamp=from_micros(SPRING[2] - age))
        for user, age in ages.items()
    ]
    write(project, "habits.parquet", pd.concat([kept, *old]), HABITS)
    bought = orders()
    bought = bought[~bought["user_id"].isin(list(ages))]
    write(project, "orders.parquet", pd.concat([bought, _order(["u0002"], SPRING[2] - 100 * DAY)]), ORDERS)
    train = opened(project).material().train
    train = train.take(train.cuts == SPRING[2])
    recency = dict(zip(train.users, train.values["habits:recency"].tolist(), strict=True))
    assert recency["u0000"] == recency["u0000"]  # it is there
    assert "u0001" not in recency  # nothing of this user is left
    assert recency["u0002"] != recency["u0002"]  # NaN: the order is there, the habits are gone


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
    """What is no plain Parquet file is written by Feast itself, as a table in a warehouse is."""
    project = make_shop("Warehouse")
    shop = opened(project)
    model = fitted(shop)
    for version in ("v1", "v2"):
        attach(shop.repo, replace(model, version=version), shop.population(model), shop.now)
    rows = pq.read_table(project.feature_repo / "data" / "propensity.parquet").to_pandas()
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
    versions = VersionStore(project, MODELS, "propensity")
    assert due(shop, versions, older=30 * DAY, drifted=True) == (True, "")
    model, _ = versions.add(fit(shop.definition, shop.material(), shop.now), 0)
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
    assert wild.psi > 0.25
    assert wild.ks > 0.2
    wanted, why = due(shop, versions, older=None, drifted=True)
    assert wanted
    assert "v1 has drifted: the population stability index of scores is" in why
