"""Reads shares of all entities: ``{percent: 10, seed: NAME}``."""

from __future__ import annotations

from decimal import Decimal

from rules_engine.definitions.source import Node, Scalar
from rules_engine.rules.parsing.document_keys import keys_of
from rules_engine.rules.parsing.literals import Refusal, describe
from rules_engine.rules.parsing.operand_checks import string_value
from rules_engine.rules.schema_parts import JsonSchema, mapping_schema

#: The longest seed, in characters.
MAX_SEED = 200

_SEED: JsonSchema = {
    "type": "string",
    "minLength": 1,
    "maxLength": MAX_SEED,
    "description": "Shares of equal seeds hold the same people, the smaller inside the larger.",
}
_PERCENT: JsonSchema = {"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 100}

#: The schema of a share, and of one whose seed has a default.
SEEDED_SHARE = mapping_schema({"percent": _PERCENT, "seed": _SEED})
SHARE: JsonSchema = {**SEEDED_SHARE, "required": ["percent"]}


def share(node: Node, what: str, seed: str | None = None) -> tuple[int, str]:
    """Return a share in hundredths of a percent, and its seed, which is required where there is no default.

    >>> from rules_engine.definitions.source import from_plain
    >>> share(from_plain({"percent": 12.5}), "holdout", seed="mail")
    (1250, 'mail')

    Raises
    ------
    Refusal
        if the percentage is not above 0 and below 100, or has more than two decimals; or for what is missing.
    """
    required, optional = (("percent",), ("seed",)) if seed is not None else (("percent", "seed"), ())
    keys = keys_of(node, what, required, optional)
    hundredths = _hundredths(keys.entry("percent").value, what)
    return hundredths, _seed(keys.entry("seed").value) if "seed" in keys else seed or ""


def _hundredths(node: Node, what: str) -> int:
    number = node.value if isinstance(node, Scalar) else None
    if isinstance(number, bool) or not isinstance(number, int | float):
        raise Refusal("invalid-percent", node, f"a percentage is a number, not {describe(node)}")
    if not 0 < number < 100:
        raise Refusal("invalid-percent", node, f"the share of a {what} is above 0 and below 100, not {number}")
    hundredths = Decimal(str(number)) * 100
    if hundredths != int(hundredths):
        raise Refusal("invalid-percent", node, f"a percentage has at most two decimals, and {number} has more")
    return int(hundredths)


def _seed(node: Node) -> str:
    seed = string_value(node, "a text, by which the people are drawn")
    if len(seed) > MAX_SEED:
        raise Refusal("invalid-seed", node, f"a seed has at most {MAX_SEED} characters, and this one has {len(seed)}")
    return seed
