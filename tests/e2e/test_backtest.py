"""`segments backtest` on the demo: against pandas on its Parquet files, user by user."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import pandas as pd
import pytest

from rules_engine.clock import format_instant, to_micros
from tests.e2e.conftest import Demo
from tests.e2e.test_batch import expected, newest

pytestmark = pytest.mark.slow

START, EVERY, COUNT = datetime(1997, 9, 1, tzinfo=UTC), timedelta(days=37), 9
AT = [START + EVERY * number for number in range(COUNT)]
ARGUMENTS = f"--from {START.isoformat()} --every 37d --to 1998-07-01T00:00:00Z --format json"


def test_a_segment_over_time_is_what_brute_force_finds(demo: Demo) -> None:
    days = 80
    found = json.loads(demo.run(f"backtest at_risk {ARGUMENTS} --flap-within {days}d --out t.csv --plot t.png"))
    answers = [expected(demo.root, at) for at in AT]
    before, moved, flapped, moves = set[str](), dict[str, datetime](), 0, 0
    assert [point["at"] for point in found["points"]] == [format_instant(to_micros(at)) for at in AT]
    for at, answer, point in zip(AT, answers, found["points"], strict=True):
        members = answer["at_risk"]
        movers = set() if at == START else members ^ before
        flaps = sum(user in moved and at - moved[user] <= timedelta(days=days) for user in movers)
        moved |= dict.fromkeys(movers, at)
        flapped, moves = flapped + flaps, moves + len(movers)
        counted = (point["users"], point["size"], point["entered"], point["left"], point["flaps"])
        entered = len(members - before) if movers else 0
        want = (len(newest(demo.root, "purchase_history", at)), len(members), entered, len(movers) - entered, flaps)
        assert counted == want
        for name, other in answer.items():
            if name != "at_risk":
                both = len(members & other)
                overlap = {"size": len(other), "both": both, "jaccard": both / (len(members | other) or 1)}
                assert point["overlap"][name] == overlap
        before = members
    assert found["flap_rate"] == flapped / moves
    assert flapped > 100, "or it says little"
    table = pd.read_csv(demo.root / "t.csv")
    assert table["size"].tolist() == [point["size"] for point in found["points"]]
    assert (demo.root / "t.png").read_bytes().startswith(b"\x89PNG")


def test_it_is_shown_as_a_table(demo: Demo) -> None:
    shown = demo.run("backtest champions --from 1998-01-01T00:00:00Z --every 2d --flap-within 30d").splitlines()
    assert shown[0] == "champions at 91 instants from 1998-01-01T00:00:00Z to 1998-06-30T00:00:00Z"
    assert shown[1].split() == ["at", "users", "size", "share", "enter", "leave", "flaps"]
    assert "..." in [line.strip() for line in shown]
    assert shown[43].endswith("of these moves undid one that was at most 30d old")
    assert shown[45].split("  ")[0] == "in common with"
    done = demo.segments("backtest nobody --from 1998-01-01T00:00:00Z")
    assert (done.returncode, "there is no segment `nobody`" in done.stderr) == (1, True), done.stderr
