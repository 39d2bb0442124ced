"""Describes the decision document to the registry of kinds."""

from __future__ import annotations

from rules_engine.rules.decisions.codec import decode_decisions, encode_decisions
from rules_engine.rules.decisions.nodes import hidden_segments
from rules_engine.rules.decisions.parse import parse_decision
from rules_engine.rules.decisions.schema import CASE, ENVELOPE, describe_parts
from rules_engine.rules.document import DocumentKind

DECISION = DocumentKind(
    name="decision",
    envelope=ENVELOPE,
    parse=parse_decision,
    conditions=lambda decisions: hidden_segments(decisions.values()),
    schema=describe_parts,
    encode=encode_decisions,
    decode=decode_decisions,
    plan_parts={"decisions": "decisions"},
    case=CASE,
)
