r"""Regular expressions of the common subset, rewritten for engines that do not run RE2.

What differs is written out, so that nothing is left to an engine's idea of a word, a space, a line or a case:
``.`` and ``\s`` as classes, ``\b`` as look-around, a letter under ``(?i)`` as the class of all its cases.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

from rules_engine.errors import UnsupportedError
from rules_engine.rules.text import compile_pattern

_IGNORE_CASE = "(?i)"
_WORD = "A-Za-z0-9_"
_CLASSES = {"d": "0-9", "w": _WORD, "s": "\t\n\f\r "}
_CONTROLS = {"t": "\t", "n": "\n", "f": "\f", "r": "\r", "v": "\v"}
_QUANTIFIER = re.compile(r"(?:[*+?]|\{([0-9]+)(?:,([0-9]*))?\})\??")


@dataclass(frozen=True, slots=True)
class Flavor:
    r"""Describes how one regular expression engine writes what RE2 means.

    ``escape_controls`` writes control characters as ``\u000a``; ``look_around`` is needed for word boundaries (else
    the engine's own is taken); ``plain_groups`` means there are neither non-capturing groups nor lazy quantifiers,
    which do not matter for whether something matches.
    """

    name: str
    end: str
    escape_controls: bool = True
    look_around: bool = True
    plain_groups: bool = False
    max_repetition: int = 1000


JAVA = Flavor("java", end=r"\z")
POSTGRES = Flavor("postgres", end="$", max_repetition=255)
SNOWFLAKE = Flavor("snowflake", end="$", escape_controls=False, look_around=False, plain_groups=True)


def rewrite(pattern: str, flavor: Flavor) -> str:
    r"""Return the pattern as an engine has to be given it.

    >>> print(rewrite(r"^a.$", JAVA), rewrite(r"(?i)k\d", POSTGRES))
    ^a[^\u000a]\z [Kk\u212a][0-9]
    """
    ignore_case = pattern.startswith(_IGNORE_CASE)
    return _Rewriter(pattern.removeprefix(_IGNORE_CASE), flavor, ignore_case).run()


class _Rewriter:
    """One pass over a pattern of the subset."""

    def __init__(self, pattern: str, flavor: Flavor, ignore_case: bool) -> None:
        self._pattern = pattern
        self._flavor = flavor
        self._ignore_case = ignore_case
        self._at = 0
        self._after_anchor = False

    def run(self) -> str:
        return "".join(self._tokens())

    def _tokens(self) -> Iterator[str]:
        while self._at < len(self._pattern):
            quantifier = _QUANTIFIER.match(self._pattern, self._at)
            if quantifier and self._at > 0:
                yield self._quantifier(quantifier)
                continue
            character = self._take()
            self._after_anchor = character in "^$"
            yield self._token(character)

    def _take(self) -> str:
        self._at += 1
        return self._pattern[self._at - 1]

    def _quantifier(self, match: re.Match[str]) -> str:
        self._at = match.end()
        if self._after_anchor:
            raise self._unsupported(f"`{match[0]}` repeats an anchor, which matches nothing")
        if max((int(number) for number in match.groups() if number), default=0) > self._flavor.max_repetition:
            raise self._unsupported(f"`{match[0]}` repeats more than {self._flavor.max_repetition} times")
        text = match[0]
        return text[:-1] if self._flavor.plain_groups and len(text) > 1 and text.endswith("?") else text

    def _unsupported(self, reason: str) -> UnsupportedError:
        message = f"regular expression `{self._pattern}` cannot be written for {self._flavor.name}: {reason}"
        return UnsupportedError(message, hint="write the pattern without it")

    def _token(self, character: str) -> str:
        match character:
            case "\\":
                return self._escape(self._take())
            case "[":
                return self._class()
            case ".":
                return f"[^{self._character(chr(10))}]"
            case "$":
                return self._flavor.end
            case "(" if self._pattern.startswith("?:", self._at):
                self._at += 2
                return "(" if self._flavor.plain_groups else "(?:"
            case "(" | ")" | "|" | "^":
                return character
        return self._literal(character)

    def _escape(self, letter: str) -> str:
        if letter == "b":
            self._after_anchor = True
            return self._boundary()
        if letter.lower() in _CLASSES:
            return f"[{'^' if letter.isupper() else ''}{self._named(letter.lower())}]"
        return self._literal(_CONTROLS.get(letter, letter))

    def _boundary(self) -> str:
        if not self._flavor.look_around:
            return r"\b"
        before, after = f"(?<=[{_WORD}])", f"(?=[{_WORD}])"
        not_before, not_after = f"(?<![{_WORD}])", f"(?![{_WORD}])"
        return f"(?:{before}{not_after}|{not_before}{after})"

    def _named(self, letter: str) -> str:
        r"""Return the characters of \d, \w, \s, as they stand in a class."""
        characters = "".join(self._character(each) if each < " " else each for each in _CLASSES[letter])
        return characters + (self._cases("ks") if self._ignore_case and letter == "w" else "")

    def _cases(self, letters: str) -> str:
        return "".join(self._character(each) for letter in letters for each in cases(letter) if not each.isascii())

    def _literal(self, character: str) -> str:
        variants = cases(character) if self._ignore_case else (character,)
        written = [self._character(each) for each in variants]
        return written[0] if len(written) == 1 else f"[{''.join(written)}]"

    def _character(self, character: str) -> str:
        """Return one character, as it is written outside or inside a class."""
        if character.isalnum() and character.isascii():
            return character
        if character < " " or character in "\x7f\u212a":
            return f"\\u{ord(character):04x}" if self._flavor.escape_controls else character
        return "\\" + character if character.isascii() and not character.isspace() and character != "_" else character

    # --- classes ----------------------------------------------------------------------------------------------------

    def _class(self) -> str:
        negated = self._pattern.startswith("^", self._at)
        self._at += negated
        items: list[str] = []
        negations: list[str] = []
        while (character := self._take()) != "]":
            if character == "\\" and self._pattern[self._at].lower() in _CLASSES:
                letter = self._take()
                (negations if letter.isupper() else items).append(self._named(letter.lower()))
            else:
                items.append(self._range(self._element(character)))
        return self._written_class("".join(items), negations, negated)

    def _element(self, character: str) -> str:
        if character != "\\":
            return character
        letter = self._take()
        return _CONTROLS.get(letter, letter)

    def _range(self, low: str) -> str:
        rest = self._pattern[self._at : self._at + 2]
        if rest[:1] != "-" or rest[1:] == "]":
            return "".join(self._character(each) for each in (cases(low) if self._ignore_case else (low,)))
        self._at += 1
        high = self._element(self._take())
        written = f"{self._character(low)}-{self._character(high)}"
        return written + (self._cases_of_range(low, high) if self._ignore_case else "")

    def _cases_of_range(self, low: str, high: str) -> str:
        inside = [letter for letter in _relatives() if low <= letter <= high]
        outside = {each for letter in inside for each in cases(letter) if not low <= each <= high}
        return "".join(map(self._character, sorted(outside)))

    def _written_class(self, items: str, negations: list[str], negated: bool) -> str:
        r"""Rewrite a class with \D, \W or \S as alternatives, which every engine reads alike."""
        if not negations:
            return f"[{'^' if negated else ''}{items}]"
        union = "|".join([f"[{items}]"] * bool(items) + [f"[^{excluded}]" for excluded in negations])
        if not negated:
            return f"({union})" if self._flavor.plain_groups else f"(?:{union})"
        if not self._flavor.look_around:
            raise self._unsupported("a negated class with \\D, \\W or \\S in it")
        return f"(?:(?!{union})[\\s\\S])" if self._flavor is JAVA else f"(?:(?!{union}).)"


# --- cases of a letter ----------------------------------------------------------------------------------------------


def cases(character: str) -> tuple[str, ...]:
    r"""Return the characters that RE2 takes for the same letter when it ignores case, found by asking RE2.

    >>> cases("k") == ("K", "k", "\N{KELVIN SIGN}"), cases("1"), cases("σ")
    (True, ('1',), ('Σ', 'ς', 'σ'))
    """
    family = _relatives().get(character)
    return _cases(character, family) if family else (character,)


@lru_cache(maxsize=4096)
def _cases(character: str, family: frozenset[str]) -> tuple[str, ...]:
    same = compile_pattern(f"(?i)^(?:{re.escape(character)})$")
    return tuple(sorted(each for each in family if same.search(each)))


@lru_cache(maxsize=1)
def _relatives() -> dict[str, frozenset[str]]:
    """Return for each letter with cases all letters that lowering and raising lead to."""
    families: dict[str, set[str]] = {}
    for code in range(0x110000):
        character = chr(code)
        linked = {character, *_single(character.lower()), *_single(character.upper()), *_single(character.title())}
        if len(linked) > 1:
            merged = set().union(*(families.get(each, {each}) for each in linked))
            for each in merged:
                families[each] = merged
    return {letter: frozenset(family) for letter, family in families.items()}


def _single(text: str) -> tuple[str, ...]:
    return (text,) if len(text) == 1 else ()
