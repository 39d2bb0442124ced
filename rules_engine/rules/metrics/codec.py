"""Metrics as JSON and back: a read plan carries them beside the segments."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rules_engine.rules.codec import decode_part, encode_part
from rules_engine.rules.metrics.nodes import Goal, Metric, MetricForm

_CLASSES = (Goal, Metric, MetricForm)


def encode_metrics(metrics: Mapping[str, Metric]) -> dict[str, Any]:
    """Return the metrics as plain JSON data, to be put beside the segments; nothing if there are none.

    >>> metric = Metric("items_per_order", MetricForm.RATIO, ratio=("items", "orders"))
    >>> decode_metrics(encode_metrics({"items_per_order": metric})) == {"items_per_order": metric}
    True
    """
    return encode_part("metrics", metrics)


def decode_metrics(definitions: Mapping[str, Any]) -> dict[str, Metric]:
    """Return the metrics of a read plan's ``definitions``, by name.

    Raises
    ------
    ValueError
        if the data was not written by :func:`encode_metrics`.
    """
    return decode_part("metrics", definitions, _CLASSES)
