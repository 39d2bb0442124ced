"""Find characters that the eye misses: invisible ones, and those that look like plain ones.

They come with text that is pasted from a chat, a wiki or a word processor. Text that is written in another script is
left alone: only a stranger among plain (ASCII) characters is found.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass

_QUOTES = dict.fromkeys("\u2018\u2019\u201a\u201b\u2032", "'")
_DOUBLE_QUOTES = dict.fromkeys("\u201c\u201d\u201e\u201f\u2033", '"')
_DASHES = dict.fromkeys("\u2010\u2011\u2012\u2013\u2014\u2212", "-")
_CYRILLIC = dict(zip("аеорсухіјѕһАВЕКМНОРСТУХІЈЅ", "aeopcyxijshABEKMHOPCTYXIJS", strict=True))
_GREEK = dict(zip("ονρΑΒΕΖΗΙΚΜΝΟΡΤΥΧ", "ovpABEZHIKMNOPTYX", strict=True))
_FULL_WIDTH = {chr(code + 0xFEE0): chr(code) for code in range(0x21, 0x7F)}

#: By character, the plain one that it looks like.
LOOK_ALIKES = {**_QUOTES, **_DOUBLE_QUOTES, **_DASHES, **_CYRILLIC, **_GREEK, **_FULL_WIDTH}

#: What has no shape, by its general category: controls, formats, line and paragraph separators.
_SHAPELESS = {"Cc", "Cf", "Zl", "Zp"}
_VARIATION_SELECTORS = range(0xFE00, 0xFE10)


@dataclass(frozen=True, slots=True)
class HiddenCharacter:
    """Describes such a character: its place in the text, the message and hint about it, and a code for its kind."""

    index: int
    message: str
    hint: str
    code: str


def hidden_characters(text: str) -> tuple[HiddenCharacter, ...]:
    r"""Return the characters of a text that the eye misses, if all others are plain.

    >>> [(each.index, each.message, each.hint) for each in hidden_characters("NO\u00a0")]
    [(2, 'there is a no-break space (U+00A0) here', 'write a plain space, or remove it')]
    >>> [each.message for each in hidden_characters("\u0441art")], hidden_characters("Škoda\u00a0Ž")
    (['there is a cyrillic small letter es (U+0441) here, which looks like `c`'], ())
    """
    return () if text.isascii() and text.isprintable() else tuple(_find_hidden(text))


def _find_hidden(text: str) -> Iterator[HiddenCharacter]:
    strangers = [(index, char) for index, char in enumerate(text) if _is_hidden(char) or char in LOOK_ALIKES]
    plain = [char for char in text if not _is_hidden(char) and char not in LOOK_ALIKES]
    if not all(char.isascii() for char in plain):
        return
    for index, char in strangers:
        if _is_hidden(char):
            yield _hidden(index, char)
        elif char.isalpha() and not any(other.isalpha() for other in plain):
            continue  # a word of another script
        else:
            message = f"{_here(char)}, which looks like `{LOOK_ALIKES[char]}`"
            yield HiddenCharacter(index, message, f"write `{LOOK_ALIKES[char]}`", code="look-alike-character")


def _is_hidden(char: str) -> bool:
    is_shapeless = unicodedata.category(char) in _SHAPELESS and char not in "\n\t"
    return is_shapeless or _is_strange_space(char) or ord(char) in _VARIATION_SELECTORS


def _is_strange_space(char: str) -> bool:
    return unicodedata.category(char) == "Zs" and char != " "


def _hidden(index: int, char: str) -> HiddenCharacter:
    hint = "write a plain space, or remove it" if _is_strange_space(char) else "remove it"
    return HiddenCharacter(index, _here(char), hint, code="invisible-character")


def _here(char: str) -> str:
    name = unicodedata.name(char, "control character").lower()
    article = "an" if name[0] in "aeiou" else "a"
    return f"there is {article} {name} (U+{ord(char):04X}) here"
