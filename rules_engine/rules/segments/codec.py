"""Checked segments as JSON and back: a read plan carries them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rules_engine.rules.codec import decode_named, encode
from rules_engine.rules.nodes import ListFile, Segment
from rules_engine.rules.program import Program


def encode_program(program: Program) -> dict[str, Any]:
    """Return the program as plain JSON data; positions in files are left out.

    >>> from rules_engine.rules.nodes import FeatureRef, Predicate, Segment
    >>> program = Program({"vip": Segment("vip", Predicate(FeatureRef("user", "spend"), "at_least", 100))})
    >>> decode_program(encode_program(program)) == program
    True
    """
    return {name: encode(program.segments[name]) for name in program.names}


def decode_program(data: Mapping[str, Any]) -> Program:
    """Return the inverse of :func:`encode_program`.

    Raises
    ------
    ValueError
        if the data was not written by it.
    """
    return Program(decode_named("segments", data, (Segment, ListFile)))
