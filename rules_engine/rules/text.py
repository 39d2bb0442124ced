"""Compare strings as rules do: case folding by code point, and regular expressions that every target runs alike."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

MAX_PATTERN_LENGTH = 500

_CLASS_LETTERS = frozenset("dDwWsS")
_CONTROL_LETTERS = frozenset("tnrfv")
_ANCHOR_LETTERS = frozenset("b")  # not B: RE2 finds it between the bytes of one character


def fold_case(text: str) -> str:
    """Return a text in lower case, by code point: its length stays the same, and every target gives the same answer.

    A code point whose lower case is longer than one stays, except ``İ``, whose simple mapping is ``i``.

    >>> fold_case("STRASSE ΣΣ İ")
    'strasse σσ i'
    """
    if text.isascii():
        return text.lower()
    return "".join(map(_fold_character, text))


def _fold_character(character: str) -> str:
    if character == "İ":
        return "i"
    lowered = character.lower()
    return lowered if len(lowered) == 1 else character


@dataclass(frozen=True, slots=True)
class PatternProblem:
    """Holds why a regular expression is refused: ``invalid-regex`` or ``unsupported-regex``, and the reason."""

    code: str
    message: str


def pattern_problem(pattern: str) -> PatternProblem | None:
    r"""Return why a regular expression is outside the subset that all targets run the same way; None if it is inside.

    The subset: literals, ``.``, ``[...]``, ``\d \w \s`` and their negations, groups, ``|``, ``* + ? {m,n}`` with their
    lazy forms, ``^ $ \b``. No look-around, back-references, named or inline flags, Unicode classes. RE2 runs it in
    linear time.

    >>> pattern_problem("^a+(b|c)$") is None
    True
    >>> pattern_problem("(?=a)").code, pattern_problem("(a").code
    ('unsupported-regex', 'invalid-regex')
    """
    if problem := _scan(pattern):
        return PatternProblem("unsupported-regex", problem)
    import re2

    try:
        compile_pattern(pattern)
    except UnicodeEncodeError:
        return PatternProblem("invalid-regex", "it holds half of a surrogate pair, which stands for nothing")
    except re2.error as error:
        reason = error.args[0] if error.args else "invalid"
        return PatternProblem("invalid-regex", reason.decode() if isinstance(reason, bytes) else str(reason))
    return None


def _scan(pattern: str) -> str | None:
    """Return the problem of the first construct outside the subset, by a walk over escapes, groups and classes."""
    position, in_class = 0, False
    while position < len(pattern):
        here = pattern[position : position + 3]
        problem = _escape_problem(here[1:2], in_class) if here[0] == "\\" else _construct_problem(here, in_class)
        if problem:
            return f"`{here[:2]}` at character {position + 1}: {problem}"
        if here[0] == "\\":
            position += 1
        elif not in_class and here[0] == "[":
            in_class = True
            position += here[1:2] == "^"
        elif here[0] == "]":
            in_class = False
        position += 1
    return None


def _construct_problem(here: str, in_class: bool) -> str | None:
    if in_class:
        if here[0] == "[":
            return "write `\\[` for a bracket inside a class; nested and POSIX classes are not supported"
        return "class intersections are not supported" if here[:2] == "&&" else None
    if here.startswith(("[]", "[^]")):
        return "write `\\]` for a bracket at the start of a class"
    if here[:2] == "(?" and here != "(?:":
        return "look-around, named groups and inline flags are not supported; plain groups are"
    if here[0] in "*+?}" and here[1:2] == "+":
        return "possessive quantifiers are not supported"
    return None


def _escape_problem(letter: str, in_class: bool) -> str | None:
    if letter in _CLASS_LETTERS or letter in _CONTROL_LETTERS:
        return None
    if letter in _ANCHOR_LETTERS:
        return "a word boundary means nothing inside a class" if in_class else None
    if letter.isdigit():
        return "back-references and octal escapes are not supported"
    if letter.isalpha():
        return "this escape does not mean the same in every target; use literals, classes, or \\d \\w \\s"
    if letter and ord(letter) > 127:
        return "write the character without the backslash"
    return None if letter else "nothing follows the backslash"


def searches(pattern: str, text: str) -> bool:
    r"""Say whether a part of the text matches. Half of a surrogate pair, which UTF-8 cannot hold, is read as U+FFFD.

    >>> searches("^a.$", "aé"), searches("^a.$", "a\ud800"), searches("^a$", "ab")
    (True, True, False)
    """
    try:
        return compile_pattern(pattern).search(text) is not None
    except UnicodeEncodeError:
        whole = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
        return compile_pattern(pattern).search(whole) is not None


@lru_cache(maxsize=4096)
def compile_pattern(pattern: str) -> Any:
    """Return the compiled RE2 expression; its ``search`` is what ``matches`` means. A leading ``(?i)`` ignores case.

    >>> bool(compile_pattern("(?i)^ab").search("ABC"))
    True
    """
    import re2  # here, as few programs have patterns and every request path would pay for it

    options = re2.Options()
    options.log_errors = False
    options.max_mem = 8 << 20
    return re2.compile(pattern, options)
