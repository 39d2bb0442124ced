"""What is fuzzed: by kind a function that does one run, by its seed, on the project that all runs share."""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import orjson
import redis
from typer.testing import CliRunner

from rules_engine import SegmentClient
from rules_engine.cli.main import app
from rules_engine.errors import SegmentsError
from rules_engine.events.declarations.events_yaml import parse_events
from rules_engine.files import seal
from rules_engine.ml.clusters.definition import load_cluster_definitions
from rules_engine.ml.propensity.check import load_model_definitions
from rules_engine.redis.embedded import EmbeddedStore
from rules_engine.rules.load import load_text
from rules_engine.simulation.case_files import load_cases
from rules_engine.simulation.segment_tests import run_case
from rules_engine.testing import evaluate
from tests.fuzz import ground as sound
from tests.fuzz.damage import NASTY, ODD, damage_bytes, damage_json, damage_text
from tests.fuzz.ground import AT, Ground
from tests.packed import pack


def definitions(ground: Ground, draw: random.Random) -> None:
    """Load damaged definitions."""
    if draw.random() < 0.3:
        parse_events(damage_text(draw, sound.EVENTS), "events.yaml")
        return
    loaded = load_text(damage_text(draw, sound.SEGMENTS), ground.catalog)
    for segment in loaded.program.segments.values():
        assert segment.name


def cases(ground: Ground, draw: random.Random) -> None:
    """Load a damaged file of tests, and run those that load."""
    with _written(ground.root / "segments" / "fuzz.test.yaml", _text(damage_text(draw, sound.CASES))) as path:
        loaded, _problems = load_cases([path], ground.root, ground.definitions, ground.catalog)
    for case in loaded:
        list(run_case(case, ground.definitions.program))


def learned(ground: Ground, draw: random.Random) -> None:
    """Load damaged definitions of clusters or of models."""
    folder = ground.root / "feature_repo"
    if draw.random() < 0.5:
        with _written(folder / "clusters.yaml", _text(damage_text(draw, sound.CLUSTERS_YAML))):
            load_cluster_definitions(ground.project, ground.catalog)
    else:
        with _written(folder / "models.yaml", _text(damage_text(draw, sound.MODELS_YAML))):
            load_model_definitions(ground.project, ground.catalog)


def conditions(ground: Ground, draw: random.Random) -> None:  # every kind takes the same
    """Evaluate conditions that are odd data and not YAML."""
    tree = {"all": [{"feature": "u:age", "at_least": 3}, {"did": "view", "within": "1h", "count": {"at_least": 1}}]}
    events = [{"event": "view", "at": AT, "seconds": 5}]
    evaluate(damage_json(draw, tree, 0.1), features={"u:age": draw.choice(ODD)}, events=events, now=AT)


def events(ground: Ground, draw: random.Random) -> None:
    """Ingest a damaged file: damaged before it is compressed, or after that."""
    ending, data = draw.choice(tuple(sound.EVENT_FILES.items()))
    if draw.random() < 0.5:
        data = damage_bytes(draw, pack(ending, data))
    elif draw.random() < 0.5:
        data = pack(ending, damage_bytes(draw, data))
    else:
        data = pack(ending, _text(damage_text(draw, data.decode("latin-1"))))
    with _written(ground.root / f"in{ending}", data) as path:
        _command("ingest", str(path), "--repo", str(ground.root))


def plans(ground: Ground, draw: random.Random) -> None:
    """Open a client on a damaged read plan: its seal is broken, or somebody wrote a fitting one."""
    if draw.random() < 0.5:
        damaged = _text(damage_text(draw, ground.project.read_plan.read_text(encoding="utf-8")))
    else:
        content = damage_json(draw, {name: part for name, part in ground.plan.items() if name != "checksum"}, 0.01)
        damaged = json.dumps(content).encode()
        damaged = seal(damaged) if isinstance(content, dict) and content else damaged
    with _written(ground.project.read_plan, damaged), SegmentClient.from_repo(ground.root) as client:
        client.lookup("a")
        client.explain("a", "buyers")


def requests(ground: Ground, draw: random.Random) -> None:
    """Ask and report with odd arguments, of the types that a request of JSON can have."""
    with SegmentClient.from_repo(ground.root) as client:
        entity = draw.choice(("a", "b", *NASTY))
        context = {name: draw.choice(ODD) for name in draw.sample(("device", "x", "", "u:age"), 2)}
        client.lookup(entity, context=context, segments=draw.choice((None, ["buyers"], [draw.choice(NASTY)])))
        client.explain(entity, "mobile_shoppers", context=context)
        properties = damage_json(draw, {"page": "/p/1", "seconds": 3, "tags": ["a"]}, 0.2)
        at = draw.choice(
            (None, AT, AT - timedelta(days=400), datetime(1, 1, 1, tzinfo=UTC), datetime(9999, 12, 31, tzinfo=UTC))
        )
        if isinstance(properties, dict):
            client.track(
                entity,
                draw.choice(("view", "purchase", *NASTY[:30])),
                properties,
                at=at,
                event_id=draw.choice((None, *NASTY)),
            )


def models(ground: Ground, draw: random.Random) -> None:
    """Use a damaged version of clusters or of a model; or read one for which somebody made a fitting checksum."""
    stored = draw.choice(ground.versions)
    if draw.random() < 0.3:
        content = {name: part for name, part in orjson.loads(stored.file).items() if name != "checksum"}
        stored.kind.decode(_with_checksum(damage_json(draw, content, 0.01)))
        return
    path = ground.project.state_dir / stored.kind.folder / stored.name
    with _written(path / "v1.json", _text(damage_text(draw, stored.file.decode()))):
        for command in (["list"], ["show", stored.name], ["promote", "v1"]):
            _command(*stored.kind.command.split()[1:], *command, "--repo", str(ground.root))


def _with_checksum(content: object) -> bytes:
    """Return a version's file with the checksum of its content, where it can have one."""
    try:
        canonical = orjson.dumps(content, option=orjson.OPT_SORT_KEYS)
    except (TypeError, ValueError):  # numbers beyond 64 bits
        return json.dumps(content).encode()
    checksum = "sha256:" + hashlib.sha256(canonical).hexdigest()
    return orjson.dumps({**content, "checksum": checksum} if isinstance(content, dict) else content)


def kept(ground: Ground, draw: random.Random) -> None:
    """Damage a value of the online store, and ask for the entity whose it is, or for another one."""
    with redis.Redis.from_url(EmbeddedStore(ground.root).url) as client:
        keys = sorted(client.keys("*"))
        key = draw.choice(keys)
        before = client.dump(key)
        try:
            _damage_key(client, draw, key)
            _command("lookup", draw.choice("ab"), "--repo", str(ground.root))
            _command("explain", draw.choice("ab"), "buyers", "--repo", str(ground.root))
        finally:
            client.restore(key, 0, before, replace=True)


def _damage_key(client: redis.Redis, draw: random.Random, key: bytes) -> None:
    kind = client.type(key)
    if kind == b"string":
        client.set(key, damage_bytes(draw, client.get(key)))
    elif kind == b"hash":
        field = draw.choice(client.hkeys(key))
        client.hset(key, field, damage_bytes(draw, client.hget(key, field)))
    else:
        client.delete(key)
        client.set(key, draw.randbytes(8))


@contextmanager
def _written(path: Path, data: bytes) -> Iterator[Path]:
    """Have these bytes in a file; afterwards it is as it was before."""
    before = path.read_bytes() if path.exists() else None
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    try:
        yield path
    finally:
        if before is None:
            path.unlink(missing_ok=True)
        else:
            path.write_bytes(before)


def _text(damaged: str) -> bytes:
    return damaged.encode("utf-8", "surrogatepass")


def _command(*arguments: str) -> None:
    """Run a command of ours: it may refuse, but not fall."""
    done = CliRunner().invoke(app, list(arguments))
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    assert "Traceback" not in done.output
    assert done.exit_code != 2, f"wrong usage, so nothing was tried: {done.output}"


KINDS: Mapping[str, Callable[[Ground, random.Random], None]] = {
    kind.__name__: kind for kind in (definitions, cases, learned, conditions, events, plans, requests, models, kept)
}

#: What the product may answer with: its own errors, and Python's for arguments of a wrong type or value.
NAMED = (SegmentsError, TypeError, ValueError)
