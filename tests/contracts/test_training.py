"""Training sets hold what was known at each row's instant: as brute force finds it, and as the SDK says it now."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rules_engine.batch.training import training_set
from rules_engine.clock import DAY, to_micros
from rules_engine.deploy.apply import apply
from rules_engine.deploy.definitions import apply_project
from rules_engine.deploy.materialize import materialize
from rules_engine.errors import DataError, UnknownNameError
from rules_engine.events.declarations.events_yaml import parse_events
from rules_engine.events.log import sorting
from rules_engine.folders import Project
from rules_engine.rules.events import aggregate_value
from rules_engine.rules.inputs import Event
from rules_engine.sdk import SegmentClient
from rules_engine.stream.event_sink import event_log
from tests.batch_shop import NOW, History, history, make_shop
from tests.event_shop import EVENTS

STORED = ["facts:amount", "facts:word", "fresh:score"]
WINDOWED = {
    "cart_dearest_3d": "{max: value, within: 3d}",
    "cart_mean": "{avg: value, within: ever}",
    "cart_first": "{first: sku, within: ever}",
    "cart_skus_2d": "{distinct: sku, within: 2d}",
    "cart_x_1d": "{count, within: 1d, where: {sku: x}}",
    "cart_today": "{count, within: {calendar: day, timezone: Europe/Oslo}}",
    "cart_last_days": "{sum: value, within: {calendar: day, last: 2}}",
    "cart_before": "{max: value, within: {between_ago: [1d, 3d]}}",
    "cart_long_ago": "{count, within: {between_ago: [2d, ever]}}",
    "cart_from": "{last: sku, within: {from: 2026-02-27T00:00:00Z}}",
}
ONLINE = "rules_engine.features.online_store.EmbeddedOnlineStore"


def with_features(text: str) -> str:
    """The shop's events with more features of carts."""
    lines = "".join(f"      {name}: {aggregate}\n" for name, aggregate in WINDOWED.items())
    return text.replace(
        "      cart_value: {sum: value, within: ever}\n", "      cart_value: {sum: value, within: ever}\n" + lines
    )


DECLARED = parse_events(with_features(EVENTS))
NAMES = [f"events:{name}" for name in DECLARED.features]


@pytest.fixture(scope="module")
def happened() -> History:
    return history(seed=8)


@pytest.fixture
def shop(make_project: Callable[..., Project], happened: History) -> Project:
    project = make_shop(make_project, happened, online=ONLINE)
    project.events_yaml.write_text(with_features(EVENTS))
    views = project.feature_repo / "views.py"  # Feast's DuckDB store knows no ttl of a day and some hours
    views.write_text(views.read_text().replace("timedelta(hours=30)", "timedelta(days=2)"))
    return project


def asked(happened: History) -> pd.DataFrame:
    """Users at instants, some at several, in no order; one who did nothing, and one instant before everything."""
    draw = random.Random(4)
    users = [*sorted(happened.events), *sorted({str(row["user_id"]) for row in happened.rows["facts"]}), "nobody"]
    instants = [*happened.instants(seed=2, number=12), NOW, pd.Timestamp("2020-01-01T00:00:00Z").to_pydatetime()]
    rows = [{"user_id": draw.choice(users), "when": at, "label": draw.random()} for at in instants * 6]
    frame = pd.DataFrame(rows, index=[f"row {number}" for number in range(len(rows))])
    return frame.sample(frac=1, random_state=1)


def plain(value: Any) -> Any:
    return None if value is pd.NA or value is None or (isinstance(value, float) and pd.isna(value)) else value


def expected(happened: History, user: str, at: int) -> dict[str, Any]:
    inputs = happened.inputs(user, at)
    gone = {"fresh"} if at > inputs.updated_at.get("fresh", at) + 2 * DAY else set()
    stored = {name: None if name.partition(":")[0] in gone else inputs.features.get(name) for name in STORED}
    events = {f"events:{name}": aggregate_value(found, inputs.events, at) for name, found in DECLARED.features.items()}
    return stored | events


@pytest.mark.parametrize("piece", [7, 262_144])
def test_every_row_has_what_was_known_then(
    shop: Project, happened: History, piece: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sorting, "PIECE", piece)
    apply(shop, {})
    rows = asked(happened)
    found = training_set(shop, rows, [*STORED, *NAMES], instants="when")
    assert list(found.columns) == ["user_id", "when", "label", *STORED, *NAMES]
    pd.testing.assert_frame_equal(found[["user_id", "when", "label"]], rows)
    seen: dict[str, set[Any]] = {name: set() for name in [*STORED, *NAMES]}
    for row in found.to_dict("records"):
        want = expected(happened, row["user_id"], to_micros(row["when"].to_pydatetime()))
        assert {name: plain(row[name]) for name in want} == want, row
        for name, value in want.items():
            seen[name].add(value)
    assert all(len(values) > 1 for values in seen.values()), "or the comparison says little"


def test_at_this_instant_it_is_what_the_sdk_says(shop: Project, happened: History) -> None:
    apply_project(shop)
    materialize(shop)
    users = sorted({*happened.events, *(str(row["user_id"]) for row in happened.rows["fresh"])})
    rows = pd.DataFrame({"user_id": users, "event_timestamp": pd.Timestamp(NOW)})
    found = training_set(shop, rows, [*STORED, *NAMES]).set_index("user_id")
    with SegmentClient(shop) as client:
        for user in users:
            said = client.features(user, [*STORED, *NAMES])
            assert {name: plain(found.loc[user, name]) for name in said} == said, user


def test_what_happens_later_changes_nothing(shop: Project, happened: History) -> None:
    apply(shop, {})
    rows = asked(happened)
    rows = rows[rows["when"] < NOW]
    before = training_set(shop, rows, NAMES, instants="when")
    later = [
        (user, Event("cart", to_micros(NOW), f"later-{user}", {"sku": "x", "value": 1e6})) for user in set(rows.user_id)
    ]
    event_log(shop).append(later, stored_at=to_micros(NOW))
    pd.testing.assert_frame_equal(training_set(shop, rows, NAMES, instants="when"), before)
    rows.loc[:, "when"] = pd.Timestamp(NOW)
    changed = training_set(shop, rows, ["events:cart_value"], instants="when")
    assert (changed["events:cart_value"] >= 1e6).all()


def test_numbers_keep_their_kind(shop: Project) -> None:
    apply(shop, {})
    nobody = pd.DataFrame({"user_id": ["nobody"], "event_timestamp": [pd.Timestamp(NOW)]})
    found = training_set(shop, nobody, [*STORED, *NAMES])
    kinds = {name: str(found[name].dtype) for name in ("facts:amount", "events:views_1h", "events:cart_mean")}
    assert kinds == {"facts:amount": "Int64", "events:views_1h": "int64", "events:cart_mean": "float64"}
    assert training_set(shop, nobody.iloc[:0], [*STORED, *NAMES]).empty


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ({"user_id": ["a"]}, "no column `event_timestamp`"),
        ({"event_timestamp": [pd.Timestamp(NOW)]}, "no column `user_id`"),
        ({"user_id": ["a"], "event_timestamp": [pd.Timestamp("2026-01-01")]}, "instants have a time zone"),
        ({"user_id": [None], "event_timestamp": [pd.Timestamp(NOW)]}, "is missing in some row"),
        ({"user_id": [5.5], "event_timestamp": [pd.Timestamp(NOW)]}, "5.5 is no whole number"),
        ({"user_id": [5, "a"], "event_timestamp": [pd.Timestamp(NOW)] * 2}, "values of several types"),
    ],
)
def test_rows_that_cannot_be_joined_are_refused(shop: Project, rows: dict[str, Any], said: str) -> None:
    with pytest.raises(DataError, match=said):
        training_set(shop, pd.DataFrame(rows), STORED)


def test_a_feature_that_is_none_is_refused_with_the_nearest(shop: Project) -> None:
    rows = pd.DataFrame({"user_id": ["a"], "event_timestamp": [pd.Timestamp(NOW)]})
    with pytest.raises(UnknownNameError, match="no feature `events:cart_valu`") as caught:
        training_set(shop.root, rows, ["events:cart_valu"])
    assert "events:cart_value" in str(caught.value.hint)


@pytest.mark.parametrize("offline", ["file", "duckdb"])
def test_keys_of_numbers_ties_and_whole_numbers_beyond_floats(
    make_project: Callable[..., Project], happened: History, offline: str
) -> None:
    """By either spelling of a key; the last of two rows of one instant; no digit lost beside a missing value."""
    project = make_shop(make_project, happened, online=ONLINE)
    store = project.feature_store_yaml
    store.write_text(store.read_text().replace("type: duckdb", f"type: {offline}"))
    rows = {
        "user_id": [7, 7, 8, None],
        "at": pa.array([NOW, NOW, NOW, NOW], pa.timestamp("us", "UTC")),
        "amount": pa.array([1, 2**53 + 1, None, 3], pa.int64()),
        "word": ["first", "last", None, "nobody's"],
    }
    pq.write_table(pa.table(rows), project.feature_repo / "data" / "facts.parquet")
    apply_project(project)
    for keys in ([7, 8, 9], ["7", "8", "9"], [7.0, 8.0, 9.0]):
        asked = pd.DataFrame({"user_id": keys, "event_timestamp": pd.Timestamp(NOW)})
        found = training_set(project, asked, STORED)
        assert found["user_id"].tolist() == keys
        assert [plain(value) for value in found["facts:amount"]] == [2**53 + 1, None, None]
        assert [plain(value) for value in found["facts:word"]] == ["last", None, None]
        before = training_set(project, asked.assign(event_timestamp=pd.Timestamp("2020-01-01T00:00:00Z")), STORED)
        assert before[STORED].isna().all(axis=None), "all rows are before the views' first rows"
