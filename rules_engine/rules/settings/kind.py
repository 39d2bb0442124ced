"""Describes the ``project:`` document to the registry of kinds."""

from __future__ import annotations

from rules_engine.rules.document import DocumentKind
from rules_engine.rules.settings.codec import decode_settings, encode_settings
from rules_engine.rules.settings.nodes import Settings
from rules_engine.rules.settings.parse import parse_settings
from rules_engine.rules.settings.schema import ENVELOPE, describe_parts

PROJECT = DocumentKind(
    name="project",
    single=True,
    envelope=ENVELOPE,
    parse=parse_settings,
    schema=describe_parts,
    encode=lambda named: encode_settings(next(iter(named.values()), Settings())),
    decode=lambda definitions: {"": decode_settings(definitions)},
    plan_parts={
        "consents": "consent",
        "sinks": "sinks",
        "settings of the service": "service",
        "frequency limits": "frequency",
        "holdout": "holdout",
    },
)
