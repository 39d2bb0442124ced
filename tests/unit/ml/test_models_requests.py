"""Scores within a request: the same as in batch, by the promoted version, with nothing heavy loaded."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pyarrow.parquet as pq
import pytest

from rules_engine.clock import DAY
from rules_engine.deploy.definitions import apply_project
from rules_engine.deploy.materialize import materialize
from rules_engine.errors import ProjectError
from rules_engine.folders import Project
from rules_engine.ml.propensity.attach import attach
from rules_engine.ml.propensity.fit import fit
from rules_engine.ml.propensity.model import MODELS
from rules_engine.ml.propensity.plan_data import publish
from rules_engine.ml.propensity.project import ModelProject
from rules_engine.ml.versions.store import VersionStore
from rules_engine.read_plan import ReadPlan
from rules_engine.redis.embedded import EmbeddedStore
from rules_engine.sdk import AsyncSegmentClient, SegmentClient
from tests.conftest import FEATURE_STORE_YAML
from tests.model_shop import HABITS, NOW, USERS, habits, shop_maker, write

LIKELY = """\
segment: likely
when: {feature: propensity:score, at_least: 0.25}
---
segment: recent
when: {feature: habits:recency, at_most: 50}
"""
NAMES = ["propensity:score", "propensity:percentile", "propensity:model_version"]
BOOSTING = {"gradient_boosting": {"max_iter": 20, "max_leaf_nodes": 5, "min_samples_leaf": 20}}
AT = datetime(2026, 6, 15, tzinfo=UTC)


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ModelProject]:
    """A shop whose boosted trees score within requests; fitted, promoted, and scored in batch as well.

    It is made once: what a test changes it changes back, or it is u0000's.
    """
    root = tmp_path_factory.mktemp("shop")

    def make_project(files: Mapping[str, str]) -> Project:
        contents = {"feature_repo/feature_store.yaml": FEATURE_STORE_YAML.format(name="shop"), **files}
        for path, text in contents.items():
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            (root / path).write_text(text, encoding="utf-8")
        return Project.open(root)

    try:
        yield _made(shop_maker(make_project))
    finally:
        EmbeddedStore(root).stop()


def _made(make: Callable[..., Project]) -> ModelProject:
    project = make(segments={"segments/likely.yaml": LIKELY}, at_request=True, algorithms=BOOSTING)
    apply_project(project)
    materialize(project)
    found = ModelProject.open(project)
    versions = VersionStore(project, MODELS, "propensity")
    model, _ = versions.add(fit(found.definition, found.material(), found.now), NOW)
    versions.promote("v1", NOW)
    assert publish(project)
    attach(found.repo, model, found.population(model), found.now)
    return found


def _batch(shop: ModelProject) -> dict[str, dict[str, Any]]:
    rows = pq.read_table(shop.repo.project.feature_repo / "data" / "propensity.parquet").to_pylist()
    return {row["user_id"]: row for row in rows}


def test_a_request_gives_what_batch_gives_and_a_segment_reads_it(shop: ModelProject) -> None:
    expected = _batch(shop)
    with SegmentClient.from_repo(shop.repo.project.root) as client:
        for user in USERS[:60]:
            found = client.features(user, NAMES)
            assert abs(found["propensity:score"] - expected[user]["score"]) <= 1e-12
            assert abs(found["propensity:percentile"] - expected[user]["percentile"]) <= 1e-12
            assert found["propensity:model_version"] == "v1"
        members = {found.entity for found in client.lookup_many(USERS, segments=["likely"]) if found.segments}
        assert members == {user for user, row in expected.items() if row["score"] >= 0.25}
        assert 0 < len(members) < len(USERS)
        everything = client.features(USERS[0])
        assert everything["propensity:score"] == expected[USERS[0]]["score"]
        assert everything["habits:city"] == "oslo"
        assert "propensity:score" in str(client.explain(USERS[0], "likely"))
        assert client.features("nobody", NAMES) == dict.fromkeys(NAMES)
        assert client.lookup("nobody").segments == frozenset()


def test_a_request_sees_features_at_once_and_the_rows_in_the_store_do_not_matter(shop: ModelProject) -> None:
    project = shop.repo.project
    with SegmentClient.from_repo(project.root) as client:
        before = client.features("u0000", NAMES)["propensity:score"]
        changed = habits()
        changed.loc[changed["user_id"] == "u0000", ["orders", "recency"]] = [60, 1]
        write(project, "habits.parquet", changed, HABITS)
        materialize(project, views=["habits"], full=True)
        after = client.features("u0000", NAMES)["propensity:score"]
        assert after > before == _batch(shop)["u0000"]["score"]
        # A month and a half later the habits are past their ttl, and nothing is left to score by.
        late = datetime.fromtimestamp((NOW + 60 * DAY) / 1e6, UTC)
        assert client.features("u0000", NAMES, at=late) == dict.fromkeys(NAMES)
        assert not client.is_member("u0000", "likely", at=late)


def test_the_promoted_version_answers_from_the_next_request_on(shop: ModelProject) -> None:
    project = shop.repo.project
    versions = VersionStore(project, MODELS, "propensity")
    other = replace(shop.definition, algorithms={"logistic_regression": {"C": (1.0,)}})
    versions.add(fit(other, shop.material(), shop.now), NOW)
    plan = ReadPlan.load(project.read_plan)
    with SegmentClient.from_repo(project.root) as client:
        assert client.features("u0001", NAMES)["propensity:model_version"] == "v1"
    versions.promote("v2", NOW)
    assert publish(project)
    assert not publish(project)
    assert ReadPlan.load(project.read_plan).definitions_version != plan.definitions_version
    with SegmentClient.from_repo(project.root) as client:
        assert client.features("u0001", NAMES)["propensity:model_version"] == "v2"
    versions.rollback(NOW)
    publish(project)
    apply_project(project)  # keeps it
    assert ReadPlan.load(project.read_plan).definitions == plan.definitions


def test_the_asynchronous_client_gives_the_same(shop: ModelProject) -> None:
    async def ask() -> tuple[dict[str, Any], frozenset[str]]:
        async with AsyncSegmentClient.from_repo(shop.repo.project.root) as client:
            return await client.features("u0003", NAMES), (await client.lookup("u0003")).segments

    with SegmentClient.from_repo(shop.repo.project.root) as client:
        assert asyncio.run(ask()) == (client.features("u0003", NAMES), client.lookup("u0003").segments)


def test_a_score_needs_no_heavy_library(shop: ModelProject) -> None:
    program = (
        "import json, sys\n"
        "from rules_engine import SegmentClient\n"
        "with SegmentClient.from_repo(sys.argv[1]) as client:\n"
        "    score = client.features('u0004', ['propensity:score'])['propensity:score']\n"
        "heavy = {'feast', 'numpy', 'pandas', 'pyarrow', 'scipy', 'sklearn'} & set(sys.modules)\n"
        "print(json.dumps([score, sorted(heavy)]))\n"
    )
    command = [sys.executable, "-c", program, str(shop.repo.project.root)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == [_batch(shop)["u0004"]["score"], []]


def test_a_feature_that_goes_away_under_a_model_is_said_when_applying(shop: ModelProject) -> None:
    views = shop.repo.project.feature_repo / "views.py"
    whole = views.read_text()
    views.write_text(whole.replace('Field(name="basket", dtype=Float64),', ""))
    with pytest.raises(ProjectError, match=r"propensity v1 scores within requests and needs `?habits:basket"):
        apply_project(shop.repo.project)
    views.write_text(whole)
