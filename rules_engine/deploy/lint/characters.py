"""Warnings about characters in values that the eye misses: they are allowed, but rarely intended."""

from __future__ import annotations

from collections.abc import Iterator

from rules_engine.definitions.characters import hidden_characters
from rules_engine.definitions.source import Items, Mapping, Node, Scalar, place_in
from rules_engine.diagnostics import Diagnostic, Severity

#: Keys whose values are prose.
_PROSE = frozenset({"description", "hypothesis", "name", "owner", "project", "summary"})

#: Keys of texts that are looked for inside others, where a blank at an end is often meant.
_PARTS = frozenset({"contains", "ends_with", "matches", "starts_with"})


def lint_characters(node: Node, key: str = "") -> Iterator[Diagnostic]:
    r"""Yield a warning for each character of a value that the eye misses.

    >>> from rules_engine.definitions.source import read_documents
    >>> [document], _ = read_documents("when: {feature: u:country, in: [NO\u200b, 'SE ']}", "a.yaml")
    >>> [(str(warning.span), warning.code) for warning in lint_characters(document)]
    [('a.yaml:1:35', 'invisible-character'), ('a.yaml:1:38', 'blank-at-the-end')]
    """
    if isinstance(node, Mapping):
        for entry in node:
            if entry.key not in _PROSE:
                yield from lint_characters(entry.value, entry.key)
    elif isinstance(node, Items):
        for item in node.items:
            yield from lint_characters(item, key)
    elif isinstance(node.value, str):
        yield from _of_text(node, node.value, key)


def _of_text(scalar: Scalar, text: str, key: str) -> Iterator[Diagnostic]:
    for character in hidden_characters(text):
        yield Diagnostic(
            character.code, place_in(scalar, character.index), character.message, character.hint, Severity.WARNING
        )
    if key not in _PARTS and text.strip(" \t\n") != text and text.strip():
        message = "this text begins or ends with a blank, which no other text equals"
        yield Diagnostic("blank-at-the-end", scalar.span, message, "remove the blank", Severity.WARNING)
