"""`segments ingest` on real files, store and log."""

from __future__ import annotations

import csv
import json
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import redis
from typer.testing import CliRunner

from rules_engine.cli.main import app
from rules_engine.clock import to_micros
from rules_engine.errors import DataError
from rules_engine.events.streams import stream_keys
from rules_engine.folders import Project
from rules_engine.read_plan import Connection, ReadPlan
from rules_engine.redis.embedded import EmbeddedStore
from rules_engine.sdk import SegmentClient
from rules_engine.sdk.rules import Rules
from rules_engine.stream.event_sink import EventSink, event_log
from rules_engine.stream.files import ingest as event_files
from rules_engine.stream.files.ingest import IngestReport, ingest_file
from rules_engine.stream.files.mapping import Mapped
from rules_engine.stream.worker import Worker
from tests.event_shop import EVENTS, NOW, checked, instants, members, random_raw, shop_plan
from tests.stores import put_into_effect


@pytest.fixture
def project(tmp_path: Path, store: EmbeddedStore) -> Project:
    project = Project(tmp_path)
    (tmp_path / "segments").mkdir()
    (tmp_path / "feature_repo").mkdir()
    (tmp_path / "feature_repo/feature_store.yaml").touch()
    put_into_effect(shop_plan(Connection("redis", store.connection_string)), project)
    return project


@pytest.fixture
def sink(project: Project) -> EventSink:
    return EventSink(project, Rules(ReadPlan.load(project.read_plan)))


def rows() -> tuple[dict[str, list[dict[str, Any]]], list[dict[str, Any]]]:
    import random

    entropy = random.Random(7)
    logs = {f"u{number}": random_raw(entropy, 15) for number in range(5)}
    return logs, [{"entity": entity, **raw} for entity, log in logs.items() for raw in log]


def flat(row: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in row.items() if name != "properties"} | row["properties"]


def assert_answers(project: Project, logs: dict[str, list[dict[str, Any]]]) -> None:
    rules = Rules(ReadPlan.load(project.read_plan))
    with SegmentClient(project) as client:
        for at in instants():
            for found in client.lookup_many(list(logs), at=at):
                assert found.segments == members(rules, checked(logs[found.entity]), to_micros(at))


def write(path: Path, content: list[dict[str, Any]]) -> Path:
    if path.suffix == ".jsonl":
        path.write_text("\n".join(json.dumps(row) for row in content) + "\n\n")
    elif path.suffix == ".csv":
        names = list(dict.fromkeys(name for row in content for name in flat(row)))
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, names)
            writer.writeheader()
            writer.writerows(map(flat, content))
    else:
        table = [{**flat(row), "at": datetime.fromisoformat(row["at"])} for row in content]
        names = list(dict.fromkeys(name for row in table for name in row))
        pq.write_table(pa.Table.from_pylist([{name: row.get(name) for name in names} for row in table]), path)
    return path


@pytest.mark.slow
@pytest.mark.parametrize("suffix", ["jsonl", "csv", "parquet"])
def test_a_file_is_answered_as_its_events_say(
    project: Project, sink: EventSink, suffix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(event_files, "BATCH", 10)
    logs, content = rows()
    path = write(project.root / f"events.{suffix}", content)
    for _ in range(2):  # taking it again changes nothing
        report = ingest_file(project, sink, path)
        assert (report.rows, report.accepted, report.refused) == (len(content), len(content), 0)
        assert_answers(project, logs)
        log = event_log(project)
        found = [pair for day in log.days() for pair in log.read(day, ["view", "cart", "purchase"])]
        assert len(found) == len({(row["entity"], event.id) for row in content for event in checked([row])})


def test_columns_can_be_mapped_and_rows_without_an_id_get_one(project: Project, sink: EventSink) -> None:
    path = project.root / "clicks.csv"
    millis = to_micros(NOW) // 1000
    path.write_text(
        f"session,aid,ts,type\n7,x,{millis},clicks\n7,x,{millis},clicks\n7,y,{millis},carts\n8,,{millis},\n"
    )
    mapped = Mapped(
        entity="session", event="type", at="ts", names={"clicks": "view", "carts": "cart"},
        renamed={"aid": "page"}, at_unit="ms",
    )  # fmt: skip
    report = ingest_file(project, sink, path, mapped)
    assert (report.accepted, report.reasons) == (3, {"unknown-event": 1})
    with SegmentClient(project) as client:
        assert client.features("7", ["events:views_1h", "events:last_page_1d"]) == {
            "events:views_1h": 1,
            "events:last_page_1d": "x",
        }


def test_an_interrupted_run_goes_on_where_it_ended(
    project: Project, sink: EventSink, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(event_files, "BATCH", 10)
    logs, content = rows()
    path = write(project.root / "events.jsonl", content)

    def interrupt(report: IngestReport) -> None:
        if report.rows == 30:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        ingest_file(project, sink, path, progress=interrupt)
    report = ingest_file(project, sink, path)
    assert (report.skipped, report.rows, report.accepted) == (30, len(content), len(content))
    assert_answers(project, logs)
    assert ingest_file(project, sink, path).skipped == 0


@pytest.mark.parametrize(("name", "text"), [("a.txt", "x"), ("a.parquet", "x"), ("missing.csv", None)])
def test_a_file_that_cannot_be_read_is_an_error(project: Project, sink: EventSink, name: str, text: str | None) -> None:
    path = project.root / name
    if text is not None:
        path.write_text(text)
    with pytest.raises(DataError, match=name):
        ingest_file(project, sink, path)


def run(project: Project, *arguments: str) -> Any:
    return CliRunner().invoke(app, [*arguments, "--repo", str(project.root)])


@pytest.mark.slow
def test_the_commands_ingest_list_replay_and_run(project: Project, client: redis.Redis) -> None:
    path = project.root / "events.jsonl"
    good = {"entity": "u", "event": "view", "at": NOW.isoformat(), "event_id": "1", "properties": {"page": "a"}}
    path.write_text("\n".join([json.dumps(good), json.dumps({**good, "event": "veiw"}), "{broken"]))
    done = run(project, "ingest", str(path))
    assert done.exit_code == 3, done.output
    assert "Took 1 event of 3 rows" in done.output
    assert "refused 1 row: invalid-event\n  refused 1 row: unknown-event\n" in done.output
    listed = json.loads(run(project, "ingest", "--dead-letters", "--format", "json").stdout)
    assert listed["total"] == 2
    assert listed["events"][0]["source"] == "events.jsonl"
    assert "2 refused events" in run(project, "ingest", "--dead-letters").output
    assert "2 remain refused" in run(project, "ingest", "--dead-letters", "--replay").output
    with SegmentClient(project) as shop:
        shop.track("u", "view", {"page": "a"}, at=NOW - timedelta(minutes=1))
    assert "Took 1 event, refused 0" in run(project, "run", "--once").output
    assert run(project, "ingest").exit_code == 2
    assert run(project, "ingest", str(path), "--dead-letters").exit_code == 2
    assert run(project, "ingest", str(path), "--map", "entity").exit_code == 2
    failed = run(project, "ingest", str(path), "--event", "nothing")
    assert failed.exit_code == 1
    assert "no event `nothing`" in failed.output


def test_events_may_be_handed_to_the_workers(
    project: Project, sink: EventSink, client: redis.Redis, tmp_path: Path
) -> None:
    path = tmp_path / "events.jsonl"
    rows = [{"entity": f"u{number}", "event": "view", "at": NOW.isoformat(), "page": "a"} for number in range(20)]
    path.write_text("\n".join(map(json.dumps, rows)))
    assert ingest_file(project, sink, path, live=True).accepted == 20
    assert sum(client.xlen(key) for key in stream_keys("shop")) == 20
    assert Worker(project).run(once=True).accepted == 20
    with SegmentClient(project) as shop:
        assert shop.features("u7", ["events:last_page_1d"]) == {"events:last_page_1d": "a"}


def test_taking_a_file_again_adds_nothing_and_says_so(project: Project, client: redis.Redis) -> None:
    path = project.root / "visits.csv"
    row = f"u,view,{NOW.isoformat()},a\n"
    path.write_text("entity,event,at,page\n" + row + row + f"u,view,{NOW.isoformat()},b\n")
    first, second = (json.loads(run(project, "ingest", str(path), "--format", "json").stdout) for _ in range(2))
    assert (first["accepted"], first["known"], first["without_id"]) == (3, 1, 3)
    assert (second["accepted"], second["known"]) == (3, 3)
    assert "2 rows had no id" not in run(project, "ingest", str(path), "--id", "page").output
    files = list((project.feature_repo / "data/events").rglob("*.parquet"))
    assert sum(pq.read_metadata(file).num_rows for file in files) == 2 + 2, "by content, and once more by --id"


def test_a_file_is_the_same_after_one_more_column_was_declared(project: Project, sink: EventSink) -> None:
    path = project.root / "carts.csv"
    path.write_text(f"entity,event,at,sku,value,points\nkari,cart,{NOW.isoformat()},A1,12.50,7\n")
    assert ingest_file(project, sink, path).known == 0
    declared = EVENTS.replace("value: {type: number, minimum: 0}", "value: {type: number}, points: {type: integer}")
    connection = ReadPlan.load(project.read_plan).connection
    put_into_effect(shop_plan(connection, events=declared), project)
    again = EventSink(project, Rules(ReadPlan.load(project.read_plan)))
    assert ingest_file(project, again, path).known == 1
    with SegmentClient(project) as client:
        assert client.features("kari", ["events:cart_value"]) == {"events:cart_value": 12.5}


def test_a_file_of_the_log_can_be_taken_into_another_project(project: Project, sink: EventSink, tmp_path: Path) -> None:
    _, content = rows()
    ingest_file(project, sink, write(project.root / "events.jsonl", content))
    logged = event_log(project)
    before = [one for day in logged.days() for one in logged.read(day, ["view", "cart", "purchase"])]
    for file in sorted((project.feature_repo / "data/events").rglob("*.parquet")):
        assert ingest_file(project, sink, file).known > 0, "an event of the log is the same event"
    other = Project(tmp_path / "other")
    (other.feature_repo).mkdir(parents=True)
    for file in sorted((project.feature_repo / "data/events").rglob("*.parquet")):
        report = ingest_file(other, sink_of(other, project), file)
        assert report.refused == 0, report
    copied = event_log(other)
    after = [one for day in copied.days() for one in copied.read(day, ["view", "cart", "purchase"])]
    assert sorted(after, key=repr) == sorted(before, key=repr)


def sink_of(project: Project, like: Project) -> EventSink:
    put_into_effect(ReadPlan.load(like.read_plan), project)
    return EventSink(project, Rules(ReadPlan.load(project.read_plan)))


def test_nothing_is_taken_of_a_wrong_file(project: Project, client: redis.Redis) -> None:
    path = project.root / "semicolon.csv"
    path.write_text(f"entity;event;at;page\nu;view;{NOW.isoformat()};a\n")
    before = client.keys("*")
    failed = run(project, "ingest", str(path))
    assert failed.exit_code == 1
    assert "no column `entity`" in failed.output
    assert client.keys("*") == before
    done = run(project, "ingest", str(path), "--separator", ";")
    assert (done.exit_code, "Took 1 event of 1 row" in done.output) == (0, True)


def test_a_folder_that_is_no_day_is_named_and_left_out(project: Project, sink: EventSink, caplog: Any) -> None:
    _, content = rows()
    ingest_file(project, sink, write(project.root / "events.jsonl", content))
    log = event_log(project)
    days = log.days()
    (log.folder / "event=view/day=1-01-01").mkdir()
    assert log.days() == days
    assert "day=1-01-01 is left out" in caplog.text
    assert log.files("view", None, 10**6)
