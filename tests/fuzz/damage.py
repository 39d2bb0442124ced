"""Ways to damage text, bytes and JSON: small ones, so that most of the input still makes sense."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any

#: Text that programs stumble over: numbers at the edge, control and invisible characters, syntax of YAML, CSV and JSON.
NASTY = (
    *("", " ", "\n", "\r\n", "\t", "\x00", "\x1b[31m", "\ufeff", "\u200b", "\u202e", "\u00a0", "\ud83d", "ﷺ", "İ", "²"),
    *("0", "-0", "-1", "1e308", "1e309", "-1e-400", "9223372036854775807", "9223372036854775808", "9" * 5_000, "0x10"),
    *(
        "NaN",
        "nan",
        "inf",
        "-Infinity",
        "null",
        "~",
        "true",
        "yes",
        "NO",
        "12:30",
        "1_000",
        "1,5",
        "0001-01-01T00:00:00Z",
    ),
    *(
        "9999-12-31T23:59:59.999999Z",
        "10000-01-01T00:00:00Z",
        "2024-02-30",
        "2024-01-01T00:00:00",
        "1y",
        "0s",
        "99999999w",
    ),
    *("&a", "*a", "!!python/object:os.system", "{", "}", "[", "]", "- ", ": ", "? ", "|", ">", "#", "---\n", "<<: *a"),
    *('"', "'", "\\", ",", ";", "{{x}}", "${HOME}", "__class__", "(a+)+$", "(?=a)", "[[:alpha:]]", "a" * 70_000),
    *("all", "any", "none", "not", "when", "within", "ever", "did", "in_segment", "feature", "count", "sequence"),
)

#: Values that JSON may hold where something else was expected.
ODD: Sequence[Any] = (
    *(None, True, False, 0, -1, 1.5, 1e308, 2**63, -(2**63) - 1, 10**400, "", "x", "\x00", "a" * 100_000),
    *([], {}, [None], {"": None}, [[[[[[]]]]]], {"a": {"b": {"c": []}}}),
)


def damage_text(draw: random.Random, text: str) -> str:
    """Change a text in one to four places."""
    for _ in range(draw.randint(1, 4)):
        start = draw.randint(0, len(text))
        end = min(len(text), start + draw.choice((0, 0, 1, 1, 3, 20)))
        nearby = text[start : start + draw.randint(1, 200)]
        change: Callable[[], str] = draw.choice(
            (
                lambda: draw.choice(NASTY),
                lambda: "",
                lambda nearby=nearby: nearby * draw.choice((2, 2, 3, 50)),
                lambda: chr(draw.choice((draw.randint(0, 127), draw.randint(128, 0xD7FF)))),
                lambda: "".join(draw.choice(NASTY) for _ in range(3)),
            )
        )
        text = text[:start] + change() + text[end:]
    return text


def damage_bytes(draw: random.Random, data: bytes) -> bytes:
    """Change bytes in one to four places."""
    for _ in range(draw.randint(1, 4)):
        start = draw.randint(0, len(data))
        end = min(len(data), start + draw.choice((0, 1, 1, 4, 64)))
        change: Callable[[], bytes] = draw.choice(
            (
                lambda: bytes([draw.randrange(256)]),
                lambda: b"",
                lambda: draw.randbytes(draw.randint(1, 16)),
                lambda: draw.choice(NASTY).encode("utf-8", "surrogatepass"),
            )
        )
        data = data[:start] + change() + data[end:]
    return data[: draw.randint(0, len(data))] if draw.random() < 0.05 else data


def damage_json(draw: random.Random, value: Any, chance: float = 0.03) -> Any:
    """Return a copy of plain data in which some parts are others, are gone, or stand twice."""
    if draw.random() < chance:
        return draw.choice(ODD)
    if isinstance(value, dict):
        kept = {name: damage_json(draw, part, chance) for name, part in value.items() if draw.random() > chance / 3}
        return kept | ({draw.choice(NASTY[:40]): draw.choice(ODD)} if draw.random() < chance else {})
    if isinstance(value, list):
        made = [damage_json(draw, part, chance) for part in value if draw.random() > chance / 3]
        return made + made[:1] if draw.random() < chance else made
    return value
