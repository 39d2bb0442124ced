"""A project with events, on the command line: declared, applied, reported, ingested, worked off, and asked about."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from rules_engine import SegmentClient
from tests.commands import bad, good
from tests.e2e.conftest import agreeing

EVENTS = """\
events:
  view:
    properties: {page: {type: string}}
    retention: 30d
    features: {views_7d: {count: , within: 7d}}
"""
KEEN = "segment: keen\nwhen: {did: view, within: 1h, count: {at_least: 2}}\n"
LOYAL = "segment: loyal\nwhen: {feature: events:views_7d, at_least: 3}\n"


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    root = tmp_path_factory.mktemp("events") / "shop"
    good("init", root)
    (root / "feature_repo/events.yaml").write_text(EVENTS)
    (root / "segments/keen.yaml").write_text(KEEN)
    with agreeing(root):
        yield root


def ask(root: Path, user: str, segment: str) -> bool:
    found = json.loads(good("lookup", user, "--repo", root, "--format", "json"))
    return segment in found["segments"]


def test_events_go_from_the_file_and_the_application_into_answers(root: Path) -> None:
    assert "view" in good("schema", "--repo", root, "--output", "-")
    good("validate", "--repo", root)
    good("apply", "--repo", root)
    now = datetime(2026, 2, 1, tzinfo=UTC)  # what counts as now in a new project
    with SegmentClient.from_repo(root) as client:
        client.track("u1", "view", {"page": "a"})
        client.track("u1", "view", {"page": "b"}, at=now - timedelta(minutes=5))
        assert client.is_member("u1", "keen")
    rows = [
        {"entity": "u2", "event": "view", "at": (now - timedelta(days=days)).isoformat(), "page": "a"}
        for days in (0, 2, 4, 9)
    ]
    path = root / "events.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    assert "Took 4 events of 4 rows" in good("ingest", path, "--repo", root)
    assert "Took 2 events, refused 0" in good("run", "--once", "--repo", root)
    assert ask(root, "u1", "keen")
    assert not ask(root, "u2", "keen")
    assert "view" in good("explain", "u1", "keen", "--repo", root)
    # Somebody without features, who did something once, is no stranger.
    assert "is in none of 1 segment" in good("lookup", "u2", "--segment", "keen", "--repo", root)
    assert "knows nothing" not in good("lookup", "u2", "--segment", "keen", "--repo", root)
    assert "the store knows nothing of u3" in good("lookup", "u3", "--segment", "keen", "--repo", root)

    # A definition that needs more is answered from the log as soon as it is applied.
    (root / "segments/loyal.yaml").write_text(LOYAL)
    (root / "segments/month.yaml").write_text("segment: month\nwhen: {did: view, within: 30d, count: {at_least: 4}}\n")
    good("apply", "--repo", root)
    assert ask(root, "u2", "loyal")
    assert ask(root, "u2", "month")
    assert not ask(root, "u1", "loyal")
    with SegmentClient.from_repo(root) as client:
        assert client.features("u2", ["events:views_7d"]) == {"events:views_7d": 3}
    good("materialize", "--repo", root)


def test_what_is_wrong_in_events_yaml_is_shown_with_its_place(root: Path) -> None:
    path = root / "feature_repo/events.yaml"
    path.write_text(EVENTS.replace("type: string", "type: strin"))
    try:
        assert "feature_repo/events.yaml:3" in bad("apply", "--repo", root)
        assert "did you mean `string`?" in bad("apply", "--repo", root)
    finally:
        path.write_text(EVENTS)
