"""The demo, run as a user runs it, in a copy of the project; and what it claims, against pandas and the raw file.

The expected memberships are computed here from CDNOW_master.txt alone, with none of the project's features or rules.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from rules_engine.sdk import SegmentClient
from tests.e2e.conftest import Demo

pytestmark = pytest.mark.slow

NOW = pd.Timestamp("1998-07-01")
SATURDAY, TUESDAY = datetime(1998, 7, 4, 16, tzinfo=UTC), datetime(1998, 7, 7, 16, tzinfo=UTC)
TOP_LABEL = "spending now, active"


# --- the independent computation ------------------------------------------------------------------------------------


class Customers:
    """What the raw file says about every customer as of the first of July 1998. A purchase is a day with one."""

    def __init__(self) -> None:
        spec = find_spec("lifetimes")
        assert spec is not None
        assert spec.submodule_search_locations
        path = Path(spec.submodule_search_locations[0]) / "datasets" / "CDNOW_master.txt"
        lines = pd.read_csv(path, sep=r"\s+", dtype={"customer_id": str})
        lines["cents"] = (lines["dollar_value"] * 100).round().astype(int)
        lines["day"] = pd.to_datetime(lines["date"].astype(str))
        days = lines.groupby(["customer_id", "day"])["cents"].sum().reset_index()
        self._days = days.assign(at=days["day"] + pd.Timedelta("23:59:59"))
        by_customer = self._days.groupby("customer_id")
        self.frequency = by_customer.size()
        self.cents = by_customer["cents"].sum()
        self.first = by_customer["at"].min()
        self.last = by_customer["at"].max()
        self.last_cents = by_customer["cents"].last()
        gaps = by_customer["day"].diff().dt.days
        self.gap = gaps.groupby(self._days["customer_id"]).apply(
            lambda gap: gap.iloc[1:].median() if len(gap) > 1 else np.nan
        )

    def within(self, days: int, now: pd.Timestamp = NOW) -> pd.Series:
        return self.last > now - pd.Timedelta(days=days)

    @cached_property
    def rfm(self) -> pd.DataFrame:
        """What the clusters are made of, at the same instant."""
        recent = self._days[self._days["at"] > NOW - pd.Timedelta(days=90)].groupby("customer_id")["cents"]
        columns = {
            "rfm:recency_days": (NOW - self.last).dt.days,
            "rfm:frequency": self.frequency,
            "rfm:monetary_value": self.cents / 100,
            "rfm:mean_basket": self.cents / self.frequency / 100,
            "rfm:purchases_90d": recent.size().reindex(self.last.index, fill_value=0),
            "rfm:spend_90d": recent.sum().reindex(self.last.index, fill_value=0) / 100,
        }
        return pd.DataFrame(columns)

    def segments(self, labels: pd.Series) -> dict[str, set[str]]:
        """The members of every segment that needs no request."""
        often, spent, away = (
            self.frequency,
            self.cents / 100,
            {days: ~self.within(days) for days in (90, 120, 180, 240)},
        )
        champions = (often >= 8) & (spent >= 300) & self.within(60)
        lapsed = (often >= 6) & (spent >= 200) & away[180]
        at_risk = ((often >= 4) | (spent >= 150)) & away[90] & self.within(180)
        overdue = (
            ((self.gap <= 14) & ~self.within(45))
            | ((self.gap > 14) & (self.gap <= 45) & away[120])
            | ((self.gap > 45) & (self.gap <= 90) & away[240])
        )
        overdue &= (often >= 4) & self.within(365)
        promising = often.between(2, 4) & self.within(60) & ((self.gap <= 60) | (self.last_cents >= 3000))
        cheap = self.cents < 1500 * often
        found = {
            "champions": champions,
            "lapsed_champions": lapsed,
            "at_risk": at_risk,
            "one_time_buyers": often == 1,
            "promising": promising,
            "big_basket": (self.cents >= 7500 * often) & (often > 1),
            "overdue_regulars": overdue,
            "holiday_newcomers": self.first < pd.Timestamp("1997-01-08"),
            "free_sample_only": self.cents == 0,
            "winback": (lapsed | at_risk | overdue) & ~cheap & ~self.within(30) & (self.cents > 0),
            "next_champions": (labels == TOP_LABEL) & (often >= 3) & ~champions,
            "weekend_mobile_regulars": often < 0,
        }
        return {name: set(members.index[members]) for name, members in found.items()}

    def weekend_regulars(self) -> set[str]:
        """Who would be in `weekend_mobile_regulars` with a phone in hand on that Saturday."""
        found = (self.frequency >= 4) & self.within(180, pd.Timestamp(SATURDAY).tz_localize(None))
        return set(found.index[found])


@pytest.fixture(scope="module")
def customers() -> Customers:
    return Customers()


def _labels(root: Path) -> pd.Series:
    """Every customer's newest label in the offline store."""
    rows = pd.read_parquet(root / "feature_repo" / "data" / "user_clusters.parquet").sort_values("event_timestamp")
    labels: pd.Series = rows.drop_duplicates("user_id", keep="last").set_index("user_id")["label"].sort_index()
    return labels


@pytest.fixture(scope="module")
def expected(demo: Demo, customers: Customers) -> Mapping[str, set[str]]:
    return customers.segments(_labels(demo.root))


# --- the answers ----------------------------------------------------------------------------------------------------


def test_every_customer_is_in_the_segments_that_pandas_says(
    demo: Demo, customers: Customers, expected: Mapping[str, set[str]]
) -> None:
    found: dict[str, set[str]] = {name: set() for name in expected}
    with SegmentClient.from_repo(demo.root) as client:
        assert set(client.program.names) == set(expected)
        for customer in customers.frequency.index:
            for segment in client.lookup(customer).segments:
                found[segment].add(customer)
    assert len(customers.frequency) == 23_570
    for name, members in expected.items():
        assert found[name] == members, name


def test_no_segment_is_empty_or_everyone(customers: Customers, expected: Mapping[str, set[str]]) -> None:
    """Otherwise the comparison would say little."""
    sizes = {name: len(members) for name, members in expected.items() if name != "weekend_mobile_regulars"}
    assert len(sizes) >= 8
    assert all(50 < size < 0.6 * len(customers.frequency) for size in sizes.values()), sizes


def test_a_request_brings_context_and_an_instant(demo: Demo, customers: Customers) -> None:
    everyone = list(customers.frequency.index)
    segment = "weekend_mobile_regulars"
    with SegmentClient.from_repo(demo.root) as client:
        mobile = client.lookup_many(everyone, context={"device": "mobile"}, segments=[segment], at=SATURDAY)
        desktop = client.lookup_many(everyone, context={"device": "desktop"}, segments=[segment], at=SATURDAY)
        weekday = client.lookup_many(everyone, context={"device": "mobile"}, segments=[segment], at=TUESDAY)
    assert {found.entity for found in mobile if found.segments} == customers.weekend_regulars()
    assert not any(found.segments for found in desktop + weekday)


def test_the_command_line_gives_the_same_answers(demo: Demo, expected: Mapping[str, set[str]]) -> None:
    sample = sorted({min(members) for members in expected.values() if members} | {"00001", "23570"})
    for customer in sample:
        found = json.loads(demo.run(f"lookup {customer} --format json"))
        assert set(found["segments"]) == {name for name, members in expected.items() if customer in members}
        assert found["at"] == "1998-07-01T00:00:00Z"


def test_someone_unknown_is_in_no_segment(demo: Demo) -> None:
    assert json.loads(demo.run("lookup nobody --format json"))["segments"] == []
    assert "the store knows nothing of nobody" in demo.run("lookup nobody")


# --- the clusters ---------------------------------------------------------------------------------------------------


def test_the_labels_are_those_of_the_nearest_centroid_of_the_stored_model(demo: Demo, customers: Customers) -> None:
    """From the model's numbers and the raw file; the package's own code has no part in it."""
    model = json.loads((demo.root / ".segments/clusters/user_clusters/v1.json").read_text())
    columns = []
    for scaler in model["preprocessing"]["scalers"]:
        values = customers.rfm[scaler["feature"]].to_numpy(dtype=float)
        values = np.log1p(values) if scaler["log"] else values
        columns.append((values - scaler["center"]) / scaler["spread"])
    points = np.column_stack(columns)
    assert points.mean(axis=0) == pytest.approx(0, abs=1e-9)
    assert points.std(axis=0) == pytest.approx(1)
    centroids = np.array(model["assigner"]["points"])[[cluster["position"] for cluster in model["clusters"]]]
    nearest = np.linalg.norm(points[:, None, :] - centroids[None, :, :], axis=2).argmin(axis=1)
    names = [model["clusters"][position]["label"] for position in nearest]
    labels = _labels(demo.root)
    assert labels.index.tolist() == customers.rfm.index.tolist()
    assert labels.tolist() == names
    sizes = [cluster["size"] for cluster in model["clusters"]]
    assert sizes == [names.count(cluster["label"]) for cluster in model["clusters"]]
    assert model["clusters"][0]["label"] == TOP_LABEL


def test_a_refit_shows_at_once_and_an_old_version_can_be_attached_again(
    demo: Demo, expected: Mapping[str, set[str]]
) -> None:
    definition = demo.root / "feature_repo" / "clusters.yaml"
    original = definition.read_text()
    one = "00001"
    before = _label_online(demo, one)
    changed = original.replace("k: {from: 4, to: 8}", "k: {from: 2, to: 2}").replace("high: active", "high: lively")
    changed += "names: [{cluster: 1, label: keen}]\n"  # it would keep its name, as most of its users stay
    definition.write_text(changed)
    try:
        refused = demo.segments("cluster fit")
        assert refused.returncode == 1
        assert re.search(r"error: [\d,]+ of 23,570 users \(\d\d\.\d%\) would move to another cluster", refused.stderr)
        model = json.loads(demo.segments("cluster fit --accept-drift --format json").stdout)
        assert (model["version"], model["new"], len(model["clusters"])) == ("v2", True, 2)
        attached = demo.segments("cluster attach")
        assert attached.returncode == 0
        assert "warning: segment `next_champions` looks for `spending now, active`" in attached.stderr
        assert _label_online(demo, one)["user_clusters:model_version"] == "v2"
        labels = _labels(demo.root)
        assert set(labels) == {cluster["label"] for cluster in model["clusters"]}
        with SegmentClient.from_repo(demo.root) as client:
            found = client.lookup_many(sorted(expected["next_champions"]))
        assert not any("next_champions" in membership for membership in found)
    finally:
        definition.write_text(original)
        back = json.loads(demo.run("cluster attach --version v1 --format json"))
    assert (back["model_version"], back["added"]) == ("v1", 23_570)
    assert _label_online(demo, one) == before


def _label_online(demo: Demo, customer: str) -> dict[str, Any]:
    columns = ("label", "cluster", "distance", "model_version", "confidence", "outlier")
    names = [f"user_clusters:{name}" for name in columns]
    with SegmentClient.from_repo(demo.root) as client:
        return client.features(customer, names)


# --- what is printed ------------------------------------------------------------------------------------------------


def _sizes(output: str) -> dict[str, int]:
    """The table of segment sizes."""
    table = output[output.index("segment  ") :].splitlines()[1:]
    rows = [re.fullmatch(r"(\w+) +([\d,]+) +[\d.]+%", line) for line in table]
    return {row[1]: int(row[2].replace(",", "")) for row in rows if row}


def test_the_demo_prints_what_each_step_did(demo: Demo, expected: Mapping[str, set[str]]) -> None:
    assert _sizes(demo.output) == {name: len(members) for name, members in expected.items()}
    for part in (
        "Read 69,659 purchase lines of 23,570 customers",
        "  rejected          0",
        "`now` is 1998-07-01T00:00:00Z in this project",
        "Materialized 47,140 rows",
        "4 clusters, chosen by silhouette",
        "labels for 23,570 users as of 1998-07-01",
        "ok: 40 cases in 13 test files",
        "is in next_champions at 1998-07-01T00:00:00Z",
        "What to try next",
        "To look at it in a browser: .venv/bin/segments serve --dev, then open http://127.0.0.1:8080/console",
    ):
        assert part in demo.output
    assert "Warning" not in demo.output
    assert "Traceback" not in demo.output


def test_what_the_demo_proposes_to_try_works_when_it_is_pasted(demo: Demo) -> None:
    proposals = demo.output[demo.output.index("What to try next") :].splitlines()[1:-3]
    assert len(proposals) >= 5
    for proposal in proposals:
        done = demo.shell(proposal)
        assert (done.returncode, done.stderr) == (0, ""), proposal


def test_the_demo_can_be_run_again_on_a_stopped_store(demo: Demo, expected: Mapping[str, set[str]]) -> None:
    demo.run("store stop")
    again = demo.run("demo")
    assert _sizes(again) == {name: len(members) for name, members in expected.items()}
    assert "Nothing changed: cdnow has 12 segments and 4 feature views" in again
    assert re.search(r"user_clusters v\d+ \(the same as before\)", again) or "user_clusters v3" in again


def test_a_project_that_is_not_the_demo_says_so(demo: Demo, tmp_path: Path) -> None:
    shutil.copytree(demo.root / "segments", tmp_path / "segments")
    (tmp_path / "feature_repo").mkdir()
    shutil.copy(demo.root / "feature_repo" / "feature_store.yaml", tmp_path / "feature_repo")
    done = demo.segments(f"demo --repo {tmp_path}")
    assert done.returncode == 1
    assert "is not the demo: it has no feature_repo/build.py" in done.stderr
    assert "hint: " in done.stderr
