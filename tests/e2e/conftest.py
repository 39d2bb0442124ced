"""The demo, run once for all tests that look at what it left behind."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from rules_engine.batch.parity import compare
from rules_engine.folders import Project
from rules_engine.read_plan import ReadPlan
from rules_engine.redis.embedded import EmbeddedStore

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Demo:
    """The project that the demo ran in, and what it printed."""

    root: Path
    output: str

    def shell(self, command: str) -> subprocess.CompletedProcess[str]:
        """Run a command line in the project, as someone who pastes it."""
        environment = {**os.environ, "HOME": str(self.root)}
        shell = ["sh", "-c", command]
        return subprocess.run(shell, cwd=self.root, env=environment, capture_output=True, text=True, timeout=600)

    def segments(self, arguments: str) -> subprocess.CompletedProcess[str]:
        """Run a command of ours."""
        return self.shell(f".venv/bin/segments {arguments}")

    def run(self, arguments: str) -> str:
        """The output of a command of ours, which must succeed and say nothing on stderr."""
        done = self.segments(arguments)
        assert (done.returncode, done.stderr) == (0, ""), arguments
        return done.stdout


def check_parity(root: Path) -> None:
    """Compare everyone as `segments parity --all` does: what tests wrote has left no disagreement.

    It runs in this process, which has loaded Feast. Nothing can disagree in a project that has no segments, or that was
    neither materialized nor has events.
    """
    project = Project(root)
    is_filled = any((project.state_dir / name).exists() for name in ("materialized.json", "events"))
    if not is_filled or not ReadPlan.load(project.read_plan).definitions.get("segments"):
        return
    compared = compare(project, None)
    assert (compared.disagreements, compared.refused) == ((), {})


@contextmanager
def agreeing(root: Path, request: pytest.FixtureRequest | None = None) -> Iterator[None]:
    """Have a project in a folder. In the end online store and batch agree on everyone, and its server is stopped.

    A test of which the request is given may say by a mark that they do not.
    """
    try:
        yield
        if request is None or request.node.get_closest_marker("disagreeing") is None:
            check_parity(root)
    finally:
        EmbeddedStore(root).stop()


@pytest.fixture
def make_project(
    make_project: Callable[..., Project], request: pytest.FixtureRequest
) -> Iterator[Callable[..., Project]]:
    """Make a project as everywhere. After the test online store and batch agree on everyone, or a mark says why not."""
    made: list[Project] = []

    def make(*arguments: object, **named: object) -> Project:
        made.append(make_project(*arguments, **named))
        return made[-1]

    yield make
    if request.node.get_closest_marker("disagreeing") is None:
        for project in made:
            check_parity(project.root)


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Demo]:
    """A copy of the project as a clone has it, after `segments demo`."""
    root = tmp_path_factory.mktemp("clone")
    for folder in ("feature_repo", "segments"):
        shutil.copytree(ROOT / folder, root / folder, ignore=shutil.ignore_patterns("data", "__pycache__"))
    (root / ".venv").symlink_to(Path(sys.executable).parents[1])
    done = Demo(root, "").segments("demo")
    try:
        if done.returncode or done.stderr:
            pytest.fail(done.stdout + done.stderr)
        yield Demo(root, done.stdout)
    finally:
        Demo(root, "").segments("store stop")
