"""Checks of the keys of mappings and of names, shared by the parsers of documents."""

from __future__ import annotations

import re
from collections.abc import Callable

from rules_engine.definitions.envelope import NAME_PATTERN
from rules_engine.definitions.source import Entry, Mapping, Node
from rules_engine.diagnostics import listing, nearest
from rules_engine.rules.parsing.literals import Refusal, describe
from rules_engine.rules.parsing.operand_checks import at_key

#: The keys of a trigger whose values are only documentation.
PARTS = ("description", "owner", "tags")

NAME = re.compile(NAME_PATTERN)


def keys_of(
    node: Node,
    what: str,
    required: tuple[str, ...],
    optional: tuple[str, ...] = (),
    hint_of: Callable[[str], str | None] = lambda _: None,
) -> Mapping:
    """Return a node as a mapping with these keys and no others.

    Raises
    ------
    Refusal
        if it is not a mapping, has other keys, or lacks one. ``hint_of`` may give a better hint for an unknown key.
    """
    allowed = (*required, *optional)
    if not isinstance(node, Mapping):
        inside = ", ".join(f"{key}: ..." for key in required)
        message = f"`{what}` is a mapping, not {describe(node)}"
        raise Refusal("wrong-shape", node, message, f"write `{what}: {{{inside}}}`")
    for entry in node:
        if entry.key not in allowed:
            hint = hint_of(entry.key) or nearest(entry.key, allowed) or f"there can be {listing(allowed)}"
            raise at_key("unknown-key", entry, f"`{entry.key}` has no place in `{what}`", hint)
    for key in required:
        if key not in node:
            raise Refusal("missing-key", node, f"`{what}` needs `{key}`", f"add `{key}: ...`")
    return node


def check_name(entry: Entry, what: str) -> None:
    """Refuse a key that cannot be a name.

    Raises
    ------
    Refusal
        if it has other characters, or is too long; ``what`` is the kind of thing that it would name.
    """
    if not NAME.match(entry.key):
        hint = "write small letters, digits and underscores, starting with a letter, at most 63"
        raise at_key("invalid-name", entry, f"`{entry.key}` cannot be the name of {what}", hint)
