"""Describes the segment document to the registry of kinds."""

from __future__ import annotations

from rules_engine.rules.document import DocumentKind
from rules_engine.rules.program import Program
from rules_engine.rules.segments.checks import find_cycles
from rules_engine.rules.segments.codec import decode_program, encode_program
from rules_engine.rules.segments.lists import SCHEMA
from rules_engine.rules.segments.parse import parse_segment
from rules_engine.rules.segments.schema import CASE, EDITOR_RULES, ENVELOPE

SEGMENT = DocumentKind(
    name="segment",
    envelope=ENVELOPE,
    parse=parse_segment,
    check=find_cycles,
    conditions=lambda segments: segments,
    encode=lambda segments: {"segments": encode_program(Program(segments))},
    decode=lambda definitions: decode_program(definitions.get("segments", {})).segments,
    plan_parts={"segments": "segments"},
    schema=lambda _parts: {"list": SCHEMA},
    editor_rules=EDITOR_RULES,
    case=CASE,
)
