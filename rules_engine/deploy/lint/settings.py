"""Warnings about a project's settings."""

from __future__ import annotations

from collections.abc import Iterator

from rules_engine.diagnostics import Diagnostic, Severity, nearest
from rules_engine.rules.load import Definitions


def lint_settings(definitions: Definitions) -> Iterator[Diagnostic]:
    """Yield a warning for each sink that nothing is sent to, those that its kind has, and for tags that nothing has."""
    used = {sink.name for trigger in definitions.triggers.values() for sink in trigger.send}
    for sink in definitions.settings.sinks.values():
        if sink.name not in used:
            message, hint = f"no trigger sends to `{sink.name}`", "remove it, or name it in `send`"
            yield Diagnostic("unused-sink", sink.span, message, hint, Severity.WARNING)
        for warning in sink.warnings():
            yield Diagnostic(warning.code, sink.span, warning.message, warning.hint, Severity.WARNING)
    yield from _unused_tags(definitions)


def _unused_tags(definitions: Definitions) -> Iterator[Diagnostic]:
    tags = {tag for trigger in definitions.triggers.values() for tag in trigger.tags}
    for limit in definitions.settings.frequency:
        if limit.tag is not None and limit.tag not in tags:
            message = f"no trigger has the tag `{limit.tag}`, so `frequency` limits nothing by it"
            hint = nearest(limit.tag, tags) or "give it to a trigger, or remove the limit"
            yield Diagnostic("unused-tag", limit.span, message, hint, Severity.WARNING)
