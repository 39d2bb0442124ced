"""feast-segments-client: the same package with few others beside it answers, takes events, and says what it lacks."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tomllib
import venv
import zipfile
from collections.abc import Iterator
from importlib.metadata import Distribution, distribution
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement

from rules_engine.folders import Project
from tests.docs_pages import ROOT
from tests.service.conftest import RunningService, end, start

CLIENT = ROOT / "packaging" / "client"
MEGABYTE = 1_000_000

#: Uses the SDK as an application does, and prints what it was told.
APPLICATION = """
from rules_engine import SegmentClient

with SegmentClient.from_repo({root!r}) as client:
    before = client.lookup("thin")
    for number in range(2):
        client.track("thin", "view", properties={{"page": "shoes"}})
    after = client.lookup("thin")
    print("keen" in before.segments, "keen" in after.segments, "adults" in client.lookup("ada").segments)
"""


def metadata(folder: Path) -> dict[str, Any]:
    project: dict[str, Any] = tomllib.loads((folder / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return project


def brought(requirements: list[str]) -> dict[str, Distribution]:
    """Return the distributions, by name, that an installer brings for requirements, as this environment has them."""
    named: dict[str, Distribution] = {}
    seen: set[tuple[str, str]] = set()
    waiting = [(Requirement(text), "") for text in requirements]
    while waiting:
        requirement, of_extra = waiting.pop()
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": of_extra}):
            continue
        named[requirement.name] = distribution(requirement.name)
        for extra in {"", *requirement.extras} - {extra for name, extra in seen if name == requirement.name}:
            seen.add((requirement.name, extra))
            waiting += [(Requirement(text), extra) for text in named[requirement.name].requires or ()]
    return named


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fresh environment with the client's wheel and what it needs, in the versions that are tested here."""
    folder = tmp_path_factory.mktemp("client")
    subprocess.run(
        [sys.executable, "-m", "build", "--no-isolation", "--wheel", "--outdir", str(folder), str(CLIENT)],
        check=True,
        capture_output=True,
    )
    environment = folder / "environment"
    venv.create(environment, symlinks=True)
    [site] = environment.glob("lib/python*/site-packages")
    [wheel] = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
    for known in brought(metadata(CLIENT)["dependencies"]).values():
        for file in known.files or ():
            if ".." not in file.parts:  # scripts are not needed
                (site / file).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(str(file.locate()), site / file)
    return environment


def python(installed: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [installed / "bin" / "python", "-I", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


@pytest.fixture
def service(installed: Path, shop_project: Project, tmp_path: Path) -> Iterator[RunningService]:
    interpreter = str(installed / "bin" / "python")
    running = start(shop_project.root, tmp_path / "stderr", ("--dev",), {"PYTHONPATH": ""}, interpreter=interpreter)
    yield running
    end(running)


def test_versions_are_those_of_the_whole() -> None:
    client, whole = metadata(CLIENT), metadata(ROOT)
    assert set(client["dependencies"]) <= set(whole["dependencies"])
    for key in ("version", "requires-python", "license", "scripts"):
        assert client[key] == whole[key]


def test_it_is_small(installed: Path) -> None:
    size = sum(file.stat().st_size for file in installed.rglob("*") if file.is_file() and not file.is_symlink())
    assert size < 60 * MEGABYTE


def test_an_application_asks_and_reports(installed: Path, shop_project: Project) -> None:
    done = python(installed, "-c", APPLICATION.format(root=str(shop_project.root)))
    assert (done.stdout, done.stderr) == ("False True True\n", "")


def test_the_service_answers_and_takes_events_and_traits(service: RunningService) -> None:
    assert service.evaluate("adults", "ada")["value"] is True
    batch = [
        {"type": "identify", "userId": "slim", "messageId": "1", "traits": {"age": 44}},
        *({"type": "track", "event": "view", "userId": "slim", "messageId": f"v{number}"} for number in (1, 2)),
    ]
    assert service.post("/v1/batch", json={"batch": batch}).status_code == 200
    assert service.evaluate("adults", "slim")["value"] is True
    assert service.evaluate("keen", "slim")["value"] is True


def test_what_needs_feast_is_refused(service: RunningService) -> None:
    asked = {"features": ["profile:age"], "entities": {"user_id": ["ada"]}}
    refused = service.post("/get-online-features", json=asked)
    assert (refused.status_code, refused.json()["code"]) == (501, "not-installed")
    assert "feast-segments-client does not bring" in refused.text
    console = service.get("/console")
    assert console.status_code == 501
    assert "feast-segments-client does not bring" in console.text


@pytest.mark.parametrize("command", ["validate", "plan", "evaluate", "run --once", "parity"])
def test_a_command_that_needs_more_says_what_to_install(installed: Path, shop_project: Project, command: str) -> None:
    done = python(installed, "-m", "rules_engine", *command.split(), "--repo", str(shop_project.root))
    assert (done.returncode, done.stdout) == (1, "")
    assert f"error: `segments {command.split(maxsplit=1)[0]}` needs " in done.stderr
    assert "hint: where this is to run, uninstall feast-segments-client and install feast-segments" in done.stderr


def test_it_tells_its_version(installed: Path) -> None:
    assert python(installed, "-m", "rules_engine", "--version").stdout == f"segments {metadata(CLIENT)['version']}\n"
