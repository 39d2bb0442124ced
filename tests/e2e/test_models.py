"""The demo's model: learned from CDNOW's 1997, judged on its 1998; what docs/models.md shows, and no leak."""

from __future__ import annotations

import doctest
import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from rules_engine.cli import main
from rules_engine.clock import parse_instant
from rules_engine.deploy.definitions import apply_project
from rules_engine.deploy.materialize import materialize
from rules_engine.folders import Project
from rules_engine.ml.propensity.fit import Material
from rules_engine.ml.propensity.model import MODELS
from rules_engine.ml.propensity.project import ModelProject
from rules_engine.ml.versions.store import VersionStore
from rules_engine.sdk import SegmentClient
from tests.e2e.conftest import ROOT, Demo, agreeing

pytestmark = pytest.mark.slow

PAGE = (ROOT / "docs" / "models.md").read_text(encoding="utf-8")
LAST = parse_instant("1997-10-01T00:00:00Z")


@pytest.fixture(scope="module")
def shop(demo: Demo, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    """The demo's project and data in a folder of its own, applied and materialized. Its scores are none yet."""
    root = tmp_path_factory.mktemp("cdnow")
    for folder in ("feature_repo", "segments"):
        shutil.copytree(demo.root / folder, root / folder)
    project = Project.open(root)
    with agreeing(root):
        apply_project(project)
        materialize(project, views=["purchase_history", "rfm"])
        yield project


def run(project: Project, command: str, code: int = 0) -> str:
    done = CliRunner().invoke(main.app, [*command.split(), "--repo", str(project.root)], prog_name="segments")
    assert done.exit_code == code, done.output
    return done.stdout


def shown(command: str) -> str:
    """What the page shows for a command; `...` stands for any text."""
    found = re.search(rf"^\$ segments {re.escape(command)}\n(.+?)^(?:```|\$ )", PAGE, re.MULTILINE | re.DOTALL)
    assert found, command
    return found[1]


def same(expected: str, printed: str) -> bool:
    options = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    return doctest.OutputChecker().check_output(expected, printed, options)


def test_the_page_shows_what_the_commands_print(shop: Project) -> None:
    for command in ("model fit", "model list", "model score", "model reasons 00003", "drift purchase_propensity"):
        printed = run(shop, command)
        assert same(shown(command), printed), f"{command}\n{printed}"


def test_1998_is_better_foreseen_than_by_recency_and_frequency(shop: Project) -> None:
    model = VersionStore(shop, MODELS, "purchase_propensity").current()
    judged = model.judgement
    assert model.train.until <= min(model.test.cuts) == parse_instant("1998-01-01T00:00:00Z")
    assert (judged.overall.roc_auc or 0) > 0.82
    for name, least in (("cells", 0.09), ("regression", 0.001)):
        precision = next(one for one in judged.better[name] if one.metric == "average_precision")
        brier = next(one for one in judged.better[name] if one.metric == "brier")
        assert precision.low > least
        assert brier.high < 0
    assert judged.lift[0].lift > 3.5
    for row in judged.calibration:
        assert row.mean == pytest.approx(row.rate, abs=0.05)


def test_scores_are_served_computed_anew_and_by_version(shop: Project) -> None:
    rows = pq.read_table(shop.feature_repo / "data" / "purchase_propensity.parquet").to_pandas().set_index("user_id")
    assert len(rows) == 23_570
    names = [f"purchase_propensity:{name}" for name in ("score", "percentile", "model_version")]
    with SegmentClient.from_repo(shop.root) as client:
        for user in ("00001", "00003", "00047", "23570"):
            found = client.features(user, names)
            assert abs(found[names[0]] - rows["score"][user]) <= 1e-12
            assert found[names[1:][0]] == rows["percentile"][user]
            assert found[names[2]] == "v1"


def test_what_a_scheduler_runs_says_what_it_does(shop: Project) -> None:
    assert "nothing was fitted, for v1 is only 0s old" in run(shop, "model fit --if-older 30d")
    told = json.loads(run(shop, "model fit --if-older 30d --format json"))
    assert told == {"model": "purchase_propensity", "fitted": False, "why": "v1 is only 0s old"}
    run(shop, "drift purchase_propensity --fail-if psi=0.25", code=1)
    run(shop, "model rollback", code=1)
    assert "v1 is promoted" in run(shop, "model promote v1")
    assert json.loads(run(shop, "model show --format json"))["definition"]["at_request"] is True
    assert "ROC AUC" in run(shop, "model compare v1 v1")


def test_later_purchases_change_no_training_row(shop: Project) -> None:
    """Everything after the last training horizon is moved, multiplied and added to; the training rows stay the same."""
    before = ModelProject.open(shop).material()
    until = pd.Timestamp(LAST, unit="us", tz="UTC") + pd.Timedelta(days=90)
    files = {name: shop.feature_repo / "data" / f"{name}.parquet" for name in ("purchase_history", "rfm")}
    whole = {name: pq.read_table(path) for name, path in files.items()}
    try:
        for name, table in whole.items():
            frame = table.to_pandas()
            late = frame["event_timestamp"] > until
            assert 0.1 < late.mean() < 0.7
            added = frame[~late].drop_duplicates("user_id").assign(event_timestamp=until + pd.Timedelta(seconds=1))
            frame.loc[late, "frequency"] *= 3
            frame.loc[late, "event_timestamp"] += pd.Timedelta(days=20)
            _write(files[name], pd.concat([frame, added]), table)
        after = ModelProject.open(shop).material()
    finally:
        for name, table in whole.items():
            pq.write_table(table, files[name])
    assert before.train.digest() == after.train.digest()
    assert len(before.train) == 141_420
    assert _labels(before) != _labels(after)  # the test, which is of 1998, does change


def _write(path: Path, frame: pd.DataFrame, like: object) -> None:
    import pyarrow as pa

    schema = like.schema  # type: ignore[attr-defined]
    pq.write_table(pa.Table.from_pandas(frame, schema=schema, preserve_index=False), path)


def _labels(material: Material) -> list[bool]:
    return list(np.asarray(material.test.did))
