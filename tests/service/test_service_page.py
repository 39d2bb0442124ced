"""Runs the commands of docs/service.md, in the project that the page names."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from rules_engine.folders import Project
from rules_engine.redis.embedded import EmbeddedStore
from tests.docs_pages import ROOT
from tests.service.conftest import MakeService

PAGE = (ROOT / "docs/service.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```console\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
COMMANDS = [tuple(line.split("\n", 1)) for block in BLOCKS for line in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]]


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    """The project that `segments init shop` makes, applied and materialized by commands."""
    folder = tmp_path_factory.mktemp("page")
    try:
        for command in (["init", "shop"], ["apply", "--repo", "shop"], ["materialize", "--repo", "shop"]):
            subprocess.run(
                [sys.executable, "-m", "rules_engine", *command], cwd=folder, check=True, capture_output=True
            )
        yield Project.open(folder / "shop")
    finally:
        EmbeddedStore(folder / "shop").stop()


@pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")
def test_every_command_prints_what_the_page_says(make_service: MakeService, sample: Project) -> None:
    service = make_service(sample, "--dev", env={})
    assert len(COMMANDS) >= 5
    for command, expected in COMMANDS:
        shell = ["sh", "-c", command.replace("localhost:8080", service.url.removeprefix("http://"))]
        done = subprocess.run(shell, capture_output=True, text=True, timeout=60, check=True)
        assert _any_version(done.stdout) == _any_version(expected.rstrip("\n")), command


def _any_version(text: str) -> str:
    """The text with the same version of definitions, whatever it is."""
    return re.sub(r'(?<="definitions_version":")[0-9a-f]{12}', "e1520c58619e", text)


def test_paths_of_the_page_are_those_of_the_service(make_service: MakeService, sample: Project) -> None:
    paths = make_service(sample, "--dev", env={}).get("/openapi.json").json()["paths"]
    named = {path.replace("{segment}", "{name}") for path in re.findall(r"`(?:GET|POST) (/[^`]+)`", PAGE)}
    assert named - paths.keys() == set()


def test_the_files_that_a_container_needs(make_service: MakeService, sample: Project, tmp_path: Path) -> None:
    """The read plan alone will do; here on an embedded store, which then holds nothing, so it says so."""
    copied = Project(tmp_path / "plan_only")
    copied.state_dir.mkdir(parents=True)
    shutil.copyfile(sample.read_plan, copied.read_plan)
    try:
        answer = make_service(copied, "--dev", env={}).get("/v1/users/c015/segments")
        assert (answer.status_code, answer.json()["code"]) == (503, "store")
    finally:
        EmbeddedStore(copied.root).stop()
