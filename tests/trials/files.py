"""A random project written to disk: the Feast repository, its sources, events in files, and definitions."""

from __future__ import annotations

import csv
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

from tests.property import pools
from tests.trials.world import World

_ONLINE = "rules_engine.features.online_store.EmbeddedOnlineStore"

#: By declared type the Arrow types that a source may have for it, where they hold every value of the pools.
_COLUMNS: Mapping[str, Sequence[pa.DataType]] = {
    "Int64": (pa.int64(),),
    "Int32": (pa.int32(), pa.int64()),
    "Float64": (pa.float64(),),
    "Float32": (pa.float32(),),
    "String": (pa.string(), pa.large_string(), pa.dictionary(pa.int32(), pa.string())),
    "Bool": (pa.bool_(),),
    "Bytes": (pa.binary(),),
    "UnixTimestamp": (pa.timestamp("us", "UTC"), pa.timestamp("ms", "UTC"), pa.timestamp("ns", "UTC")),
    "Array(String)": (pa.list_(pa.string()),),
    "Array(Int64)": (pa.list_(pa.int64()),),
    "Array(Float64)": (pa.list_(pa.float64()),),
}

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
    for view, rows in world.rows.items():
        pq.write_table(_table(world, view, rows, draw), repository / "data" / f"{view}.parquet")
    (root / "segments").mkdir()
    (root / "segments" / "project.yaml").write_text(f"project: trial\nnow: {world.now.isoformat()}\n")


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
        source = f"FileSource(path=str(data / '{view}.parquet'), timestamp_field='at')"
        seconds = world.ttls[view] // timedelta(seconds=1)
        lines.append(
            f"{view} = FeatureView(name={view!r}, entities=[user], ttl=timedelta(seconds={seconds}), "
            f"source={source}, schema=[{fields}])"
        )
    return "\n".join(lines) + "\n"


def _table(world: World, view: str, rows: Sequence[Mapping[str, Any]], draw: random.Random) -> pa.Table:
    columns = {
        "user_id": pa.array([row["entity"] for row in rows], pa.string()),
        "at": pa.array([row["at"] for row in rows], pa.timestamp("us", "UTC")),
    }
    for name, kind in sorted(world.types.items()):
        if name.startswith(f"{view}:"):
            bare = name.partition(":")[2]
            values = [row[bare] for row in rows]
            chosen = draw.choice(_COLUMNS[kind])
            if pa.types.is_dictionary(chosen):
                columns[bare] = pa.array(values, pa.string()).dictionary_encode()
            else:
                columns[bare] = pa.array(values, pa.timestamp("us", "UTC") if kind == "UnixTimestamp" else chosen)
                columns[bare] = columns[bare].cast(chosen)
    return pa.table(columns)


def write_segments(conditions: Mapping[str, Any], root: Path) -> None:
    """Write each condition as a segment in a file of its own."""
    for name, condition in conditions.items():
        document = {"segment": name, "when": condition}
        text = yaml.safe_dump(document, allow_unicode=True, sort_keys=False, default_flow_style=None, width=10_000)
        (root / "segments" / f"{name}.yaml").write_text(text, encoding="utf-8")


# --- events ---------------------------------------------------------------------------------------------------------


def write_events(events: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Write events as the ending of the name says."""
    if path.suffix == ".parquet":
        pq.write_table(_event_table(events), path)
        return
    with path.open("w", encoding="utf-8", newline="") as file:
        if path.suffix == ".jsonl":
            file.writelines(json.dumps(_as_text(event)) + "\n" for event in events)
            return
        names = ["entity", "event", "at", "event_id", *pools.PROPERTIES]
        writer = csv.DictWriter(file, names)
        writer.writeheader()
        for event in events:
            shown = {name: json.dumps(value) if isinstance(value, bool) else value for name, value in event.items()}
            writer.writerow(_as_text(shown))


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
    cuts = sorted(draw.randint(0, len(events)) for _ in range(draw.choice((0, 0, 1, 3))))
    edges = [0, *cuts, len(events)]
    files = []
    for start, end in pairwise(edges):
        ending = draw.choice((".jsonl", ".csv", ".parquet"))
        rest = [event for event in events[start:end] if ending != ".csv" or not _fits_csv(event)]
        files += [(ending, [event for event in events[start:end] if ending == ".csv" and _fits_csv(event)])]
        files += [(".jsonl" if ending == ".csv" else ending, rest)]
    return [(ending, part) for ending, part in files if part]


def _fits_csv(event: Mapping[str, Any]) -> bool:
    """Tell whether CSV has a place for an event: it knows no lists, and no empty text beside nothing at all."""
    return "tags" not in event and event.get("sku") != ""
