"""The warnings about the documents of every kind."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from rules_engine.deploy.lint.amounts import lint_amounts
from rules_engine.deploy.lint.decisions import lint_decisions
from rules_engine.deploy.lint.segments import lint_segments
from rules_engine.deploy.lint.settings import lint_settings
from rules_engine.deploy.lint.triggers import lint_triggers
from rules_engine.diagnostics import Diagnostic
from rules_engine.rules.load import Definitions

#: The warnings of each kind that has any.
_LINTS: tuple[Callable[[Definitions], Iterable[Diagnostic]], ...] = (
    lint_settings,
    lint_segments,
    lint_amounts,
    lint_decisions,
    lint_triggers,
)


def lint(definitions: Definitions) -> list[Diagnostic]:
    r"""Return the warnings about definitions, in the order of the files.

    >>> from rules_engine.rules.catalog import Catalog
    >>> from rules_engine.rules.load import load_text
    >>> text = "segment: a\nwhen: {any: [{feature: u:x, at_least: 1}, {feature: u:x, at_least: 5}]}"
    >>> [warning.code for warning in lint(load_text(text, Catalog(closed=False)))]
    ['shadowed-condition']
    """
    # A condition of a group is part of every segment after its own: what it is warned of is said once.
    warnings = {warning: None for lint_kind in _LINTS for warning in lint_kind(definitions)}
    return sorted(warnings, key=lambda warning: (warning.span.file, warning.span.line, warning.span.column))
