"""The JSON Schema of an experiment's document."""

from __future__ import annotations

from rules_engine.definitions.envelope import NAME_PATTERN
from rules_engine.rules.experiments.parse import MAX_ARMS
from rules_engine.rules.schema_parts import NAME, JsonSchema, SchemaParts, feature_schema, mapping_schema

ENVELOPE: JsonSchema = {
    "type": "object",
    "description": "A comparison of arms, each of which serves a variant of a decision.",
    "required": ["experiment", "arms"],
    "additionalProperties": False,
    "properties": {
        "experiment": {
            "type": "string",
            "pattern": NAME_PATTERN,
            "description": "The experiment's name: small letters, digits and underscores.",
        },
        "hypothesis": {"type": "string", "description": "What is expected, and why, for people."},
        "description": {"type": "string", "description": "What it is about, for people."},
        "owner": {"type": "string", "description": "Whom to ask about it."},
        "tags": {"type": "array", "items": {"type": "string"}, "description": "Words to find it by."},
        "arms": {
            "type": "object",
            "x-kind": "arms",
            "maxProperties": MAX_ARMS,
            "description": "What is compared. One is named `control`.",
        },
        "coverage": {"x-kind": "percent", "description": "How many percent take part; 100 if it is not given."},
        "exclusive": {
            "x-kind": "slice",
            "description": "A part of a group of experiments of which nobody takes part in two.",
        },
        "seed": {"type": "string", "description": "What buckets are counted by; the name by default."},
        "hash_version": {
            "enum": [1, 2],
            "description": "1 carries on an experiment of GrowthBook with its older hash; 2 if it is not given.",
        },
        "phase": {
            "x-kind": "phase",
            "description": "Raised when weights change while it runs: everybody is assigned, and counted, anew.",
        },
        "start": {"x-kind": "instant_or_null", "description": "When it starts. Without it, it is a draft."},
        "stop": {"x-kind": "instant_or_null", "description": "When it stops: then everybody gets the winner."},
        "winner": {"x-kind": "winner", "description": "The arm that everybody gets once it stops; else `control`."},
        "metrics": {"x-kind": "experiment_metrics", "description": "What is measured of those who take part."},
        "covariate": {
            "x-kind": "number_feature",
            "description": "A feature from before the exposure, by which results are adjusted (CUPED).",
        },
    },
}


def describe_parts(parts: SchemaParts) -> dict[str, JsonSchema]:
    """Return by ``x-kind`` of the envelope what stands there."""
    share: JsonSchema = {"type": "number", "minimum": 0, "maximum": 100}
    metric: JsonSchema = {"type": "string", "examples": sorted(parts.names.of("metric"))}
    several: JsonSchema = {"type": "array", "items": metric}
    arm = mapping_schema(
        {
            "serve": {**NAME, "description": "The variant of the decision."},
            "weight": {**share, "description": "Its share in percent; without any weight all are equal."},
        },
        ("serve",),
    )
    group = {**NAME, "description": "The group's name."}
    return {
        "arms": {"type": "object", "minProperties": 2, "propertyNames": NAME, "additionalProperties": arm},
        "percent": share,
        "slice": mapping_schema({"group": group, "from": share, "to": share}),
        "phase": {"type": "integer", "minimum": 1},
        "instant_or_null": {"type": ["string", "null"]},
        "winner": {"type": ["string", "null"]},
        "experiment_metrics": mapping_schema(
            {
                "primary": {**metric, "description": "The metric that decides."},
                "secondary": {**several, "description": "Others that are looked at."},
                "guardrails": {**several, "description": "Those that must not get worse."},
            },
            (),
        ),
        "number_feature": feature_schema(parts.catalog, None),
    }
