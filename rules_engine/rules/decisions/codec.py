"""Decisions as JSON and back: a read plan carries them beside the segments."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rules_engine.rules.codec import decode_part, encode_part
from rules_engine.rules.decisions.nodes import Decision, ExperimentRef, Rule, Serve, Split, Variant

_CLASSES = (Decision, ExperimentRef, Rule, Serve, Split, Variant)


def encode_decisions(decisions: Mapping[str, Decision]) -> dict[str, Any]:
    """Return the decisions as plain JSON data, to be put beside the segments; nothing if there are none.

    >>> decision = Decision("banner", (Variant("on", "true"),), (), "on", "boolean")
    >>> decode_decisions(encode_decisions({"banner": decision})) == {"banner": decision}
    True
    """
    return encode_part("decisions", decisions)


def decode_decisions(definitions: Mapping[str, Any]) -> dict[str, Decision]:
    """Return the decisions of a read plan's ``definitions``, by name.

    Raises
    ------
    ValueError
        if the data was not written by :func:`encode_decisions`.
    """
    return decode_part("decisions", definitions, _CLASSES)
