"""What is printed, to a terminal and to a pipe."""

from __future__ import annotations

import contextlib
import io
import re
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest

from rules_engine.cli.common import output
from rules_engine.diagnostics import Diagnostic, Severity, Span, render_all
from rules_engine.errors import DefinitionError, SegmentsError
from rules_engine.rules.explanation import Explanation, Reason


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True

    def plain(self) -> str:
        return re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", self.getvalue())


@contextlib.contextmanager
def terminal() -> Iterator[Terminal]:
    """A terminal as stdout, for a while."""
    stream = Terminal()
    variables = {"TERM": "xterm-256color", "COLUMNS": "80"}
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(stream):
        patch.delenv("NO_COLOR", raising=False)
        for name, value in variables.items():
            patch.setenv(name, value)
        yield stream


HOSTILE = "a\x1b[2Jb [red]c[/red] :smile:"

DIAGNOSTICS = [
    Diagnostic("bad-key", Span("a.yaml", 3, 5, 3, "    kye: [1]  # error[x]"), "no such [bold]key[/bold]", "try `key`"),
    Diagnostic("odd", Span("a.yaml", 4, 1, 2, "xy"), "odd", severity=Severity.WARNING),
]


def test_a_line_is_styled_in_a_terminal_and_plain_in_a_pipe(capsys: pytest.CaptureFixture[str]) -> None:
    with terminal() as shown:
        output.say("in ", ("2", "bold"), " segments")
    assert shown.getvalue() == "in \x1b[1m2\x1b[0m segments\n"
    output.say("in ", ("2", "bold"), " segments")
    assert capsys.readouterr().out == "in 2 segments\n"


#: What a key may hold: a line of its own, controls, a change of direction, and characters without a width.
FORGING = "ola\nok: all went well\r\x85\u2028\u202egro.live\u200b\u2066\ufeff"


def test_a_key_cannot_forge_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    output.say("the store knows nothing of ", (FORGING, "bold"))
    output.table(["entity"], [[FORGING]])
    output.show_error(SegmentsError(f"there is no {FORGING}", hint=FORGING))
    output.show_diagnostics([Diagnostic("bad", Span("a.yaml", 1, 1, 1, FORGING), FORGING, FORGING)])
    told, remarked = capsys.readouterr()
    assert [len(told.splitlines()), len(remarked.splitlines())] == [1 + 2 + 5, 2]
    assert (told + remarked).replace("\n", "").isprintable()
    assert told.count(r"ola\nok: all went well") == 4
    with terminal() as shown:
        output.say("the store knows nothing of ", (FORGING, "bold"))
    assert len(shown.plain().splitlines()) == 1


def test_an_explanation_keeps_to_its_lines() -> None:
    reason = Reason("user:name equals x", False, value=FORGING)
    at = datetime(2026, 1, 1, tzinfo=UTC)
    explained = str(Explanation(FORGING, "vip", False, at, None, reason, (reason,)))
    assert len(explained.splitlines()) == 4
    assert explained.replace("\n", "").isprintable()


def test_data_is_no_markup_and_no_control_sequence(capsys: pytest.CaptureFixture[str]) -> None:
    harmless = r"a\x1b[2Jb [red]c[/red] :smile:"
    with terminal() as shown:
        output.say(HOSTILE)
        output.table(["name"], [[HOSTILE]])
    assert shown.plain().count(harmless) == 2
    assert "\x1b[2J" not in shown.getvalue()
    output.say(HOSTILE)
    output.table(["name"], [[HOSTILE]])
    output.show_error(SegmentsError(HOSTILE, hint=HOSTILE))
    captured = capsys.readouterr()
    assert captured.out == f"{harmless}\nname\n{harmless}\n"
    assert captured.err == f"error: {harmless}\n  hint: {harmless}\n"


def test_long_lines_are_left_to_the_terminal_to_wrap() -> None:
    with terminal() as shown:
        output.say("x" * 200)
    assert shown.getvalue() == "x" * 200 + "\n"


def test_problems_look_the_same_in_a_terminal_but_for_colours() -> None:
    with terminal() as shown:
        output.show_diagnostics(DIAGNOSTICS)
    assert shown.plain() == render_all(DIAGNOSTICS) + "\n"
    assert "\x1b[1;31m error[bad-key]\x1b[0m" in shown.getvalue()
    assert "\x1b[1;33m warning[odd]\x1b[0m" in shown.getvalue()
    assert "\x1b[1;36mhint\x1b[0m" in shown.getvalue()


def test_refused_definitions_are_shown_on_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    output.show_error(DefinitionError(DIAGNOSTICS))
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", render_all(DIAGNOSTICS) + "\n")


def test_a_table_in_a_terminal_has_all_cells() -> None:
    with terminal() as shown:
        output.table(["segment", "users"], [["vip", "12"], ["everyone", "345"]], right=["users"])
        words = [word for word in shown.plain().split() if word.isalnum()]
        output.table(["segment"], [])
    assert words == ["segment", "users", "vip", "12", "everyone", "345"]
    assert shown.plain().count("segment") == 2


def test_a_table_without_rows_in_a_pipe_has_its_headers(capsys: pytest.CaptureFixture[str]) -> None:
    output.table(["segment", "users"], [])
    assert capsys.readouterr().out == "segment  users\n"


def test_work_is_shown_on_a_terminal_only(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    with output.working("Reading [x]") as show:
        show("still reading")
    assert capsys.readouterr() == ("", "")
    stream = Terminal()
    monkeypatch.setattr("sys.stderr", stream)
    monkeypatch.setenv("TERM", "xterm-256color")
    with output.working("Reading [x]") as show:
        show("Reading [y]")
    assert "Reading [y]" in stream.plain()
    assert "\x1b[2K" in stream.getvalue()  # and is wiped


def test_a_closed_stream_is_no_terminal() -> None:
    closed = io.StringIO()
    closed.close()
    assert output.is_terminal(closed) is False
