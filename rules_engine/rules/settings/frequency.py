"""The ``frequency:`` of a project: how often its triggers may fire for one person, all of them or those with a tag."""

from __future__ import annotations

from rules_engine.definitions.source import Items, Node, Scalar
from rules_engine.rules.parsing.document_keys import keys_of
from rules_engine.rules.parsing.literals import Refusal, describe, duration
from rules_engine.rules.parsing.operand_checks import string_value
from rules_engine.rules.schema_parts import DURATION, JsonSchema, mapping_schema
from rules_engine.rules.settings.nodes import Frequency

#: The greatest number of times, as their instants are kept with the entity.
MAX_TIMES = 1_000

#: The most limits of a project.
MAX_LIMITS = 20

_TAG: JsonSchema = {"type": "string", "description": "Triggers with this tag; without `of` it is all triggers."}
_LIMIT = mapping_schema(
    {
        "max": {"type": "integer", "minimum": 1, "maximum": MAX_TIMES},
        "per": DURATION,
        "of": mapping_schema({"tag": _TAG}),
    },
    ("max", "per"),
)
SCHEMA: JsonSchema = {"anyOf": [_LIMIT, {"type": "array", "items": _LIMIT, "minItems": 1, "maxItems": MAX_LIMITS}]}


def frequencies(node: Node) -> tuple[Frequency, ...]:
    """Return the limits of a project.

    >>> from rules_engine.definitions.source import from_plain
    >>> [str(limit) for limit in frequencies(from_plain({"max": 3, "per": "7d", "of": {"tag": "email"}}))]
    ['3 per 7d of tag email']

    Raises
    ------
    Refusal
        for the first of them that is no limit, or that is given twice.
    """
    nodes = list(node.items) if isinstance(node, Items) else [node]
    if not 0 < len(nodes) <= MAX_LIMITS:
        raise Refusal(
            "wrong-shape", node, f"`frequency` is a limit or a list of 1 to {MAX_LIMITS}, not of {len(nodes)}"
        )
    limits: dict[tuple[int, str | None], Frequency] = {}
    for each in nodes:
        limit = _frequency(each)
        if (limit.per, limit.tag) in limits:
            message = f"there is a limit for the same triggers and time already: {limits[limit.per, limit.tag]}"
            raise Refusal("duplicate-frequency", each, message, "keep one of them")
        limits[limit.per, limit.tag] = limit
    return tuple(limits.values())


def _frequency(node: Node) -> Frequency:
    keys = keys_of(node, "frequency", ("max", "per"), ("of",))
    tag = None
    if "of" in keys:
        tag = string_value(keys_of(keys.entry("of").value, "of", ("tag",)).entry("tag").value, "a tag")
    most = count(keys.entry("max").value, MAX_TIMES, "limit")
    return Frequency(most, duration(keys.entry("per").value), tag, keys.span)


def count(node: Node, most: int, what: str) -> int:
    """Return how many times something may happen.

    Raises
    ------
    Refusal
        if it is no whole number from 1 to ``most``.
    """
    value = node.value if isinstance(node, Scalar) else None
    if type(value) is not int or value < 1:
        raise Refusal("invalid-count", node, f"`max` is a whole number from 1, not {describe(node)}")
    if value > most:
        raise Refusal("invalid-count", node, f"a {what} is at most {most:,}", f"who gets so many needs no {what}")
    return value
