"""The read plan on disk: whole or not there, and clear about what is wrong with it."""

from __future__ import annotations

import json
import os
import random
import stat
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from rules_engine.errors import NotAppliedError, ProjectError
from rules_engine.files import write_atomically
from rules_engine.read_plan import FORMAT, Connection, PlanFeature, PlanView, ReadPlan
from rules_engine.rules.types import STRING, TIME

PLAN = ReadPlan(
    project="shop",
    entity="user",
    join_key="user_id",
    key_version=3,
    connection=Connection("redis", "cache:6379,password=${SECRET}", store="redis"),
    views=(
        PlanView("profile", "profile_v2", (PlanFeature("name", "String", 2**32 - 1, "Who"),), ttl=86_400_000_000),
        PlanView("visits", "visits", (PlanFeature("last", "UnixTimestamp", 0),)),
    ),
    definitions={"vip": {"when": [1, 2.5, None, True, "ü", "\ud800", 2**80]}},
    applied_at=1_700_000_000_000_000,
    now=None,
)


def test_it_comes_back_as_it_was(tmp_path: Path) -> None:
    file = tmp_path / "deep" / "read_plan.json"
    PLAN.save(file)
    assert ReadPlan.load(file) == PLAN
    later = replace(PLAN, now=5)
    later.save(file)
    assert ReadPlan.load(file) == later
    assert [path.name for path in file.parent.iterdir()] == [file.name]


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o027, 0o640), (0o077, 0o600)])
def test_those_may_read_it_whom_the_deployer_lets(tmp_path: Path, umask: int, mode: int) -> None:
    file = tmp_path / "read_plan.json"
    before = os.umask(umask)
    try:
        PLAN.save(file)
        assert stat.S_IMODE(file.stat().st_mode) == mode
        file.chmod(0o664)
        replace(PLAN, now=5).save(file)
    finally:
        os.umask(before)
    assert stat.S_IMODE(file.stat().st_mode) == 0o664, "what was chosen for the file that is there stays"


def mutated(text: bytes, draw: random.Random) -> bytes:
    """The text with some of it changed, removed, doubled, or put elsewhere; never the text itself."""
    for _ in range(draw.choice((1, 1, 1, 2, 5))):
        at, length = draw.randrange(len(text)), draw.choice((1, 1, 2, 8, 64))
        piece = text[at : at + length]
        text = draw.choice(
            (
                text[:at] + text[at + length :],
                text[:at] + piece + text[at:],
                text[:at] + bytes(draw.randrange(256) for _ in piece) + text[at + length :],
                text[:at] + draw.choice((b"null", b"0", b"[]", b"{}", b'"', b"-1e999")) + text[at + length :],
                text[:at],
                text[at:] + text[:at],
            )
        )
        if not text:
            break
    return text


def test_no_damage_to_the_file_goes_unnoticed(tmp_path: Path) -> None:
    file = tmp_path / "read_plan.json"
    PLAN.save(file)
    whole, draw, damaged = file.read_bytes(), random.Random(25), 0
    for _ in range(5_000):
        text = mutated(whole, draw)
        if text == whole:
            continue
        damaged += 1
        file.write_bytes(text)
        with pytest.raises(ProjectError) as caught:
            ReadPlan.load(file)
        assert "segments apply" in str(caught.value.hint)
    assert damaged > 4_900


def test_it_names_what_rules_may_read() -> None:
    catalog = PLAN.catalog()
    assert {key: feature.type for key, feature in catalog.features.items()} == {
        "profile:name": STRING,
        "visits:last": TIME,
    }
    assert catalog.ttl == {"profile": 86_400_000_000}
    assert catalog.features["profile:name"].description == "Who"
    assert PLAN.views[0].timestamp_field == b"_ts:profile_v2"


def test_equal_definitions_have_equal_versions() -> None:
    one = replace(PLAN, definitions={"a": {"x": 1, "y": 2}, "b": 1})
    same = replace(PLAN, definitions={"b": 1, "a": {"y": 2, "x": 1}}, applied_at=5)
    assert one.definitions_version == same.definitions_version
    assert one.definitions_version != replace(PLAN, definitions={"a": {"x": 1, "y": 3}, "b": 1}).definitions_version


def test_nothing_applied_yet(tmp_path: Path) -> None:
    with pytest.raises(NotAppliedError) as caught:
        ReadPlan.load(tmp_path / "read_plan.json")
    assert "segments apply" in str(caught.value.hint)


def without(*path: str) -> bytes:
    content = json.loads(PLAN.to_json())
    inner = content
    for name in path[:-1]:
        inner = inner[0] if name == "0" else inner[name]
    del inner[path[-1]]
    return json.dumps(content).encode()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"", "is no read plan"),
        (PLAN.to_json()[:-20], "is no read plan"),
        (b"\xff\xfe", "is no read plan"),
        (b"[]", "is no read plan"),
        (b"5", "is no read plan"),
        (b"{}", "it has no `format`"),
        (without("views"), "it has no `views`"),
        (without("connection"), "it has no `connection`"),
        (without("now"), "it has no `now`"),
        (without("views", "0", "name"), "it has no `name`"),
        (without("connection", "kind"), "missing 1 required positional argument: 'kind'"),
        (PLAN.to_json().replace(b'"user_id"', b"5"), "`join_key` is not a string"),
        (PLAN.to_json().replace(b'"key_version": 3', b'"key_version": "3"'), "`key_version` is not a whole number"),
        (PLAN.to_json().replace(b'"field": 0', b'"field": 0, "more": 1'), "unexpected keyword argument 'more'"),
    ],
)
def test_a_damaged_plan_says_what_is_wrong(tmp_path: Path, text: bytes, message: str) -> None:
    file = tmp_path / "read_plan.json"
    file.write_bytes(text)
    with pytest.raises(ProjectError) as caught:
        ReadPlan.load(file)
    assert str(file) in str(caught.value)
    assert message in str(caught.value)
    assert "segments apply" in str(caught.value.hint)


def test_a_plan_of_a_newer_version_is_not_guessed_at(tmp_path: Path) -> None:
    file = tmp_path / "read_plan.json"
    file.write_bytes(PLAN.to_json().replace(f'"format": {FORMAT}'.encode(), b'"format": 99'))
    with pytest.raises(ProjectError, match=f"has format 99, and this version of feast-segments reads format {FORMAT}"):
        ReadPlan.load(file)


def test_a_reader_never_finds_half_a_plan(tmp_path: Path) -> None:
    file = tmp_path / "read_plan.json"
    PLAN.save(file)
    done = threading.Event()

    def write() -> None:
        for number in range(100):
            replace(PLAN, applied_at=number, definitions={"x": "y" * number * 500}).save(file)
        done.set()

    writer = threading.Thread(target=write)
    writer.start()
    reads = 0
    while not done.is_set():
        ReadPlan.load(file)
        reads += 1
    writer.join()
    assert reads > 0
    assert [path.name for path in tmp_path.iterdir()] == [file.name]


def test_a_place_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ProjectError, match="cannot write"):
        write_atomically(tmp_path / "file" / "read_plan.json", b"")
    (tmp_path / "read_plan.json").mkdir()
    with pytest.raises(ProjectError, match="cannot write"):
        PLAN.save(tmp_path / "read_plan.json")
    with pytest.raises(ProjectError, match="cannot read"):
        ReadPlan.load(tmp_path / "read_plan.json")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "read_plan.json"]
