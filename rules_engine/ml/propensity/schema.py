"""The JSON Schema of a document of kind ``model:`` in ``feature_repo/models.yaml``."""

from __future__ import annotations

from typing import Any

from rules_engine.definitions.envelope import NAME_PATTERN

#: How a number enters a linear model.
SCALES = ("standard", "log")
CALIBRATIONS = ("none", "sigmoid", "isotonic")
SCORES = ("average_precision", "roc_auc", "brier")
SEARCHES = ("grid", "random")

_FEATURE = {"type": "string", "description": "VIEW:NAME."}


def _several(kind: dict[str, Any], description: str) -> dict[str, Any]:
    """Return the schema of one value, or a list of values to try."""
    return {
        "anyOf": [kind, {"type": "array", "minItems": 1, "maxItems": 20, "items": kind}],
        "description": description + " One value, or a list to try.",
    }


def _whole(low: int, high: int) -> dict[str, Any]:
    return {"type": "integer", "minimum": low, "maximum": high}


def _positive(high: float) -> dict[str, Any]:
    return {"type": "number", "exclusiveMinimum": 0, "maximum": high}


#: By algorithm, the parameters that may be set, which are scikit-learn's.
PARAMETERS: dict[str, dict[str, Any]] = {
    "logistic_regression": {"C": _several(_positive(1e6), "How weakly weights are held back.")},
    "random_forest": {
        "n_estimators": _several(_whole(1, 2000), "Trees."),
        "max_depth": _several(_whole(1, 30), "Levels of a tree."),
        "min_samples_leaf": _several(_whole(1, 100_000), "Rows in a leaf."),
    },
    "gradient_boosting": {
        "learning_rate": _several(_positive(1), "How much each tree counts."),
        "max_iter": _several(_whole(1, 2000), "Trees."),
        "max_leaf_nodes": _several(_whole(2, 255), "Leaves of a tree."),
        "min_samples_leaf": _several(_whole(1, 100_000), "Rows in a leaf."),
        "l2_regularization": _several({"type": "number", "minimum": 0, "maximum": 1e6}, "How leaves are held back."),
    },
}

#: What is tried where the definition names an algorithm and no values.
DEFAULTS: dict[str, dict[str, tuple[float, ...]]] = {
    "logistic_regression": {"C": (0.01, 0.1, 1.0, 10.0)},
    "random_forest": {"n_estimators": (100,), "max_depth": (6, 10), "min_samples_leaf": (20,)},
    "gradient_boosting": {
        "learning_rate": (0.05, 0.1),
        "max_iter": (100,),
        "max_leaf_nodes": (7, 15),
        "min_samples_leaf": (50,),
        "l2_regularization": (0.0,),
    },
}

SCHEMA: dict[str, Any] = {
    "type": "object",
    "description": "How likely a user is to do something within a horizon.",
    "required": ["model", "target", "features", "cuts", "baseline"],
    "additionalProperties": False,
    "properties": {
        "model": {"type": "string", "pattern": NAME_PATTERN, "description": "The feature view that holds the scores."},
        "description": {"type": "string", "description": "What is predicted and what for, for people."},
        "target": {
            "type": "object",
            "required": ["within"],
            "additionalProperties": False,
            "oneOf": [{"required": ["did"]}, {"required": ["new_row"]}],
            "description": "What is predicted: that this happens within a horizon after the cut.",
            "properties": {
                "did": {"type": "string", "description": "An event of events.yaml."},
                "where": {"type": "object", "description": "Which of these events count, as in a segment."},
                "new_row": {"type": "string", "description": "A feature view whose source gets a row when it happens."},
                "within": {"type": "string", "description": "The horizon, e.g. 90d."},
            },
        },
        "features": {
            "type": "array",
            "minItems": 1,
            "maxItems": 500,
            "description": "What the model may look at, as of the cut.",
            "items": {
                "anyOf": [
                    _FEATURE,
                    {
                        "type": "object",
                        "required": ["feature"],
                        "additionalProperties": False,
                        "properties": {
                            "feature": _FEATURE,
                            "scale": {"enum": list(SCALES), "description": "log: log(1 + x), for skewed counts."},
                        },
                    },
                ]
            },
        },
        "population": {"type": "string", "description": "Who is scored: a segment, as of the cut. Default: everyone."},
        "cuts": {
            "anyOf": [
                {"type": "array", "minItems": 2, "maxItems": 200, "items": {"type": "string"}},
                {
                    "type": "object",
                    "required": ["every", "count"],
                    "additionalProperties": False,
                    "properties": {
                        "every": {"type": "string", "description": "How far apart, e.g. 30d."},
                        "count": _whole(2, 200),
                    },
                },
            ],
            "description": "A list of instants, or so many up to the last whose horizon is over.",
        },
        "test_cuts": {**_whole(1, 100), "description": "How many of the last cuts the model is judged on. Default: 1."},
        "algorithms": {
            "type": "object",
            "minProperties": 1,
            "additionalProperties": False,
            "description": "What is tried. Default: logistic_regression and gradient_boosting.",
            "properties": {
                name: {"type": "object", "additionalProperties": False, "properties": parameters}
                for name, parameters in PARAMETERS.items()
            },
        },
        "search": {
            "type": "object",
            "additionalProperties": False,
            "description": "How parameters are chosen, by cross-validation on the training cuts.",
            "properties": {
                "kind": {"enum": list(SEARCHES), "description": "grid tries all, random draws some."},
                "tries": {**_whole(1, 500), "description": "How many random draws."},
                "folds": {**_whole(2, 20), "description": "A user's rows are all in one fold."},
                "score": {"enum": list(SCORES), "description": "What decides."},
                "rows": {**_whole(100, 10_000_000), "description": "The search looks at a sample of so many rows."},
            },
        },
        "calibration": {"enum": list(CALIBRATIONS), "description": "So that 0.2 means one in five. Default: sigmoid."},
        "baseline": {
            "type": "object",
            "required": ["recency", "frequency"],
            "additionalProperties": False,
            "description": "What every fit is compared with: recency and frequency alone.",
            "properties": {"recency": _FEATURE, "frequency": _FEATURE},
        },
        "subgroups": {
            "type": "array",
            "maxItems": 20,
            "items": _FEATURE,
            "description": "Features by whose values (numbers: quarters) the test is reported group by group.",
        },
        "at_request": {
            "type": "boolean",
            "description": "Compute the score anew in each request, from the features of the same read.",
        },
        "max_rows": {
            **_whole(1000, 50_000_000),
            "description": "Training rows; of more, a share of the users is taken.",
        },
        "seed": {**_whole(0, 2**32 - 1), "description": "Equal seeds give equal models."},
    },
}
