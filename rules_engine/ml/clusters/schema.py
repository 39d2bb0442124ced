"""The JSON Schema of a document of kind ``clusters:``, and the words that it allows."""

from __future__ import annotations

from functools import cache
from typing import Any

from rules_engine.definitions.envelope import NAME_PATTERN
from rules_engine.ml.clusters.algorithms.table import DEFAULT, algorithms, settings
from rules_engine.ml.transforms.columns import transforms

SCALES = {
    "standard": "mean 0, deviation 1",
    "log": "the same of log(1 + x), for skewed counts and money",
    "robust": "median 0, middle half 1, for a few extreme users",
    "min_max": "from 0 to 1",
}
MISSING = ("leave_out", "mean", "median", "knn", "iterative")
CHOICES = ("silhouette", "davies_bouldin", "elbow", "bic")

MAX_K = 50

_WORD = {"type": "string", "minLength": 1, "maxLength": 40}
_COUNT = {"type": "integer", "minimum": 2, "maximum": MAX_K}
_PERCENT = {
    "x-hint": "write a percentage, such as 20%",
    "type": "string",
    "pattern": r"^(100|[0-9]{1,2}(\.[0-9]{1,3})?)%$(?!\n)",
}


def _feature() -> dict[str, Any]:
    """Return the schema of one feature, with the scales and transforms that there are."""
    brought = {
        name: (transform.__doc__ or "").splitlines()[0]
        for name, transform in transforms().items()
        if name not in SCALES
    }
    scales = {**SCALES, **brought}
    described = " ".join(f"{name}: {text.rstrip('.')}." for name, text in scales.items())
    return {
        "type": "object",
        "required": ["feature"],
        "additionalProperties": False,
        "properties": {
            "feature": {"type": "string", "description": "VIEW:NAME of a number."},
            "scale": {
                "enum": list(scales),
                "description": f"Default: standard. {described}",
            },
            "low": {**_WORD, "description": "A word for users with little of it, for the clusters' names."},
            "high": {**_WORD, "description": "A word for users with much of it, for the clusters' names."},
        },
    }


_PREPROCESSING: dict[str, Any] = {
    "missing": {
        "enum": list(MISSING),
        "description": "Users who lack a feature. leave_out: they get no label. mean, median: of all users. "
        "knn: the mean of the five most similar users. iterative: what the other features predict, in rounds.",
    },
    "pca": {
        "type": "object",
        "minProperties": 1,
        "maxProperties": 1,
        "additionalProperties": False,
        "properties": {
            "components": {"type": "integer", "minimum": 1, "description": "How many principal components are kept."},
            "variance": {**_PERCENT, "description": "As many components as keep this share of the variance, e.g. 90%."},
        },
        "description": "Group users by principal components of the scaled features, where many features say the same.",
    },
}

_METHOD: dict[str, Any] = {
    "k": {
        "type": "object",
        "required": ["from", "to"],
        "additionalProperties": False,
        "properties": {"from": _COUNT, "to": _COUNT},
        "x-hint": "write e.g. {from: 5, to: 5} for five clusters, or {from: 3, to: 8}",
        "description": "How many clusters there may be; `choose_by` decides.",
    },
    "choose_by": {
        "enum": list(CHOICES),
        "description": "What decides the number of clusters. Default: silhouette.",
    },
    "sample": {
        "type": "integer",
        "minimum": 100,
        "maximum": 10_000_000,
        "description": "The most users that are fitted: a fixed part of all, by their key. "
        "The others are only labelled.",
    },
    "seed": {
        "type": "integer",
        "minimum": 0,
        "maximum": 2**32 - 1,
        "description": "Equal seeds give equal clusters.",
    },
}

_LABELS: dict[str, Any] = {
    "order_by": {
        "type": "string",
        "description": "Clusters are numbered by the mean of this feature, highest first.",
    },
    "max_moved": {
        **_PERCENT,
        "description": "A refit that moves more users than this to another cluster is refused, e.g. 20%.",
    },
    "names": {
        "type": "array",
        "description": "Names for clusters, instead of the proposed ones. A cluster keeps its number at a refit.",
        "items": {
            "type": "object",
            "required": ["cluster", "label"],
            "additionalProperties": False,
            "properties": {
                "cluster": {"type": "integer", "minimum": 1, "description": "The cluster's number."},
                "label": {"type": "string", "minLength": 1, "maxLength": 80, "description": "Its name."},
            },
        },
    },
}


@cache
def schema() -> dict[str, Any]:
    """Return the JSON Schema, with the algorithms that there are and their settings."""
    available = algorithms()
    described = " ".join(
        f"{name}: {(algorithm.__doc__ or '').splitlines()[0]}" for name, algorithm in available.items()
    )
    return {
        "type": "object",
        "description": "Groups of users that are found in the data.",
        "required": ["clusters", "features"],
        "additionalProperties": False,
        "properties": {
            "clusters": {
                "type": "string",
                "pattern": NAME_PATTERN,
                "description": "The feature view that holds the labels.",
            },
            "description": {"type": "string", "description": "What the groups are for, for people."},
            "features": {
                "type": "array",
                "minItems": 2,
                "description": "The numbers that users are grouped by. All count alike.",
                "items": _feature(),
            },
            **_PREPROCESSING,
            "algorithm": {
                "enum": list(available),
                "description": f"How groups are found. Default: {DEFAULT}. {described}",
            },
            **_METHOD,
            **{key: dict(setting.schema) for key, setting in settings().items()},
            **_LABELS,
        },
    }
