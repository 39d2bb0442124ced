"""The store of versions: damage, promotion, two processes, and what earlier releases wrote."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from rules_engine.errors import DataError, ProjectError, UnknownNameError
from rules_engine.folders import Project
from rules_engine.ml.clusters.fitting import fit
from rules_engine.ml.clusters.model import CLUSTERS, ClusterModel
from rules_engine.ml.propensity.model import MODELS
from rules_engine.ml.versions.store import VersionStore, fitted_names, open_fitted
from tests.cluster_data import NOW, definition, four_groups

#: Written by the release before this layout: clusters in `models/`, models in `propensity/`.
EARLIER = Path(__file__).parent / "earlier_layout"


@pytest.fixture(scope="module")
def model() -> ClusterModel:
    return fit(definition(), four_groups(60), NOW)


@pytest.fixture
def store(tmp_path: Path, model: ClusterModel) -> VersionStore[ClusterModel]:
    """Three versions, the second of them promoted."""
    found = VersionStore(Project(tmp_path), CLUSTERS, "user_clusters")
    for number in range(3):
        found.add(replace(model, as_of=NOW + number), NOW)
    found.promote("v2", NOW)
    return found


# --- damage ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", [b"", b"null", b"[]", b'{"format": 2', b"\xff\xfe", b'{"format": 2, "checksum": "x"}'])
def test_a_damaged_version_hurts_only_itself(store: VersionStore[ClusterModel], text: bytes) -> None:
    store.file("v3").write_bytes(text)
    entries = store.entries()
    assert [entry.version for entry in entries if entry.error is None] == ["v1", "v2"]
    assert str(store.file("v3")) in str(entries[2].error)
    assert (store.current().version, store.load("v1").version) == ("v2", "v1")
    newest = store.newest()
    assert newest is not None
    assert newest.version == "v2"
    with pytest.raises(DataError) as raised:
        store.promote("v3", NOW)
    assert "`segments cluster promote VERSION` takes one; or remove" in str(raised.value.hint)
    assert store.promoted() == "v2"
    stored, is_new = store.add(replace(newest, as_of=NOW + 9), NOW)
    assert (stored.version, is_new) == ("v4", True)


def test_a_damaged_promoted_version_is_named_and_another_one_can_be_promoted(store: VersionStore[ClusterModel]) -> None:
    text = store.file("v2").read_bytes()
    store.file("v2").write_bytes(text[: len(text) // 2])
    with pytest.raises(DataError, match=r"v2\.json is damaged"):
        store.current()
    assert store.promote("v1", NOW) == "v2"
    assert store.current().version == "v1"
    with pytest.raises(DataError, match=r"v2\.json is damaged"):
        store.rollback(NOW)
    assert store.promoted() == "v1"


def test_a_damaged_history_says_what_to_do(store: VersionStore[ClusterModel]) -> None:
    (store.path / "history.json").write_bytes(b'[{"action": "promote"}]')
    with pytest.raises(DataError, match="cannot be read, and it says which version is promoted") as raised:
        store.current()
    assert raised.value.hint == "remove it, and promote a version anew"
    assert store.load("v1").version == "v1"


def test_a_deleted_version_is_passed_over_and_its_number_is_not_given_again(store: VersionStore[ClusterModel]) -> None:
    store.promote("v3", NOW + 1)
    store.mark_attached("v3", NOW + 2)
    store.file("v3").unlink()
    assert (store.promoted(), store.attached()) == ("v2", None)
    newest = store.newest()
    assert newest is not None
    assert store.add(replace(newest, as_of=NOW + 9), NOW)[0].version == "v4"


# --- promotion ------------------------------------------------------------------------------------------------------


def test_promotions_are_undone_one_by_one_and_every_step_is_kept(store: VersionStore[ClusterModel]) -> None:
    store.promote("v3", NOW + 1)
    store.mark_attached("v3", NOW + 2)
    store.mark_attached("v3", NOW + 3)
    store.promote("v1", NOW + 4)
    assert [store.rollback(NOW + 5), store.rollback(NOW + 6)] == [("v1", "v3"), ("v3", "v2")]
    with pytest.raises(UnknownNameError, match="only v2 was ever promoted"):
        store.rollback(NOW + 7)
    assert [(step.action, step.version, step.at - NOW) for step in store.history()] == [
        ("promote", "v2", 0),
        ("promote", "v3", 1),
        ("attach", "v3", 2),
        ("promote", "v1", 4),
        ("rollback", "v3", 5),
        ("rollback", "v2", 6),
    ]


_ADD = """
import sys
from dataclasses import replace
from pathlib import Path
from rules_engine.folders import Project
from rules_engine.ml.clusters.model import CLUSTERS
from rules_engine.ml.versions.store import VersionStore

store = VersionStore(Project(Path(sys.argv[1])), CLUSTERS, "user_clusters")
model = store.load("v1")
for number in range(10):
    version = store.add(replace(model, as_of=int(sys.argv[2]) + number), 1)[0].version
    store.promote(version, number)
"""


def test_two_processes_lose_no_version_and_no_promotion(store: VersionStore[ClusterModel]) -> None:
    command = [sys.executable, "-c", _ADD, str(store.project.root)]
    running = [subprocess.Popen([*command, str(start)], env=os.environ.copy()) for start in (1000, 2000)]
    assert [process.wait(120) for process in running] == [0, 0]
    assert store.versions() == tuple(f"v{number}" for number in range(1, 24))
    assert {step.version for step in store.history()} == {"v2", *(f"v{number}" for number in range(4, 24))}
    assert len({entry.model.as_of for entry in store.entries() if entry.model}) == 23


# --- what earlier releases wrote ------------------------------------------------------------------------------------


@pytest.fixture
def earlier(tmp_path: Path) -> Project:
    shutil.copytree(EARLIER, tmp_path / ".segments")
    return Project(tmp_path)


def test_the_earlier_layout_is_taken_over_whole(earlier: Project) -> None:
    before = {path.name: path.read_bytes() for path in EARLIER.glob("models/*/v*.json")}
    assert fitted_names(earlier, MODELS) == ["propensity"]
    assert fitted_names(earlier, CLUSTERS) == ["user_clusters"]
    clusters = open_fitted(earlier, CLUSTERS, None)
    assert (clusters.promoted(), clusters.attached(), clusters.versions()) == ("v1", "v2", ("v1", "v2"))
    assert {version: clusters.load(version).definition.description for version in clusters.versions()} == {
        "v1": "",
        "v2": "second",
    }
    assert {path.name: path.read_bytes() for path in clusters.path.glob("v*.json")} == before
    models = open_fitted(earlier, MODELS, None)
    assert (models.promoted(), models.versions()) == ("v1", ("v1", "v2"))
    assert [step.action for step in models.history()] == ["promote", "promote", "rollback"]
    assert models.load("v2").scorer.version == "v2"
    assert models.promote("v2", NOW) == "v1"
    assert clusters.rollback(NOW) == ("v1", "v2")
    left = sorted(path.relative_to(earlier.state_dir).as_posix() for path in earlier.state_dir.rglob("*"))
    assert [path for path in left if path.startswith("propensity") or path.endswith(("promoted", "attached"))] == []


def test_an_interrupted_move_is_made_good(earlier: Project) -> None:
    shutil.copytree(earlier.state_dir / "models" / "user_clusters", earlier.state_dir / "models" / "others")
    shutil.move(earlier.state_dir / "models" / "others", earlier.state_dir / "clusters" / "others")
    assert fitted_names(earlier, CLUSTERS) == ["others", "user_clusters"]
    assert fitted_names(earlier, MODELS) == ["propensity"]


def test_two_folders_of_one_name_are_not_mixed(earlier: Project) -> None:
    shutil.copytree(earlier.state_dir / "propensity", earlier.state_dir / "models", dirs_exist_ok=True)
    with pytest.raises(ProjectError, match="was written by an earlier release and belongs at") as raised:
        fitted_names(earlier, MODELS)
    assert "move or remove one of the two folders" in str(raised.value.hint)
    assert len(list((earlier.state_dir / "propensity").rglob("v*.json"))) == 2


def test_a_file_of_another_format_is_refused_with_what_to_do(earlier: Project) -> None:
    path = next(earlier.state_dir.glob("propensity/*/v1.json"))
    content = json.loads(path.read_bytes())
    path.write_text(json.dumps({**content, "format": 99}))
    models = open_fitted(earlier, MODELS, None)
    with pytest.raises(DataError, match="has format 99, and this version reads format 1") as raised:
        models.current()
    assert f"remove {models.file('v1')} and run `segments model fit`" in str(raised.value.hint)
    assert models.load("v2").version == "v2"
