"""Defines where actions go: one module for each kind of sink under ``kinds/``, and what a kind has to declare.

Begin with ``kinds/file.py``, the shortest; ``settings.py`` says how a setting is declared. A module holds all of its
kind: settings with their checks, warnings, the text for editors, and the class that sends. ``registry.py`` finds the
modules, and those that other packages bring as entry points of the group ``feast_segments.sinks``: docs/sinks.md has an
example. May import the clock, the errors and the diagnostics; the language above reads what is declared here.
"""

from rules_engine.sinks.base import BEHIND, DELIVERED, Message, Outcome, Sink, Verdict
from rules_engine.sinks.registry import GROUP, sink_kinds
from rules_engine.sinks.settings import (
    GIVE_UP_AFTER,
    SettingError,
    SinkSettings,
    SinkWarning,
    duration,
    flag,
    text,
    texts,
    words,
)

__all__ = [
    "BEHIND",
    "DELIVERED",
    "GIVE_UP_AFTER",
    "GROUP",
    "Message",
    "Outcome",
    "SettingError",
    "Sink",
    "SinkSettings",
    "SinkWarning",
    "Verdict",
    "duration",
    "flag",
    "sink_kinds",
    "text",
    "texts",
    "words",
]
