"""Describes the trigger document to the registry of kinds."""

from __future__ import annotations

from rules_engine.rules.document import DocumentKind
from rules_engine.rules.triggers.codec import decode_triggers, encode_triggers
from rules_engine.rules.triggers.nodes import hidden_segments, payload_features
from rules_engine.rules.triggers.parse import parse_trigger
from rules_engine.rules.triggers.schema import CASE, EDITOR_RULES, ENVELOPE, describe_parts

TRIGGER = DocumentKind(
    name="trigger",
    envelope=ENVELOPE,
    parse=parse_trigger,
    conditions=lambda triggers: hidden_segments(triggers.values()),
    features=lambda triggers: payload_features(triggers.values()),
    schema=describe_parts,
    editor_rules=EDITOR_RULES,
    encode=encode_triggers,
    decode=decode_triggers,
    plan_parts={"triggers": "triggers"},
    case=CASE,
)
