"""A small shop whose customers buy by a rule that is known: what models are tested with."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from rules_engine.clock import DAY, parse_instant
from rules_engine.ml.propensity.definition import ModelDefinition
from rules_engine.ml.propensity.fit import Material
from rules_engine.ml.propensity.training import TrainingRows
from rules_engine.rules.types import FLOAT, INTEGER, STRING, TIME, Kind, ValueType

NOW = parse_instant("2026-07-01T00:00:00Z")
CUTS = ("2026-01-01T00:00:00Z", "2026-02-01T00:00:00Z", "2026-03-01T00:00:00Z", "2026-05-01T00:00:00Z")
TYPES = {
    "habits:recency": INTEGER,
    "habits:orders": INTEGER,
    "habits:basket": FLOAT,
    "habits:city": STRING,
    "habits:member": ValueType(Kind.BOOLEAN),
    "habits:joined": TIME,
}


def plain(**changes: Any) -> dict[str, Any]:
    """A definition as YAML gives it."""
    content = {
        "model": "propensity",
        "target": {"new_row": "orders", "within": "30d"},
        "features": [
            "habits:recency",
            {"feature": "habits:orders", "scale": "log"},
            "habits:basket",
            "habits:city",
            "habits:member",
            "habits:joined",
        ],
        "cuts": list(CUTS),
        "test_cuts": 1,
        "algorithms": {"logistic_regression": {"C": 1}},
        "search": {"folds": 2},
        "baseline": {"recency": "habits:recency", "frequency": "habits:orders"},
        "subgroups": ["habits:city", "habits:basket"],
    }
    return {name: value for name, value in {**content, **changes}.items() if value is not None}


def definition(**changes: Any) -> ModelDefinition:
    """A checked definition."""
    return ModelDefinition.from_plain(plain(**changes))


def rows(users: int = 1500, cuts: int = 3, seed: int = 0, first: int = 0) -> TrainingRows:
    """Users at cuts. Who came lately, orders often and lives by the sea buys; the basket says nothing."""
    random = np.random.default_rng(seed)
    size = users * cuts
    values: dict[str, Any] = {
        "habits:recency": random.integers(0, 200, size).astype(float),
        "habits:orders": random.geometric(0.3, size).astype(float),
        "habits:basket": np.where(random.random(size) < 0.2, np.nan, random.gamma(2, 20, size)),
        "habits:city": random.choice(
            np.array(["bergen", "oslo", None, "rare"], dtype=object), size, p=[0.5, 0.3, 0.19, 0.01]
        ),
        "habits:member": random.choice(np.array([0.0, 1.0, np.nan]), size),
        "habits:joined": random.uniform(0, 900, size),
    }
    odds = 1.5 * np.log1p(values["habits:orders"]) - 0.02 * values["habits:recency"] - 1.5
    odds = odds + np.where(values["habits:city"] == "bergen", 2.0, 0.0)
    did = random.random(size) < 1 / (1 + np.exp(-odds))
    at = np.repeat(np.arange(first, first + cuts) * 30 * DAY, users)
    names = np.tile(np.array([f"u{number:05d}" for number in range(users)], dtype=object), cuts)
    return TrainingRows(names, at, values, did)


def material(users: int = 1500, seed: int = 0) -> Material:
    """Three cuts to learn from, and a later one to judge on."""
    return Material(rows(users, 3, seed), rows(users, 1, seed + 1, first=6), (4 * 30 * DAY,), TYPES)


def values_of_user(found: TrainingRows, at: int, now: int) -> dict[str, Any]:
    """A row as the online store has it: times as instants, nothing for what is missing."""
    values: dict[str, Any] = {}
    for name, column in found.values.items():
        value = column[at]
        if value is None or (isinstance(value, float) and np.isnan(value)):
            values[name] = None
        elif name == "habits:joined":
            values[name] = now - round(float(value) * DAY)
        elif name == "habits:member":
            values[name] = bool(value)
        else:
            values[name] = value if isinstance(value, str) else float(value)
    return values


def with_whole_ages(found: TrainingRows) -> TrainingRows:
    """The rows with ages that are whole microseconds, so that an instant says them exactly."""
    ages = np.round(found.values["habits:joined"] * DAY) / DAY
    return replace(found, values={**found.values, "habits:joined": ages})
