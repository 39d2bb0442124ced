"""The JSON Schema of a metric's document."""

from __future__ import annotations

from rules_engine.definitions.envelope import NAME_PATTERN
from rules_engine.rules.aggregates import AGGREGATES, Aggregate
from rules_engine.rules.metrics.nodes import Goal
from rules_engine.rules.metrics.parse import HEADS
from rules_engine.rules.schema_parts import DURATION, JsonSchema, SchemaParts, mapping_schema

#: A metric counts one thing.
EDITOR_RULES: JsonSchema = {"oneOf": [{"required": [head]} for head in HEADS]}


def _of_aggregate(aggregate: Aggregate) -> JsonSchema:
    kind = "metric_count" if aggregate is Aggregate.COUNT else "metric_aggregate"
    return {"x-kind": kind, "description": f"The mean of units: {AGGREGATES[aggregate].summary}."}


ENVELOPE: JsonSchema = {
    "type": "object",
    "description": "What is measured of those who were exposed to an experiment.",
    "required": ["metric"],
    "additionalProperties": False,
    "properties": {
        "metric": {
            "type": "string",
            "pattern": NAME_PATTERN,
            "description": "The metric's name: small letters, digits and underscores.",
        },
        "description": {"type": "string", "description": "What it says, for people."},
        "owner": {"type": "string", "description": "Whom to ask about it."},
        "tags": {"type": "array", "items": {"type": "string"}, "description": "Words to find it by."},
        "did": {"x-kind": "event_name", "description": "The share of units that did this."},
        "where": {"x-kind": "where", "description": "Which of these events count."},
        "retained": {"x-kind": "retained", "description": "The share of units that did it some time after."},
        "ratio": {"x-kind": "ratio", "description": "The sum of a metric by the sum of another."},
        **{aggregate.value: _of_aggregate(aggregate) for aggregate in Aggregate},
        "within": {"x-kind": "duration", "description": "How long it is counted, from the first exposure on."},
        "cap": {"x-kind": "metric_cap", "description": "Greater values count as this percentile of all units."},
        "goal": {
            "enum": [goal.value for goal in Goal],
            "description": "In which direction it gets better; `increase` if it is not given.",
        },
    },
}


def describe_parts(parts: SchemaParts) -> dict[str, JsonSchema]:
    """Return by ``x-kind`` of the envelope what stands there."""
    events: list[str | None] = [*sorted(parts.catalog.events)] if parts.catalog.closed else [None]
    metrics: JsonSchema = {"type": "string", "examples": sorted(parts.names.of("metric"))}

    def name(event: str | None) -> JsonSchema:
        return {"const": event} if event else {"type": "string"}

    def of(event: str | None) -> JsonSchema:
        declared = sorted(parts.catalog.events[event].properties) if event else []
        return {"enum": declared} if declared else {"type": "string"}

    def any_of(each: list[JsonSchema]) -> JsonSchema:
        return {"type": "object", "anyOf": each} if each else {"not": {}}

    counts = [mapping_schema({"event": name(event), "where": parts.where(event)}, ("event",)) for event in events]
    sums = [
        mapping_schema({"event": name(event), "of": of(event), "where": parts.where(event)}, ("event", "of"))
        for event in events
    ]
    retained = [
        mapping_schema(
            {"did": name(event), "where": parts.where(event), "after": DURATION, "within": DURATION},
            ("did", "after", "within"),
        )
        for event in events
    ]
    percentile: JsonSchema = {"type": "number", "minimum": 50, "exclusiveMaximum": 100}
    return {
        "metric_count": any_of(counts),
        "metric_aggregate": any_of(sums),
        "retained": any_of(retained),
        "ratio": {"type": "array", "minItems": 2, "maxItems": 2, "items": metrics},
        "metric_cap": mapping_schema({"percentile": percentile}),
    }
