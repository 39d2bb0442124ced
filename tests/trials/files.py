"""A random project written to disk: the Feast repository, its sources, events in files, and definitions."""

from __future__ import annotations

import csv
import io
import json
import random
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from tests.packed import pack
from tests.property import pools
from tests.property.triggers import CONSENT, document_of
from tests.trials.world import World

_INSTANT = pa.timestamp("us", "UTC")
_ONLINE = "rules_engine.features.online_store.EmbeddedOnlineStore"

_SCHEMAS: Mapping[str, Any] = {
    "string": {"type": "string"},
    "number": {"type": "number"},
    "bool": {"type": "boolean"},
    "time": {"type": "string", "format": "date-time"},
    "list": {"type": "array", "items": {"type": "string"}},
}


def write_repository(world: World, root: Path, draw: random.Random) -> None:
    """Write ``feature_repo/`` with its sources, and ``segments/project.yaml``."""
    repository = root / "feature_repo"
    (repository / "data").mkdir(parents=True)
    store = {
        "project": "trial",
        "provider": "local",
        "registry": "../.segments/registry.db",
        "offline_store": {"type": draw.choice(("duckdb", "file"))},
        "online_store": {"type": _ONLINE},
        "entity_key_serialization_version": 3,
    }
    if draw.random() < 0.7:  # without it values go through Feast, one by one
        store["batch_engine"] = {"type": "rules_engine.features.arrow_engine.ArrowEngine"}
    (repository / "feature_store.yaml").write_text(yaml.safe_dump(store))
    (repository / "views.py").write_text(_views(world))
    events = {
        name: {"properties": {key: _SCHEMAS[kind] for key, kind in pools.PROPERTIES.items()}, "retention": "ever"}
        for name in sorted(set(pools.EVENTS))
    }
    (repository / "events.yaml").write_text(yaml.safe_dump({"events": events}))
    write_sources(world, root, draw, part=draw.choice((0.5, 1)))
    (root / "segments").mkdir()
    settings = {"project": "trial", "now": world.now.isoformat(), "consent": {"mail": CONSENT}}
    (root / "segments" / "project.yaml").write_text(yaml.safe_dump(settings, sort_keys=False))


def write_sources(world: World, root: Path, draw: random.Random, part: float = 1) -> None:
    """Write the sources of the views: all of their rows, or the first part of them."""
    for view, rows in world.rows.items():
        table = _table(world, view, rows[: int(part * len(rows))])
        pq.write_table(
            table, root / "feature_repo" / "data" / f"{view}.parquet", row_group_size=draw.choice((7, 10_000))
        )


def _views(world: World) -> str:
    lines = [
        "from datetime import timedelta",
        "from pathlib import Path",
        "from feast import Entity, FeatureView, Field, FileSource, ValueType",
        "from feast.types import *",
        "data = Path(__file__).resolve().parent / 'data'",
        "user = Entity(name='user', join_keys=['user_id'], value_type=ValueType.STRING)",
    ]
    for view in world.rows:
        fields = ", ".join(
            f"Field(name={name.partition(':')[2]!r}, dtype={kind})"
            for name, kind in sorted(world.types.items())
            if name.startswith(f"{view}:")
        )
        created = "made" if view in world.created else ""
        path = f"str(data / '{view}.parquet')"
        source = f"FileSource(path={path}, timestamp_field='at', created_timestamp_column={created!r})"
        seconds = world.ttls[view] // timedelta(seconds=1)
        lines.append(
            f"{view} = FeatureView(name={view!r}, entities=[user], ttl=timedelta(seconds={seconds}), "
            f"source={source}, schema=[{fields}])"
        )
    return "\n".join(lines) + "\n"


def _table(world: World, view: str, rows: Sequence[Mapping[str, Any]]) -> pa.Table:
    keys = [row["entity"] for row in rows]
    if world.numeric_keys:
        keys = [None if key is None else int(key) for key in keys]
    columns = {
        "user_id": pa.array(keys, pa.int64() if world.numeric_keys else pa.string()),  # also where all are missing
        "at": pa.array([row["at"] for row in rows], _INSTANT),
        "made": pa.array([row["made"] for row in rows], _INSTANT),
    }
    for name, column in sorted(world.columns.items()):
        if name.startswith(f"{view}:"):
            bare = name.partition(":")[2]
            columns[bare] = column.array([row[bare] for row in rows])
    return pa.table(columns)


def write_definitions(documents: Mapping[str, Any], root: Path) -> None:
    """Write each document in a file of its own."""
    for name, document in documents.items():
        text = yaml.safe_dump(document, allow_unicode=True, sort_keys=False, default_flow_style=None, width=10_000)
        (root / "segments" / f"{name}.yaml").write_text(text, encoding="utf-8")


def documents_of(world: World) -> dict[str, Any]:
    """Return the documents of a project by name: segments, then triggers."""
    segments = {name: {"segment": name, "when": condition} for name, condition in world.segments.items()}
    return segments | {name: document_of(name, trigger) for name, trigger in world.triggers.items()}


# --- events ---------------------------------------------------------------------------------------------------------


#: Endings of files of events.
_ENDINGS = (".jsonl", ".ndjson.gz", ".jsonl.zst", ".csv", ".csv.gz", ".tsv", ".parquet")


def write_events(events: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Write events as the ending of the name says."""
    if path.suffix == ".parquet":
        pq.write_table(_event_table(events), path, row_group_size=10_000)
        return
    text = io.StringIO(newline="")
    if _is_lines(path.name):
        text.writelines(json.dumps(_as_text(event)) + "\n" for event in events)
    else:
        names = ["entity", "event", "at", "event_id", *pools.PROPERTIES]
        writer = csv.DictWriter(text, names, delimiter="\t" if ".tsv" in path.name else ",")
        writer.writeheader()
        for event in events:
            shown = {name: json.dumps(value) if isinstance(value, bool) else value for name, value in event.items()}
            writer.writerow(_as_text(shown))
    path.write_bytes(pack(path.name, text.getvalue().encode()))


def _is_lines(name: str) -> bool:
    return "json" in name


def _as_text(event: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value.isoformat() if isinstance(value, datetime) else value for name, value in event.items()}


def _event_table(events: Sequence[Mapping[str, Any]]) -> pa.Table:
    kinds = {
        **{name: pa.string() for name in ("entity", "event", "event_id", "sku")},
        "at": pa.timestamp("us", "UTC"),
        "due": pa.timestamp("us", "UTC"),
        "price": pa.float64(),
        "gift": pa.bool_(),
        "tags": pa.list_(pa.string()),
    }
    return pa.table({name: pa.array([event.get(name) for event in events], kind) for name, kind in kinds.items()})


def in_batches(world: World, draw: random.Random) -> list[tuple[str, list[Mapping[str, Any]]]]:
    """Cut the events into files, in order of time or in none: each with the ending of its name."""
    events = list(world.events)
    order = draw.choice(("time", "backwards", "none"))
    if order == "none":
        draw.shuffle(events)
    else:
        events.sort(key=lambda event: event["at"], reverse=order == "backwards")
    cuts = sorted(draw.randint(0, len(events)) for _ in range(draw.choice((0, 1, 3, 7))))
    edges = [0, *cuts, len(events)]
    files = []
    for start, end in pairwise(edges):
        ending, part = draw.choice(_ENDINGS), events[start:end]
        rest = [] if ending == ".parquet" or _is_lines(ending) else [event for event in part if not _fits_csv(event)]
        files += [(ending, [event for event in part if not rest or _fits_csv(event)]), (".jsonl", rest)]
    return [(ending, part) for ending, part in files if part]


def _fits_csv(event: Mapping[str, Any]) -> bool:
    """Tell whether CSV has a place for an event: it knows no lists, and no empty text beside nothing at all."""
    return "tags" not in event and event.get("sku") != ""
