"""Describes the metric document to the registry of kinds."""

from __future__ import annotations

from rules_engine.rules.document import DocumentKind
from rules_engine.rules.metrics.codec import decode_metrics, encode_metrics
from rules_engine.rules.metrics.parse import find_circular_ratios, parse_metric
from rules_engine.rules.metrics.schema import EDITOR_RULES, ENVELOPE, describe_parts

METRIC = DocumentKind(
    name="metric",
    envelope=ENVELOPE,
    parse=parse_metric,
    check=find_circular_ratios,
    schema=describe_parts,
    editor_rules=EDITOR_RULES,
    encode=encode_metrics,
    decode=decode_metrics,
    plan_parts={"metrics": "metrics"},
)
