"""A problem in a definition, and how it is shown: place, source line, caret, code, hint."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from enum import Enum
from typing import NamedTuple


class Severity(Enum):
    """An error refuses the definitions; a warning is shown and lets them pass."""

    ERROR = "error"
    WARNING = "warning"


class Span(NamedTuple):
    """A place in a source text. Lines and columns count from 1; ``length`` is the caret's width.

    ``text`` is the whole source line, kept here so that rendering needs no second look at the file.
    """

    file: str
    line: int
    column: int
    length: int = 1
    text: str = ""

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}"


#: Where a condition came from Python data and not from a file.
NO_SPAN = Span("<data>", 1, 1)


@dataclass(frozen=True, slots=True)
class Diagnostic:
    """One problem: a stable kebab-case ``code``, where it is, what is wrong and what to do.

    >>> print(Diagnostic("empty-group", Span("a.yaml", 3, 5, 3, "    any: []"), "`any` is empty", "list a condition"))
    a.yaml:3:5: error[empty-group]: `any` is empty
        3 |     any: []
          |     ^^^
      hint: list a condition
    """

    code: str
    span: Span
    message: str
    hint: str | None = None
    severity: Severity = Severity.ERROR

    def __str__(self) -> str:
        lines = [printable(f"{self.span}: {self.severity.value}[{self.code}]: {self.message}")]
        if self.span.text:
            gutter = f"{self.span.line:>5} | "
            # A space each, so that the caret stands under its column.
            lines.append(gutter + "".join(char if char.isprintable() else " " for char in self.span.text))
            lines.append(" " * (len(gutter) - 2) + "| " + " " * (self.span.column - 1) + "^" * max(1, self.span.length))
        if self.hint:
            lines.append(printable(f"  hint: {self.hint}"))
        return "\n".join(lines)


def printable(text: str) -> str:
    r"""Return the text on one line, with every character that cannot be seen written as an escape.

    Keys and names come from data. A line break in one would forge a line of the output, a control character would reach
    the terminal, and one that is invisible or turns the direction of writing would make it read as another.

    >>> print(printable("a\x1b[31mb\nok: all went well"))
    a\x1b[31mb\nok: all went well
    >>> print(printable("paul\u200b, " + chr(0x202E) + "x"))
    paul\u200b, \u202ex
    """
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


def render_all(diagnostics: Sequence[Diagnostic]) -> str:
    """Return all diagnostics, in file order, followed by a count.

    >>> print(render_all([Diagnostic("bad", Span("a.yaml", 1, 1), "no good")]))
    a.yaml:1:1: error[bad]: no good
    1 error
    """
    ordered = sorted(diagnostics, key=lambda d: (d.span.file, d.span.line, d.span.column))
    errors = sum(d.severity is Severity.ERROR for d in ordered)
    warnings = len(ordered) - errors
    counts = [
        f"{count} {word}{'' if count == 1 else 's'}"
        for count, word in ((errors, "error"), (warnings, "warning"))
        if count
    ]
    return "\n".join([*map(str, ordered), ", ".join(counts)])


def nearest(name: str, names: Iterable[str]) -> str | None:
    """Return a hint that names the known name closest to a misspelt one, or None if none is close.

    >>> nearest("equal", ["equals", "exists"])
    'did you mean `equals`?'
    >>> nearest("zzz", ["equals"]) is None
    True
    """
    candidates = sorted(names)
    matches = get_close_matches(name, candidates, n=1, cutoff=0.6)
    if not matches:
        lowered = {candidate.lower(): candidate for candidate in candidates}
        matches = [lowered[match] for match in get_close_matches(name.lower(), list(lowered), n=1, cutoff=0.6)]
    return f"did you mean `{matches[0]}`?" if matches else None


def listing(names: Iterable[str], limit: int = 12) -> str:
    """Return names for a message, the first few of them.

    >>> listing(["b", "a"])
    '`a`, `b`'
    """
    ordered = sorted(names)
    shown = ", ".join(f"`{name}`" for name in ordered[:limit])
    return shown + (f" and {len(ordered) - limit} more" if len(ordered) > limit else "")
