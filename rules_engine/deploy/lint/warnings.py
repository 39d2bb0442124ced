"""The warnings about the documents of every kind."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from rules_engine.deploy.lint.segments import lint_segments
from rules_engine.deploy.lint.settings import lint_settings
from rules_engine.deploy.lint.triggers import lint_triggers
from rules_engine.diagnostics import Diagnostic
from rules_engine.rules.kinds import for_every_kind
from rules_engine.rules.load import Definitions

_LINTS: Mapping[str, Callable[[Definitions], Iterable[Diagnostic]]] = for_every_kind(
    "warnings", {"project": lint_settings, "segment": lint_segments, "trigger": lint_triggers}
)


def lint(definitions: Definitions) -> list[Diagnostic]:
    r"""Return the warnings about definitions, in the order of the files.

    >>> from rules_engine.rules.catalog import Catalog
    >>> from rules_engine.rules.load import load_text
    >>> text = "segment: a\nwhen: {any: [{feature: u:x, at_least: 1}, {feature: u:x, at_least: 5}]}"
    >>> [warning.code for warning in lint(load_text(text, Catalog(closed=False)))]
    ['shadowed-condition']
    """
    found = [warning for lint_kind in _LINTS.values() for warning in lint_kind(definitions)]
    return sorted(found, key=lambda warning: (warning.span.file, warning.span.line, warning.span.column))
