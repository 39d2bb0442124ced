"""The files for containers: their commands are commands of ours, what they copy is there, and nothing runs as root."""

from __future__ import annotations

import re
import subprocess
import sys
from typing import Any

import pytest
import yaml

from tests.docs_pages import ROOT

DOCKERFILE = (ROOT / "Dockerfile").read_text(encoding="utf-8")
SERVICES: dict[str, Any] = yaml.safe_load((ROOT / "compose.yaml").read_text(encoding="utf-8"))["services"]
OURS = {name: service for name, service in SERVICES.items() if "build" in service}


@pytest.mark.parametrize("name", sorted(OURS))
def test_a_command_is_one_of_ours(name: str) -> None:
    command = [sys.executable, "-m", "rules_engine", *OURS[name]["command"], "--help"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr


def test_what_only_answers_has_the_small_image() -> None:
    targets = {name: service["build"]["target"] for name, service in OURS.items() if service["build"] != "."}
    assert targets == {"service": "client"}
    for target in targets.values():
        assert re.search(rf"^FROM base AS {target}$", DOCKERFILE, re.MULTILINE)


def test_the_service_stops_only_after_it_has_drained() -> None:
    grace = int(SERVICES["service"]["stop_grace_period"].removesuffix("s"))
    assert grace >= 5 + 30 + 5  # draining, ending what is under way, and some seconds besides


def test_services_depend_on_services_that_exist() -> None:
    named = {other for service in SERVICES.values() for other in service.get("depends_on", {})}
    assert named - SERVICES.keys() == set()


def test_the_image_copies_what_is_there_and_does_not_run_as_root() -> None:
    copied = [
        path for line in re.findall(r"^COPY (?!--from)(.+) \S+$", DOCKERFILE, re.MULTILINE) for path in line.split()
    ]
    ignored = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    assert copied
    for path in copied:
        assert (ROOT / path).exists(), path
        assert f"!{path}" in ignored
    assert re.search(r"^USER [1-9]\d*$", DOCKERFILE, re.MULTILINE)
    assert "no-new-privileges:true" in SERVICES["service"]["security_opt"]
