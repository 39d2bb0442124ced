"""The offline event log on a real disk: whole files, each event once, whatever is merged meanwhile."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from rules_engine.clock import DAY
from rules_engine.events.log import day_files, offline
from rules_engine.events.log.event_log import EventLog, Logged
from rules_engine.events.log.offline import OfflineEvents
from rules_engine.rules.inputs import Event
from rules_engine.rules.nodes import Aggregate, EventAggregate, EventMatch


def event(at: int, identity: str, name: str = "view", **properties: object) -> Event:
    return Event(name, at, identity, dict(properties))  # type: ignore[arg-type]


def test_events_come_back_as_they_were(tmp_path: Path) -> None:
    log = EventLog(tmp_path / "events")
    assert log.days() == []
    values = {"n": 2**62, "x": 0.1, "t": "æ", "l": (1, 2), "b": True, "o": {"a": 1}}
    first, second = event(5, "view:a", **values), event(DAY + 1, "buy:b", "buy")
    log.append([("u", first), ("v", second)], stored_at=1)
    assert log.days() == [0, 1]
    assert log.read(0, ["view", "buy"]) == [("u", first)]
    assert log.read(1, ["buy"]) == [("v", second)]
    assert log.read(1, ["view"]) == []


def test_instants_before_1970_have_their_day(tmp_path: Path) -> None:
    log = EventLog(tmp_path)
    log.append([("u", event(-1, "view:a"))], stored_at=1)
    assert log.days() == [-1]
    assert len(log.read(-1, ["view"])) == 1


def test_of_an_event_that_was_stored_twice_the_first_counts(tmp_path: Path) -> None:
    log = EventLog(tmp_path)
    log.append([("u", event(5, "view:a", n=1))], stored_at=1)
    log.append([("u", event(5, "view:a", n=2)), ("v", event(5, "view:a", n=3))], stored_at=2)
    assert [found.properties["n"] for _, found in log.read(0, ["view"])] == [1, 3]
    assert [entity for entity, _ in log.read(0, ["view"], stored_from=2)] == ["u", "v"]


def test_many_files_become_one_without_loss(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(day_files, "MANY_FILES", 5)
    entropy = random.Random(1)
    log, all_events = EventLog(tmp_path), dict[tuple[str, str], Logged]()
    for stored_at in range(1, 23):
        batch = [(entropy.choice("uv"), event(entropy.randrange(9), f"view:{entropy.randrange(30)}")) for _ in range(4)]
        log.append(batch, stored_at)
        for entity, one in batch:
            all_events.setdefault((entity, one.id), (entity, one))
    assert sorted(log.read(0, ["view"]), key=str) == sorted(all_events.values(), key=str)
    assert len(list(tmp_path.rglob("*.parquet"))) < 6
    assert {path.name[:20] for path in tmp_path.rglob("*.parquet")} >= {f"{22:020d}"}


def test_files_that_are_one_already_are_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(day_files, "MANY_FILES", 4)
    monkeypatch.setattr(day_files, "_SMALL", 0)
    log = EventLog(tmp_path)
    for number in range(1, 5):
        events = [event(number, f"view:{number}-{place}", text=str(place) * 40) for place in range(400)]
        log.append([("u", one) for one in events], number)
    (large,) = tmp_path.rglob("*.parquet")
    for number in range(5, 9):
        log.append([("u", event(number, f"view:{number}"))], number)
    names = sorted(path.name for path in tmp_path.rglob("*.parquet"))
    assert len(names) == 2
    assert names[0] == large.name
    assert len(log.read(0, ["view"])) == 1_604


WRITER = """
import sys
from pathlib import Path
from rules_engine.events.log import day_files
from rules_engine.events.log import event_log as log
from rules_engine.rules.inputs import Event
day_files.MANY_FILES = 4
mine = log.EventLog(Path(sys.argv[1]))
for number in range(10_000):
    mine.append([("u", Event("view", number, f"view:{sys.argv[2]}-{number}"))], number)
    print(number, flush=True)
"""


@pytest.mark.slow
def test_what_was_appended_survives_a_kill_and_two_writers(tmp_path: Path) -> None:
    writers = [
        subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path), name], stdout=subprocess.PIPE, text=True)
        for name in "ab"
    ]
    for writer in writers:  # both are at work
        assert writer.stdout is not None
        for _ in range(6):
            writer.stdout.readline()
    time.sleep(0.5)
    done = []
    for writer in writers:
        writer.kill()
        out, _ = writer.communicate()
        done.append(6 + len(out.split("\n")) - 1)
    found = {logged.id for _, logged in EventLog(tmp_path).read(0, ["view"])}
    assert found >= {f"view:{name}-{number}" for name, count in zip("ab", done, strict=True) for number in range(count)}
    for path in EventLog(tmp_path).files("view", None, 0):
        pq.read_table(path, partitioning=None)


def left_behind(folder: Path, name: str, hours: float) -> Path:
    """A file as a process leaves it that was killed so many hours ago while it wrote."""
    path = folder / f".{name}.parquet"
    path.write_bytes(b"PAR1 half")
    then = time.time() - hours * 3600
    os.utime(path, (then, then))
    return path


def test_what_a_kill_left_half_written_is_cleared_away_after_hours(tmp_path: Path) -> None:
    log = EventLog(tmp_path)
    log.append([("u", event(1, "view:a")), ("u", event(DAY, "view:b"))], 1)
    today, yesterday = sorted(tmp_path.glob("event=view/day=*"))
    old = [left_behind(today, "old", 7), left_behind(yesterday, "older", 70)]
    young = left_behind(today, "young", 5)
    assert [path.name[0] for path in log.files("view", None, 1)] == ["0", "0"]
    log.append([("u", event(2, "view:c"))], 2)
    assert all(path.exists() for path in old)  # the log was cleared a moment ago
    os.utime(tmp_path / ".compaction", (0, 0))
    log.append([("u", event(3, "view:d"))], 3)
    assert [path for path in [*old, young] if path.exists()] == [young]
    os.utime(young, (0, 0))
    log.append([("u", event(4, "view:e"))], 4)
    assert young.exists()
    assert {logged.id for _, logged in log.read(0, ["view"])} == {"view:a", "view:c", "view:d", "view:e"}


def test_a_file_that_is_cleared_away_while_it_is_written_fails_its_writer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As after a machine slept for hours: nothing is said to be stored that is not."""
    log = EventLog(tmp_path)
    log.append([("u", event(1, "view:a"))], 1)

    def slowly(number: int) -> None:
        monkeypatch.undo()
        (temporary,) = tmp_path.rglob(".*.parquet")
        for path in (temporary, tmp_path / ".compaction"):
            os.utime(path, (0, 0))
        log.append([("u", event(2, "view:b"))], 2)

    monkeypatch.setattr(day_files.os, "fsync", slowly)
    with pytest.raises(FileNotFoundError):
        log.append([("u", event(3, "view:c"))], 3)
    assert {logged.id for _, logged in log.read(0, ["view"])} == {"view:a", "view:b"}


@pytest.mark.slow
@pytest.mark.usefixtures("interruptible")
def test_an_interrupt_while_duckdb_reads_is_one_and_no_damaged_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = EventLog(tmp_path / "events")
    log.append([("u", event(1, "view:a"))], 1)
    slow = "SELECT sum(hash(a.range + b.range)) FROM range(2000000) a, range(30) b"  # some seconds

    def run(engine: Any, *_: object) -> Any:
        interrupt.start()
        return engine._connection.execute(slow)

    interrupt = threading.Timer(0.3, os.kill, [os.getpid(), signal.SIGINT])
    monkeypatch.setattr(offline.OutsideMemory, "_run", run)
    events = OfflineEvents(log, [EventAggregate(Aggregate.COUNT, EventMatch("view"), None)], tmp_path)
    with pytest.raises(KeyboardInterrupt):
        events.entities(DAY)
