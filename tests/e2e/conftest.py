"""The demo, run once for all tests that look at what it left behind."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from rules_engine.batch.parity import compare
from rules_engine.folders import Project

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
    """Compare everyone as `segments parity --all` does: what a test wrote has left no disagreement."""
    found = compare(Project.open(root), None)
    assert found.users, "or there is nothing that could disagree"
    assert found.segments
    assert (found.disagreements, found.refused) == ((), {})


@pytest.fixture
def parity() -> Callable[[Path], None]:
    """For tests that write: the check that the online store and batch agree on everyone in the end."""
    return check_parity


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
