"""OpenFeature's own SDK and provider for JavaScript, unmodified, against the service."""

from __future__ import annotations

import json
import shutil
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from rules_engine import SegmentClient
from rules_engine.folders import Project
from tests.service import shop
from tests.service.conftest import RunningService

CLIENTS = Path(__file__).parents[1] / "clients"
NODE = shutil.which("node")

pytestmark = pytest.mark.skipif(
    NODE is None or not (CLIENTS / "node_modules").is_dir(),
    reason="needs node, and the packages of tests/clients: `npm ci --prefix tests/clients`",
)


def evaluate(service: RunningService, *asked: dict[str, Any], role: str = "read") -> list[dict[str, Any]]:
    """Return what the SDK says to each question."""
    assert NODE is not None
    done = subprocess.run(
        [NODE, str(CLIENTS / "evaluate.mjs"), service.url, shop.KEYS[role]],
        input="".join(json.dumps({"otherwise": False, **one}) + "\n" for one in asked),
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_segments_are_flags(service: RunningService, shop_project: Project) -> None:
    at = datetime.now(UTC) - timedelta(minutes=1)
    with SegmentClient(shop_project) as client:
        for number in range(2):
            client.track("node", "view", {"page": "a"}, at=at + timedelta(seconds=number))
    inside, outside, mobile, keen = evaluate(
        service,
        {"flag": "adults", "context": {"targetingKey": "ada"}},
        {"flag": "adults", "context": {"targetingKey": "bob"}, "otherwise": True},
        {"flag": "mobile", "context": {"targetingKey": "bob", "device": "mobile"}},
        {"flag": "keen", "context": {"targetingKey": "node"}},
    )
    assert (inside["value"], inside["variant"], inside["reason"]) == (True, "in", "TARGETING_MATCH")
    assert (outside["value"], outside["variant"]) == (False, "out")
    assert mobile["value"] is True
    assert keen["value"] is True
    assert datetime.fromisoformat(keen["flagMetadata"]["changes_at"]) == at + timedelta(hours=1)


def test_errors_have_the_codes_of_openfeature(service: RunningService) -> None:
    absent, nobody = evaluate(
        service,
        {"flag": "absent", "context": {"targetingKey": "ada"}, "otherwise": True},
        {"flag": "adults", "context": {"device": "mobile"}, "otherwise": True},
    )
    assert (absent["value"], absent["errorCode"]) == (True, "FLAG_NOT_FOUND")
    assert (nobody["value"], nobody["errorCode"]) == (True, "TARGETING_KEY_MISSING")
