"""Memberships and triggers on the command line: worked out by `segments run`, shown by `history` and `triggers`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from rules_engine import SegmentClient
from tests.commands import bad, good
from tests.e2e.conftest import agreeing

EVENTS = "events:\n  view:\n    properties: {page: {type: string}}\n    retention: 30d\n"
KEEN = """\
segment: keen
when: {did: view, within: 1h, count: {at_least: 2}}
---
trigger: greet
on_enter: keen
send: [{stream: mails}]
---
trigger: never
on_enter: keen
if: {did: view, within: 1h, count: {at_least: 100}}
send: [{stream: mails}]
---
trigger: later
on_event: {did: view}
delay: 1d
send: [{stream: mails}]
"""


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    root = tmp_path_factory.mktemp("history") / "shop"
    good("init", root)
    (root / "feature_repo/events.yaml").write_text(EVENTS)
    (root / "segments/keen.yaml").write_text(KEEN)
    good("apply", "--repo", root)
    good("materialize", "--repo", root)
    now = datetime(2026, 2, 1, tzinfo=UTC)  # what counts as now in a new project
    with SegmentClient.from_repo(root) as client:
        for minutes in (5, 1):
            client.track("u1", "view", {"page": "a"}, at=now - timedelta(minutes=minutes), event_id=f"e{minutes}")
        client.track("u2", "view", at=now)
    with agreeing(root):
        yield root


def test_what_happened_is_shown_with_why(root: Path) -> None:
    progress = json.loads(good("run", "--once", "--repo", root, "--format", "json"))
    assert {name: progress[name] for name in ("accepted", "transitions", "fired")} == {
        "accepted": 3,
        "transitions": 1,
        "fired": 1,
    }
    (entered,) = json.loads(good("history", "--segment", "keen", "--repo", root, "--format", "json"))
    assert entered["entity"] == "u1"
    assert (entered["change"], entered["cause"]) == ("enter", "event:view:e1")
    assert len(entered["definitions_version"]) > 4
    assert "event:view:e1" in good("history", "u1", "--repo", root)
    assert "Nothing is noted of the entity u2\n" in good("history", "u2", "--repo", root)
    assert not json.loads(good("history", "u1", "--to", "2026-01-01T00:00:00Z", "--repo", root, "--format", "json"))
    assert "did you mean `keen`" in bad("history", "--segment", "kean", "--repo", root)


def test_what_triggers_did_is_shown_with_the_reason(root: Path) -> None:
    good("run", "--once", "--repo", root)  # a second time nothing more happens
    found = json.loads(good("triggers", "--repo", root, "--format", "json"))
    states = sorted((row["trigger"], row["entity"], row["state"], row["reason"]) for row in found)
    assert states == [
        ("greet", "u1", "fired", None),
        ("later", "u1", "pending", None),
        ("later", "u1", "pending", None),
        ("later", "u2", "pending", None),
        ("never", "u1", "suppressed", "condition"),
    ]
    waiting = json.loads(good("triggers", "--state", "pending", "--entity", "u2", "--repo", root, "--format", "json"))
    assert [row["due"] for row in waiting] == ["2026-02-02T00:00:00Z"]
    assert "Now is always 2026-02-01T00:00:00Z here" in good("triggers", "--state", "pending", "--repo", root)
    fixed = good("triggers", "--trigger", "never", "--repo", root)
    assert "condition" in fixed
    assert "Now is always" not in fixed
    assert "did you mean `never`" in bad("triggers", "--trigger", "neva", "--repo", root)
    assert "0 undelivered actions" in good("triggers", "dead-letters", "--repo", root)
    assert "0 actions wait" in good("triggers", "dead-letters", "--resend", "--repo", root)
