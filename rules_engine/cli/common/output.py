"""Print the output of commands: results to stdout, progress and remarks to stderr; colours only in a terminal.

Text comes with a style, never with markup inside, so that data cannot be mistaken for markup. Control characters
and line breaks are written as escapes: a key or a name can neither forge a line nor control the terminal.
"""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from enum import StrEnum
from typing import TYPE_CHECKING, Any, TextIO

import orjson
import typer

from rules_engine.diagnostics import Diagnostic, Severity, printable, render_all
from rules_engine.errors import DefinitionError, SegmentsError

if TYPE_CHECKING:
    from rich.console import Console

#: A piece of a line: text, or text with a style such as "bold", "dim" or "red".
Part = str | tuple[str, str]


#: Seconds between two lines of progress where there is no terminal.
_SECONDS_A_LINE = 5.0


class Format(StrEnum):
    """Names the formats in which a command prints its data."""

    TEXT = "text"
    JSON = "json"


def is_terminal(stream: TextIO | None = None) -> bool:
    """Tell whether a stream, by default stdout, is a terminal."""
    try:
        return (stream or sys.stdout).isatty()
    except ValueError:  # it was closed
        return False


def say(*parts: Part) -> None:
    """Print a line of the result to stdout.

    >>> say("in ", ("2", "bold"), " segments")
    in 2 segments
    """
    _line(parts, sys.stdout)


def say_lines(text: str) -> None:
    r"""Print a text of several lines to stdout.

    >>> say_lines("one\n  two")
    one
      two
    """
    for line in text.split("\n"):
        say(line)


def write(text: str) -> None:
    """Print a text that another program reads, exactly as it is, to stdout."""
    sys.stdout.write(f"{text}\n")


def remark(*parts: Part) -> None:
    """Print a line that is not the result to stderr."""
    _line(parts, sys.stderr)


def warn(text: str) -> None:
    """Print a warning to stderr."""
    remark(("warning", "bold yellow"), f": {text}")


def plural(count: int, word: str) -> str:
    """Return a number with its noun.

    >>> plural(1, "segment"), plural(1200, "entry"), plural(0, "row")
    ('1 segment', '1,200 entries', '0 rows')
    """
    if count != 1:
        word = f"{word[:-1]}ies" if word.endswith("y") else f"{word}s"
    return f"{count:,} {word}"


def _line(parts: Iterable[Part], stream: TextIO) -> None:
    pieces = [(part, "") if isinstance(part, str) else part for part in parts]
    if not is_terminal(stream):
        print("".join(printable(text) for text, _ in pieces), file=stream)
        return
    from rich.text import Text

    _console(stream).print(Text.assemble(*((printable(text), style) for text, style in pieces)), soft_wrap=True)


def print_json(data: Any) -> None:
    """Print data as JSON to stdout: sorted and indented, the same bytes for the same data."""
    sys.stdout.write(orjson.dumps(data, option=orjson.OPT_INDENT_2).decode() + "\n")


def table(headers: Sequence[str], rows: Iterable[Sequence[str]], right: Collection[str] = ()) -> None:
    """Print rows under headers: a table in a terminal, aligned columns else.

    Parameters
    ----------
    right
        the headers of the columns that are aligned to the right, as numbers are.

    >>> table(["segment", "users"], [["vip", "12"], ["everyone", "345"]], right=["users"])
    segment   users
    vip          12
    everyone    345
    """
    cells = [[printable(cell) for cell in row] for row in rows]
    if is_terminal():
        _rich_table(headers, cells, right)
        return
    widths = [max(map(len, column)) for column in zip(headers, *cells, strict=True)]
    for row in (headers, *cells):
        padded = [
            cell.rjust(width) if header in right else cell.ljust(width)
            for cell, width, header in zip(row, widths, headers, strict=True)
        ]
        print("  ".join(padded).rstrip())


def _rich_table(headers: Sequence[str], rows: Iterable[Sequence[str]], right: Collection[str]) -> None:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    drawn = Table(box=box.SIMPLE_HEAD, header_style="bold", pad_edge=False)
    for header in headers:
        drawn.add_column(header, justify="right" if header in right else "left", overflow="fold")
    for row in rows:
        drawn.add_row(*map(Text, row))
    _console(sys.stdout).print(drawn)


def refuse(refused: Mapping[str, SegmentsError]) -> None:
    """Show why segments were left out, if any were, and exit with 1.

    Parameters
    ----------
    refused
        by segment the reason.
    """
    for error in dict.fromkeys(refused.values()):
        show_error(error)
        remark("  left out: ", ", ".join(name for name, reason in refused.items() if reason is error))
    if refused:
        raise typer.Exit(1)


def show_error(error: SegmentsError) -> None:
    """Print what is wrong and what to do about it, to stderr."""
    if isinstance(error, DefinitionError):
        show_diagnostics(error.diagnostics, sys.stderr)
        return
    remark(("error", "bold red"), f": {error}")
    if error.hint:
        remark(("  hint", "bold cyan"), f": {error.hint}")


def show_diagnostics(diagnostics: Sequence[Diagnostic], stream: TextIO | None = None) -> None:
    """Print every problem at its place, and how many there are."""
    stream = stream or sys.stdout
    if not is_terminal(stream):
        print(render_all(diagnostics), file=stream)
        return
    from rich.text import Text

    coloured = Text()
    for line in render_all(diagnostics).splitlines(keepends=True):
        coloured.append_text(_coloured(line))
    _console(stream).print(coloured, soft_wrap=True)


def diagnostic_data(diagnostic: Diagnostic) -> dict[str, Any]:
    """Return a problem as JSON data."""
    span = diagnostic.span
    return {
        "severity": diagnostic.severity.value,
        "code": diagnostic.code,
        "file": span.file,
        "line": span.line,
        "column": span.column,
        "length": span.length,
        "message": diagnostic.message,
        "hint": diagnostic.hint,
    }


_STYLES = ((f" {Severity.ERROR.value}[", "bold red"), (f" {Severity.WARNING.value}[", "bold yellow"))


def _coloured(line: str) -> Any:
    from rich.text import Text

    text = Text(line)
    if line.startswith("  hint:"):
        text.stylize("bold cyan", 2, 6)
    elif line.startswith("      "):
        text.stylize("red")
    else:
        for mark, style in _STYLES:
            start = line.find(mark)
            if start >= 0:
                text.stylize("bold", 0, start)
                text.stylize(style, start, line.index("]", start) + 1)
    return text


@contextlib.contextmanager
def working(what: str) -> Iterator[Callable[[str], None]]:
    """Show on stderr what a block of code does while it runs; yield a function that changes the text.

    Where stderr is no terminal nothing is shown, unless :func:`show_progress` asks for lines.

    >>> with working("Reading the purchases") as show:
    ...     show("Reading the purchases: half of them")
    """
    if not is_terminal(sys.stderr):
        yield _Lines(what).show if _progress.always else lambda _: None
        return
    from rich.markup import escape

    with _console(sys.stderr).status(escape(what)) as status:
        yield lambda text: status.update(escape(text))


class _Lines:
    """Prints progress as lines of a log, at most one every few seconds."""

    def __init__(self, what: str) -> None:
        self._next = 0.0
        self.show(what)

    def show(self, text: str) -> None:
        """Print a line of progress, unless one was printed just before."""
        if time.monotonic() >= self._next:
            self._next = time.monotonic() + _SECONDS_A_LINE
            remark(text)


class _Progress:
    always = False


_progress = _Progress()


def show_progress(always: bool) -> None:
    """Choose whether :func:`working` shows progress where stderr is no terminal, as lines."""
    _progress.always = always


def _console(stream: TextIO) -> Console:
    from rich.console import Console

    return Console(file=stream, highlight=False, markup=False, emoji=False)
