"""Segment's own SDK for node, unmodified, against the service: the next evaluation knows what it reported."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.service import shop
from tests.service.conftest import RunningService

CLIENTS = Path(__file__).parents[1] / "clients"
NODE = shutil.which("node")

pytestmark = pytest.mark.skipif(
    NODE is None or not (CLIENTS / "node_modules/@segment/analytics-node").is_dir(),
    reason="needs node, and the packages of tests/clients: `npm ci --prefix tests/clients`",
)


def report(service: RunningService, *calls: dict[str, Any], key: str = shop.KEYS["track"]) -> int:
    """Make calls of the SDK, and wait until it has sent them; its exit code."""
    assert NODE is not None
    done = subprocess.run(
        [NODE, str(CLIENTS / "track.mjs"), service.url, key],
        input="".join(json.dumps(call) + "\n" for call in calls),
        text=True,
        timeout=120,
        check=False,
    )
    return done.returncode


def test_what_the_sdk_reports_is_known_at_once(service: RunningService) -> None:
    assert service.evaluate("keen", "n1")["value"] is False
    calls = [
        {"call": "identify", "userId": "n1", "traits": {"age": 33}},
        {"call": "page", "userId": "n1", "name": "Home"},
        {"call": "group", "userId": "n1", "groupId": "g"},
        {"call": "track", "userId": "n1", "event": "View", "properties": {"page": "a"}},
        {"call": "track", "userId": "n1", "event": "View", "properties": {"page": "b"}},
        {"call": "track", "userId": "n1", "event": "Never Declared"},
    ]
    assert report(service, *calls) == 0
    assert service.evaluate("keen", "n1")["value"] is True
    assert service.evaluate("adults", "n1")["value"] is True


def test_a_key_that_may_not_report_is_an_error_of_the_sdk(service: RunningService) -> None:
    call = {"call": "track", "userId": "n2", "event": "View"}
    assert report(service, call, key=shop.KEYS["read"]) == 1
