"""Data of known structure for the tests of clusters."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from rules_engine.clock import parse_instant
from rules_engine.ml.definition import ClusterDefinition

NOW = parse_instant("2026-03-01T00:00:00Z")


def definition(**changes: Any) -> ClusterDefinition:
    content = {
        "clusters": "user_clusters",
        "features": [
            {"feature": "habits:orders", "scale": "log", "low": "rare", "high": "frequent"},
            {"feature": "habits:basket", "low": "small basket", "high": "big basket"},
        ],
        "k": {"from": 2, "to": 6},
    }
    return ClusterDefinition.from_plain({**content, **changes})


def four_groups(users: int = 400, seed: int = 1) -> pd.DataFrame:
    """Four groups far apart: few or many orders, small or big baskets."""
    random = np.random.default_rng(seed)
    orders = np.where(np.arange(users) % 2 == 0, random.integers(1, 3, users), random.integers(60, 80, users))
    basket = np.where(np.arange(users) // 2 % 2 == 0, random.normal(10, 1, users), random.normal(90, 4, users))
    index = pd.Index([f"u{number:04d}" for number in range(users)], name="user_id")
    return pd.DataFrame({"habits:orders": orders, "habits:basket": basket}, index=index)
