"""Read the conformance cases."""

from __future__ import annotations

import re
import struct
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

import yaml

HERE = Path(__file__).parent
NOON = "2024-01-01T12:00:00Z"
VERDICTS: dict[Any, bool | None] = {True: True, False: False, "unknown": None}
KEYS = {
    *(
        "name",
        "types",
        "segments",
        "condition",
        "features",
        "context",
        "events",
        "updated_at",
        "ttl",
        "now",
        "entity",
        "properties",
    ),
    *("expect", "changes_at", "rows", "is"),
}


class CoreLoader(yaml.CSafeLoader):
    """PyYAML with the scalars of YAML 1.2's core schema."""

    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012 - PyYAML's own class attribute, emptied


def _construct_int(loader: yaml.CSafeLoader, node: yaml.ScalarNode) -> int:
    text = str(loader.construct_scalar(node))
    return int(text, 0) if text[:2] in ("0o", "0x") else int(text)


for _tag, _pattern, _first in (
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("bool", r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    ("int", r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+", list("-+0123456789")),
    ("float", r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?", list("-+.0123456789")),
    ("float", r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)", list("-+.")),
):
    CoreLoader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(f"(?:{_pattern})\\Z"), _first)
CoreLoader.add_constructor("tag:yaml.org,2002:int", _construct_int)


@dataclass(frozen=True)
class Case:
    """One case: a condition, the data that it is judged on, and what must come out."""

    name: str
    file: str
    condition: Mapping[str, Any]
    expect: bool | None
    now: datetime
    features: Mapping[str, Any] = field(default_factory=dict)
    context: Mapping[str, Any] = field(default_factory=dict)
    events: tuple[Mapping[str, Any], ...] = ()
    types: Mapping[str, str] = field(default_factory=dict)
    segments: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    updated_at: Mapping[str, datetime] = field(default_factory=dict)
    ttl: Mapping[str, str] = field(default_factory=dict)
    entity: str | None = None
    properties: Mapping[str, Any] = field(default_factory=dict)
    judges_change: bool = False
    changes_at: datetime | None = None

    def __str__(self) -> str:
        return f"{self.file}: {self.name}"

    def data(self) -> dict[str, Any]:
        """Return what the condition is judged on, as keyword arguments; only what the case gives."""
        given = {
            name: getattr(self, name)
            for name in (
                "features",
                "context",
                "events",
                "types",
                "segments",
                "updated_at",
                "ttl",
                "entity",
                "properties",
            )
            if getattr(self, name)
        }
        return {**given, "now": self.now}


def read_yaml(path: Path) -> Any:
    return yaml.load(path.read_text(encoding="utf-8"), CoreLoader)


@cache
def load_cases() -> tuple[Case, ...]:
    """Return every case of this folder, in the order of files and of their text."""
    cases = tuple(
        read_case(row, path.stem)
        for path in sorted(HERE.glob("*.yaml"))
        if path.name != "catalog.yaml"
        for group in read_yaml(path)
        for row in rows_of(group)
    )
    twice = sorted(name for name, count in Counter(map(str, cases)).items() if count > 1)
    if twice:
        raise ValueError(f"names of cases are given twice: {twice}")
    return cases


def rows_of(group: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the cases of an entry: itself, or one for each of its rows."""
    if "rows" not in group:
        return [dict(group)]
    shared = {key: value for key, value in group.items() if key != "rows"}
    return [{**shared, **row, "name": f"{group['name']}: {row['is']}"} for row in group["rows"]]


def read_case(data: Mapping[str, Any], file: str) -> Case:
    unknown = set(data) - KEYS
    if unknown:
        raise ValueError(f"{file}: {data['name']}: unknown keys {sorted(unknown)}")
    types = data.get("types", {})
    change = data.get("changes_at")
    return Case(
        name=data["name"],
        file=file,
        condition=data["condition"],
        expect=VERDICTS[data["expect"]],
        now=instant(data.get("now", NOON)),
        features={name: feature(value, types.get(name, "")) for name, value in data.get("features", {}).items()},
        context={name: value_of(value) for name, value in data.get("context", {}).items()},
        events=tuple(read_event(event) for event in data.get("events", [])),
        types=types,
        segments=data.get("segments", {}),
        updated_at={view: instant(text) for view, text in data.get("updated_at", {}).items()},
        ttl=data.get("ttl", {}),
        entity=data.get("entity"),
        properties=data.get("properties", {}),
        judges_change="changes_at" in data,
        changes_at=None if change in (None, "never") else instant(change),
    )


def instant(text: str) -> datetime:
    found = datetime.fromisoformat(text)
    if found.tzinfo is None:
        raise ValueError(f"{text} has no offset")
    return found.astimezone(UTC)


def read_event(data: Mapping[str, Any]) -> dict[str, Any]:
    return {name: instant(value) if name == "at" else value_of(value) for name, value in data.items()}


def value_of(value: Any) -> Any:
    """Return a value of the context or of a property."""
    if isinstance(value, Mapping) and set(value) == {"time"}:
        return instant(value["time"])
    if isinstance(value, Mapping) and set(value) == {"bytes"}:
        return bytes.fromhex(value["bytes"])
    return value


def feature(value: Any, type_name: str) -> Any:
    """Return the value that the store would give for a feature of this type."""
    if isinstance(value, list):
        element = type_name.removeprefix("Array(").removesuffix(")")
        return [feature(item, element) for item in value]
    if type_name == "UnixTimestamp" and isinstance(value, str):
        return instant(value)
    if type_name == "Float32" and value is not None:
        return struct.unpack("f", struct.pack("f", value))[0]
    return value_of(value)
