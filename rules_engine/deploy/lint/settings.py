"""Warnings about a project's settings."""

from __future__ import annotations

from collections.abc import Iterator

from rules_engine.diagnostics import Diagnostic, Severity
from rules_engine.rules.load import Definitions


def lint_settings(definitions: Definitions) -> Iterator[Diagnostic]:
    """Yield a warning for each sink that nothing is sent to, and those that its kind has."""
    used = {sink.name for trigger in definitions.triggers.values() for sink in trigger.send}
    for sink in definitions.settings.sinks.values():
        if sink.name not in used:
            message, hint = f"no trigger sends to `{sink.name}`", "remove it, or name it in `send`"
            yield Diagnostic("unused-sink", sink.span, message, hint, Severity.WARNING)
        for warning in sink.warnings():
            yield Diagnostic(warning.code, sink.span, warning.message, warning.hint, Severity.WARNING)
