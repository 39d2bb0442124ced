"""Algorithms and transforms of other packages: the documented examples, installed, and what is refused."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from rules_engine.folders import Project
from tests.cluster_data import project_files, write_features

ROOT = Path(__file__).parents[3]
_BLOCK = re.compile(r"```(toml|python)\n(.*?)```", re.DOTALL)

#: The examples of the page: two entry points, each with its module.
TOML_1, ALGORITHM, TOML_2, TRANSFORM = (
    match[2] for match in _BLOCK.finditer((ROOT / "docs" / "adding_an_algorithm.md").read_text(encoding="utf-8"))
)


def _install(folder: Path, toml: str, module: str, code: str) -> None:
    """Install a package the way an installer leaves it: a module, and a folder with its metadata."""
    folder.mkdir(exist_ok=True)
    (folder / f"{module}.py").write_text(code)
    info = folder / f"{module}-1.2.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {module.replace('_', '-')}\nVersion: 1.2\n")
    (info / "entry_points.txt").write_text(re.sub(r'project\.entry-points\."(.*?)"', r"\1", toml).replace('"', ""))


def _segments(site: Path, project: Project, command: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(site), str(ROOT)])}
    arguments = [sys.executable, "-m", "rules_engine", *command.split(), "--repo", str(project.root)]
    return subprocess.run(arguments, capture_output=True, text=True, env=environment, check=False)


@pytest.fixture
def shop(make_project: Callable[..., Project]) -> Project:
    frame = pd.DataFrame(
        {
            "v:balance": np.where(np.arange(200) % 2 == 0, -900.0, 400.0) + np.arange(200) / 10,
            "v:orders": np.where(np.arange(200) // 2 % 2 == 0, 5.0, 90.0) + np.arange(200) / 100,
        },
        index=[f"u{number:03d}" for number in range(200)],
    )
    clusters = (
        "clusters: user_clusters\nfeatures: [{feature: v:balance, scale: signed_root}, {feature: v:orders}]\n"
        "algorithm: bisecting_kmeans\nbisect_by: largest_cluster\nk: {from: 4, to: 4}\n"
    )
    project = make_project(project_files(frame, clusters))
    write_features(project, frame)
    return project


def test_the_documented_packages_are_used_by_name_and_missed_by_name(shop: Project, tmp_path: Path) -> None:
    site = tmp_path / "site"
    _install(site, TOML_1, "shop_clusters", ALGORITHM)
    _install(site, TOML_2, "shop_transforms", TRANSFORM)
    applied = _segments(site, shop, "apply")
    assert applied.returncode == 0, applied.stderr
    fitted = _segments(site, shop, "cluster fit --no-report --at 2026-03-01T00:00:00Z")
    assert fitted.returncode == 0, fitted.stderr
    assert "4 clusters, chosen by silhouette" in fitted.stdout
    attached = _segments(site, shop, "cluster attach --at 2026-03-01T00:00:00Z")
    assert attached.returncode == 0, attached.stderr
    assert attached.stdout.count("50  25.0%") == 4
    (shop.feature_repo / "clusters.yaml").write_text(
        (shop.feature_repo / "clusters.yaml").read_text().replace("largest_cluster", "longest")
    )
    wrong = _segments(site, shop, "validate")
    assert wrong.returncode == 1
    assert "`bisect_by` is one of" in wrong.stdout

    without = _segments(tmp_path, shop, "validate")
    assert without.returncode == 1
    assert "error[invalid-choice]: `algorithm` is one of" in without.stdout
    assert "error[invalid-choice]: `scale` is one of" in without.stdout
    listed = _segments(tmp_path, shop, "cluster list")
    assert listed.returncode == 0
    assert "damaged" in listed.stdout
    assert "needs the algorithm `bisecting_kmeans`, which no installed package brings" in listed.stderr


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"import numpy as np": "import nothing_like_it"}, "ModuleNotFoundError: No module named 'nothing_like_it'"),
        ({"(Algorithm)": "()"}, "is no subclass of Algorithm"),
        ({"def find(": "def look("}, "has no `find`"),
        ({'    """Groups that come of splitting one group after the other in two."""\n': ""}, "has no docstring"),
        ({"    assigner = Centers\n": ""}, "has no `assigner` with kind"),
        ({"    sample = 100_000\n": ""}, "has no `sample`"),
        ({'name = "bisecting_kmeans"': 'name = "kmeans"'}, "calls itself `kmeans`"),
        (
            {'"bisect_by": AlgorithmSetting(': '"seed": AlgorithmSetting('},
            "has a setting `seed`, which means something else already",
        ),
        ({'            "biggest_inertia",\n        )': '            "smallest",\n        )'}, "its own schema refuses"),
        ({'"enum": [': '"enom": 5, "type": ['}, "whose schema is none"),
    ],
)
def test_an_incomplete_algorithm_is_refused_with_its_package(
    shop: Project, tmp_path: Path, changes: dict[str, str], problem: str
) -> None:
    code = ALGORITHM
    for old, new in changes.items():
        assert old in code
        code = code.replace(old, new)
    _install(tmp_path / "site", TOML_1, "shop_clusters", code)
    refused = _segments(tmp_path / "site", shop, "validate")
    assert refused.returncode == 1
    assert "the cluster algorithm `bisecting_kmeans` of the package shop-clusters 1.2 cannot be used" in refused.stderr
    assert problem in refused.stderr
    assert "docs/adding_an_algorithm.md says what a cluster algorithm has to have" in refused.stderr


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ("def invert(", "def back(", "has no `invert`"),
        ("(Transform)", "()", "is no subclass of Transform"),
        ('name = "signed_root"', 'name = "root"', "has no name `signed_root`"),
        (TRANSFORM[TRANSFORM.index('    """The') : TRANSFORM.index("    name =")], "", "has no docstring"),
    ],
)
def test_an_incomplete_transform_is_refused_with_its_package(
    shop: Project, tmp_path: Path, old: str, new: str, problem: str
) -> None:
    assert old in TRANSFORM
    _install(tmp_path / "site", TOML_2, "shop_transforms", TRANSFORM.replace(old, new))
    refused = _segments(tmp_path / "site", shop, "validate")
    assert refused.returncode == 1
    assert "the transform `signed_root` of the package shop-transforms 1.2 cannot be used" in refused.stderr
    assert problem in refused.stderr


def test_a_name_that_is_taken_is_refused(shop: Project, tmp_path: Path) -> None:
    _install(tmp_path / "site", TOML_1.replace("bisecting_kmeans =", "kmeans ="), "shop_clusters", ALGORITHM)
    refused = _segments(tmp_path / "site", shop, "validate")
    assert "there is a cluster algorithm `kmeans` already" in refused.stderr
