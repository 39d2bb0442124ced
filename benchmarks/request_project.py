"""A synthetic project for the benchmark of requests: Feast's own Redis store with 100 features of 1,000 users.

It is made once, in ``.segments/benchmarks/``, by Feast's own commands, and kept for the next run.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pandas as pd

from benchmarks.workload import CHOICES, Column, draw_predicate
from rules_engine.features.feast.repo import FeastRepo
from rules_engine.features.feast_import import import_feast, quiet
from rules_engine.folders import Project
from rules_engine.read_plan import ReadPlan
from rules_engine.redis.embedded import EmbeddedStore
from rules_engine.rules.load import Definitions
from rules_engine.rules.nodes import AllOf, AnyOf, Condition, Segment
from rules_engine.rules.program import Program
from rules_engine.sdk.rules import encode_definitions

ROOT = Path(__file__).parents[1] / ".segments" / "benchmarks" / "requests"
USERS = 1_000
VIEWS = 4
_FEAST_TYPES = {"string": "String", "integer": "Int64", "number": "Float64", "boolean": "Bool"}
_SCALES = (1, 5, 20, 60, 365)

_YAML = """\
project: requests
provider: local
registry: ../.segments/registry.db
offline_store: {type: duckdb}
online_store: {type: redis, connection_string: "%s"}
entity_key_serialization_version: 3
"""

_HEAD = """\
from datetime import timedelta

from feast import Entity, FeatureView, Field, FileSource, ValueType
from feast.types import Bool, Float64, Int64, String

user = Entity(name="user", join_keys=["user_id"], value_type=ValueType.STRING)
source = FileSource(name="nothing", path="nothing.parquet", timestamp_field="event_timestamp")
"""


def _columns() -> list[Column]:
    """A hundred features: of every four a string, a whole number, an amount and a flag."""
    words = list(CHOICES)
    made: list[Column] = []
    for number in range(25):
        scale = _SCALES[number % len(_SCALES)]
        made.append(Column(f"{words[number % len(words)]}{number}", "string"))
        made.append(Column(f"count{number}", "integer", scale))
        made.append(Column(f"amount{number}", "number", scale))
        made.append(Column(f"flag{number}", "boolean"))
    return [
        Column(column.name, column.kind, column.scale, f"view{at * VIEWS // 100}") for at, column in enumerate(made)
    ]


COLUMNS = _columns()


def program(features: int, segments: int) -> Program:
    """So many segments that together read exactly the first so many features."""
    rng = random.Random(features * segments)
    least = -(-features // segments)
    deck: list[Column] = []
    made = {}
    for number in range(segments):
        size = max(rng.randint(3, 6), least)
        while len(deck) < size:
            deck += rng.sample(COLUMNS[:features], features)
        leaves: list[Condition] = [draw_predicate(deck.pop(0), rng) for _ in range(size)]
        name = f"segment_{number:04d}"
        # Conditions of many features are mostly alternatives: all at once would be true of nobody.
        alternatives = AnyOf(tuple(leaves[: max(2, size - 2)]))
        made[name] = Segment(name, AllOf((alternatives, *leaves[max(2, size - 2) :])))
    return Program(made)


@dataclass
class Made:
    """The project, and what Feast knows of it."""

    project: Project
    plan: ReadPlan
    repo: FeastRepo

    def with_rules(self, features: int, segments: int) -> Path:
        """The folder of a project with the same store and other rules, as far as requests need one."""
        root = self.project.root / "plans" / f"{features}x{segments}"
        fields = {
            **vars(self.plan),
            "definitions": encode_definitions(Definitions({"segment": program(features, segments).segments})),
        }
        ReadPlan(**{name: fields[name] for name in ReadPlan.__dataclass_fields__}).save(Project(root).read_plan)
        return root


def make() -> Made:
    """The project: found, or made."""
    import_feast()
    store = EmbeddedStore(ROOT)
    ROOT.mkdir(parents=True, exist_ok=True)
    store.ensure_running()
    (ROOT / "feature_repo").mkdir(exist_ok=True)
    (ROOT / "segments").mkdir(exist_ok=True)
    (ROOT / "feature_repo" / "feature_store.yaml").write_text(_YAML % store.connection_string, encoding="utf-8")
    (ROOT / "feature_repo" / "definitions.py").write_text(_definitions(), encoding="utf-8")
    (ROOT / "segments" / "empty.yaml").write_text("", encoding="utf-8")
    project = Project.open(ROOT)
    repo = FeastRepo(project)
    repo.apply()
    written = ROOT / ".segments" / "written"
    if not written.exists():
        _write(repo)
        written.touch()
    return Made(
        project,
        repo.read_plan(encode_definitions(Definitions({"segment": program(30, 100).segments})), applied_at=0),
        repo,
    )


def _definitions() -> str:
    text = _HEAD
    for number in range(VIEWS):
        fields = [
            f"        Field(name={column.name!r}, dtype={_FEAST_TYPES[column.kind]}),\n"
            for column in COLUMNS
            if column.view == f"view{number}"
        ]
        text += (
            f'\nview{number} = FeatureView(\n    name="view{number}", entities=[user], source=source, '
            f"ttl=timedelta(days=36500),\n    schema=[\n{''.join(fields)}    ],\n)\n"
        )
    return text


def _write(repo: FeastRepo) -> None:
    rng = random.Random(1)
    at = datetime(2026, 3, 1, 12, 30, 15, 123456, tzinfo=UTC)  # with a fraction, as rows have
    for number in range(VIEWS):
        columns = [column for column in COLUMNS if column.view == f"view{number}"]
        frame = pd.DataFrame(
            {
                "user_id": [str(user) for user in range(USERS)],
                "event_timestamp": [at] * USERS,
                **{column.name: [column.draw(rng) for _ in range(USERS)] for column in columns},
            }
        )
        with quiet():
            repo.store.write_to_online_store(f"view{number}", frame)
