"""Everyone's features as of an instant are Feast's point-in-time join, whichever way they are read."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rules_engine.clock import to_micros
from rules_engine.errors import ProjectError, UnknownNameError, UnsupportedError
from rules_engine.features.feast.repo import FeastRepo
from rules_engine.features.offline import newest
from rules_engine.features.offline.point_in_time import OfflineUsers, Part, row_instant
from rules_engine.folders import Project

START = datetime(2026, 1, 1, tzinfo=UTC)
TTL = timedelta(days=3)
FEATURES = ("facts:amount", "facts:seen", "facts:word", "fresh:score")

STORE = """\
project: shop
provider: local
registry: ../.segments/registry.db
offline_store: {{type: {offline}}}
online_store: {{type: sqlite, path: ../.segments/online.db}}
entity_key_serialization_version: 3
"""

VIEWS = """\
from datetime import timedelta
from pathlib import Path
from feast import Entity, FeatureView, Field, FileSource, ValueType
from feast.types import Float64, Int64, String, UnixTimestamp

data = Path(__file__).resolve().parent / "data"
user = Entity(name="user", join_keys=["user_id"], value_type=ValueType.STRING)
facts = FeatureView(
    name="facts", entities=[user], ttl=timedelta(0),
    source=FileSource(
        path=str(data / "facts.parquet"), timestamp_field="at", created_timestamp_column="written",
        field_mapping={"spent": "amount"},
    ),
    schema=[
        Field(name="amount", dtype=Int64), Field(name="seen", dtype=UnixTimestamp), Field(name="word", dtype=String),
    ],
)
fresh = FeatureView(
    name="fresh", entities=[user], ttl=timedelta(days=3),
    source=FileSource(path=str(data / "fresh.parquet"), timestamp_field="at"),
    schema=[Field(name="score", dtype=Float64)],
)
"""


def histories(seed: int) -> tuple[pa.Table, pa.Table]:
    """Rows of users, some of them alone in one view, some with corrections of the same instant."""
    draw = random.Random(seed)
    facts, fresh = [], []
    for number in range(40):
        user = f"u{number:02d}"
        for _ in range(draw.randrange(4)):
            at = START + timedelta(hours=draw.randrange(240))
            for version in range(draw.choice([1, 1, 2])):
                seen = None if draw.random() < 0.2 else at - timedelta(seconds=draw.randrange(9999))
                amount = None if draw.random() < 0.2 else draw.randrange(2**60, 2**60 + 9)
                row = {"user_id": user, "at": at, "written": at + timedelta(minutes=version)}
                facts.append({**row, "spent": amount, "seen": seen, "word": draw.choice(["ä", None, "b'"])})
        instants = {START + timedelta(hours=draw.randrange(240)) for _ in range(draw.randrange(4))}
        fresh += [{"user_id": user, "at": at, "score": draw.choice([0.5, None, -1.0])} for at in sorted(instants)]
    draw.shuffle(facts)
    time = pa.timestamp("us", "UTC")
    columns = [("user_id", pa.string()), ("at", time), ("written", time), ("spent", pa.int64())]
    return (
        pa.Table.from_pylist(facts, pa.schema([*columns, ("seen", time), ("word", pa.string())])),
        pa.Table.from_pylist(fresh, pa.schema([columns[0], columns[1], ("score", pa.float64())])),
    )


@pytest.fixture(params=["duckdb", "file"])
def repo(request: pytest.FixtureRequest, make_project: Callable[..., Project]) -> FeastRepo:
    files = {
        "feature_repo/feature_store.yaml": STORE.format(offline=request.param),
        "feature_repo/views.py": VIEWS,
        "feature_repo/data/.keep": "",
    }
    project = make_project(files)
    facts, fresh = histories(seed=7)
    pq.write_table(facts, project.feature_repo / "data" / "facts.parquet")
    pq.write_table(fresh, project.feature_repo / "data" / "fresh.parquet")
    opened = FeastRepo(project)
    opened.apply()
    return opened


def instants() -> Iterator[datetime]:
    """At, just before and just after rows; exactly a ttl after rows, and a microsecond later."""
    draw, step = random.Random(1), timedelta(microseconds=1)
    for table in histories(seed=7):
        for at in draw.sample(table["at"].to_pylist(), 3):
            yield from (at, at - step, at + TTL, at + TTL + step)


def as_of(users: OfflineUsers, parts: Any, instant: datetime) -> dict[str, dict[str, Any]]:
    """By user the values that are not past their ttl."""
    found = {}
    for row in (row for part in parts for row in part.batch.to_pylist()):
        values = {}
        for name in FEATURES:
            view = name.partition(":")[0]
            at, ttl = row[row_instant(view)], users.ttl.get(view)
            valid = at is not None and (ttl is None or to_micros(instant) <= to_micros(at) + ttl)
            values[name] = row[name] if valid else None
        found[row[users.key]] = values
    return found


def feasts(repo: FeastRepo, users: list[str], instant: datetime) -> dict[str, dict[str, Any]]:
    who = pd.DataFrame({"user_id": users, "event_timestamp": pd.Timestamp(instant).as_unit("us")})
    table = repo.store.get_historical_features(who, list(FEATURES), full_feature_names=True).to_arrow()
    rows = table.to_pylist()
    return {row["user_id"]: {name: value(row[name.replace(":", "__")]) for name in FEATURES} for row in rows}


def corrected() -> set[str]:
    """The users with two rows of one instant, the later written of which counts."""
    rows = histories(seed=7)[0].to_pandas()
    return set(rows[rows.duplicated(["user_id", "at"], keep=False)]["user_id"])


def value(found: Any) -> Any:
    """Feast's file store answers from pandas, which has its own words for missing."""
    return None if pd.isna(found) else found


def plain(values: dict[str, dict[str, Any]], *, exact: bool) -> dict[str, dict[str, Any]]:
    """Times in whole seconds, as the online store has them; whole numbers as far as pandas keeps them."""

    def shown(found: Any) -> Any:
        if isinstance(found, datetime):
            return found.replace(microsecond=0)
        return float(found) if isinstance(found, int) and not exact else found

    return {user: {name: shown(found) for name, found in row.items()} for user, row in values.items()}


@pytest.mark.filterwarnings("ignore")  # Feast's and dask's deprecations
def test_every_way_of_reading_gives_what_feast_joins(repo: FeastRepo, monkeypatch: pytest.MonkeyPatch) -> None:
    users = OfflineUsers(repo, FEATURES)
    exact = repo.store.config.offline_store.type == "duckdb"
    for instant in instants():
        ours = as_of(users, users.batches(to_micros(instant)), instant)
        with monkeypatch.context() as patched:
            patched.setattr(newest, "has_duckdb", lambda: False)
            assert as_of(users, users.batches(to_micros(instant)), instant) == ours
        held = users._in_memory([None, None], to_micros(instant), None, None)
        pulled = as_of(users, (Part(batch, done) for batch, done in held), instant)
        assert ours, instant
        joined = plain(feasts(repo, sorted(ours), instant), exact=exact)
        assert pulled.keys() == ours.keys()
        alike = ours.keys() - (set() if exact else corrected())  # of two such rows Feast's file store takes any
        ours, pulled = plain(ours, exact=exact), plain(pulled, exact=exact)
        assert {user: pulled[user] for user in alike} == {user: ours[user] for user in alike}, instant
        if exact:
            assert joined.keys() == ours.keys()
        # Feast's file store leaves out everyone of whom one view has no row that is valid.
        alike &= joined.keys()
        assert {user: ours[user] for user in alike} == {user: joined[user] for user in alike}, instant


def test_everyone_is_who_has_a_row_by_then_however_old(repo: FeastRepo) -> None:
    tables = [table.to_pylist() for table in histories(seed=7)]
    users = OfflineUsers(repo, ["fresh:score"])
    for instant in (START - timedelta(days=1), START + timedelta(days=2), START + timedelta(days=900)):
        found = [key for part in users.batches(to_micros(instant)) for key in part.batch.column("user_id").to_pylist()]
        assert sorted(found) == sorted({row["user_id"] for rows in tables for row in rows if row["at"] <= instant})


def test_only_some_users_can_be_read(repo: FeastRepo) -> None:
    users = OfflineUsers(repo, FEATURES)
    late = to_micros(START + timedelta(days=11))
    (everyone,) = [part.batch.to_pylist() for part in users.batches(late)]
    asked = [everyone[3]["user_id"], everyone[0]["user_id"], "nobody"]
    (some,) = [part.batch.to_pylist() for part in users.batches(late, asked)]
    assert some == [everyone[0], everyone[3]]


def test_others_count_without_rows_and_are_told_by_their_places(repo: FeastRepo) -> None:
    users, late = OfflineUsers(repo, FEATURES), to_micros(START + timedelta(days=11))
    (everyone,) = [part.batch.to_pylist() for part in users.batches(late)]
    known = [row["user_id"] for row in everyone]
    others = pa.array(["zoe", known[5], "amy", known[2]], pa.large_string())
    through_feast = list(users._in_memory([None, None], late, None, others))
    for keys, want in ((None, {*known, "zoe", "amy"}), (["zoe", known[2], known[0]], {"zoe", known[2], known[0]})):
        (part,) = users.batches(late, keys, others)
        assert part.places is not None
        assert "@" not in part.batch.schema.names
        found = dict(zip(part.batch["user_id"].to_pylist(), part.places.tolist(), strict=True))
        places = {"zoe": 0, known[5]: 1, "amy": 2, known[2]: 3}
        assert found == {user: places.get(user, -1) for user in want}
        assert all(row in everyone for row in part.batch.to_pylist() if row["user_id"] in known)
    ((batch, _),) = through_feast
    assert dict(zip(batch["user_id"].to_pylist(), batch["@"].fill_null(-1).to_pylist(), strict=True)) == {
        user: places.get(user, -1) for user in {*known, "zoe", "amy"}
    }


def test_one_view_is_read_in_the_order_of_its_file(repo: FeastRepo, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same rows as by the join that several views take; in small batches, past row groups without newest rows."""
    repo.contents.feature_views[:] = [view for view in repo.contents.feature_views if view.name == "facts"]
    path, late = repo.project.feature_repo / "data" / "facts.parquet", to_micros(START + timedelta(days=11))
    facts = histories(seed=7)[0].sort_by("at")
    pq.write_table(facts, path, row_group_size=9)
    users = OfflineUsers(repo, FEATURES[:3])
    joined = [
        row for part in users.batches(late, sorted(set(facts["user_id"].to_pylist()))) for row in part.batch.to_pylist()
    ]
    monkeypatch.setattr("rules_engine.features.offline.point_in_time.BATCH_ROWS", 4)
    others = pa.array(["zoe", joined[3]["user_id"], "amy"], pa.large_string())
    for also, extra in ((None, set()), (others, {"zoe", "amy"})):
        parts = list(users.batches(late, others=also))
        rows = [row for part in parts for row in part.batch.to_pylist()]
        known = [row for row in rows if row["user_id"] not in extra]
        assert sorted(known, key=lambda row: row["user_id"]) == joined
        assert {row["user_id"] for row in rows} - {row["user_id"] for row in known} == extra
        assert all(set(row.values()) == {row["user_id"], None} for row in rows if row["user_id"] in extra)
        order = [row["@facts"] for row in known]
        assert order == sorted(order)
        assert [part.done for part in parts] == sorted(part.done for part in parts)
        assert max(part.batch.num_rows for part in parts) <= 4
    places = [place for part in parts if part.places is not None for place in part.places.tolist()]
    named = {row["user_id"]: place for row, place in zip(rows, places, strict=True)}
    assert {user: place for user, place in named.items() if place >= 0} == dict(
        zip(others.to_pylist(), range(3), strict=True)
    )


def test_texts_that_repeat_come_as_codes(repo: FeastRepo) -> None:
    repo.contents.feature_views[:] = [view for view in repo.contents.feature_views if view.name == "facts"]
    facts = pa.concat_tables([histories(seed=seed)[0] for seed in range(9)])
    names = pa.array([f"{number}" for number in range(facts.num_rows)])
    facts = facts.set_column(0, "user_id", names)
    pq.write_table(facts, repo.project.feature_repo / "data" / "facts.parquet")
    users = OfflineUsers(repo, FEATURES[:3])
    (part,) = users.batches(to_micros(START + timedelta(days=11)))
    assert pa.types.is_dictionary(part.batch["facts:word"].type)
    assert not pa.types.is_dictionary(part.batch["user_id"].type)
    assert part.batch["facts:word"].to_pylist() == facts["word"].to_pylist()


def test_what_cannot_be_read_says_so(repo: FeastRepo) -> None:
    with pytest.raises(UnknownNameError, match="no feature `facts:age`"):
        OfflineUsers(repo, ["facts:age"])
    users = OfflineUsers(repo, FEATURES)
    path = repo.project.feature_repo / "data" / "fresh.parquet"
    path.write_bytes(b"PAR1 is not all of it")
    with pytest.raises(ProjectError, match="the source of feature view `fresh` cannot be read"):
        list(users.batches(to_micros(START)))
    repo.contents.feature_views[0].aggregations = ["one"]
    with pytest.raises(UnsupportedError, match="is computed by Feast"):
        OfflineUsers(repo, FEATURES)
