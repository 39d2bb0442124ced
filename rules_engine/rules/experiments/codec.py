"""Experiments as JSON and back: a read plan carries them beside the segments."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rules_engine.rules.codec import decode_part, encode_part
from rules_engine.rules.experiments.nodes import Arm, Experiment, Slice

_CLASSES = (Arm, Experiment, Slice)


def encode_experiments(experiments: Mapping[str, Experiment]) -> dict[str, Any]:
    """Return the experiments as plain JSON data, to be put beside the segments; nothing if there are none.

    >>> experiment = Experiment("offer", (Arm("control", "none", 1.0),), "offer")
    >>> decode_experiments(encode_experiments({"offer": experiment})) == {"offer": experiment}
    True
    """
    return encode_part("experiments", experiments)


def decode_experiments(definitions: Mapping[str, Any]) -> dict[str, Experiment]:
    """Return the experiments of a read plan's ``definitions``, by name.

    Raises
    ------
    ValueError
        if the data was not written by :func:`encode_experiments`.
    """
    return decode_part("experiments", definitions, _CLASSES)
