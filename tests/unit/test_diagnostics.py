# ruff: noqa: E501 - the messages are shown as they are
"""How problems are shown: place, line, caret, code, hint; all of them, in order."""

from __future__ import annotations

import pytest

from rules_engine.diagnostics import Diagnostic, Severity, Span, listing, nearest, render_all
from rules_engine.errors import DefinitionError, MissingExtraError, SegmentsError
from rules_engine.rules.load import load_text
from tests.docs_pages import shop


def refusal(text: str) -> str:
    with pytest.raises(DefinitionError) as caught:
        load_text(text, shop(), "segments/a.yaml")
    return str(caught.value)


def test_everything_that_is_wrong_in_one_go() -> None:
    text = """\
segment: Nordics
owner: 5
when:
  any:
    - {feature: user:cuontry, in: [NO, SE, null]}
    - {feature: user:age, at_least: "18", or_missing: maybe}
    - {did: purchase, within: 30, count: 3}
    - {did: view, within: 1y, where: {prise: {over: 5}}}
    - all: []
    - {in_segment: vips}
---
segment: nordics
when: {feature: user:signup, before: 2026-13-01T00:00:00Z}
---
segment: nordics
when: {sequence: [{did: view}, {did_not: purchase}]}
"""
    assert (
        refusal(text)
        == """\
segments/a.yaml:1:10: error[invalid-name]: `segment` has a name that cannot be used
    1 | segment: Nordics
      |          ^^^^^^^
  hint: write small letters, digits and underscores, starting with a letter, at most 63
segments/a.yaml:2:8: error[wrong-shape]: `owner` is a string, not `5`
    2 | owner: 5
      |        ^
  hint: quote it
segments/a.yaml:5:17: error[unknown-feature]: there is no feature `user:cuontry`
    5 |     - {feature: user:cuontry, in: [NO, SE, null]}
      |                 ^^^^^^^^^^^^
  hint: did you mean `user:country`?
segments/a.yaml:6:55: error[literal-type]: `or_missing` is `true` or `false`, not the string "maybe"
    6 |     - {feature: user:age, at_least: "18", or_missing: maybe}
      |                                                       ^^^^^
segments/a.yaml:7:31: error[invalid-duration]: the number 30 is not a duration: write e.g. `30m`, `24h`, `7d`
    7 |     - {did: purchase, within: 30, count: 3}
      |                               ^^
  hint: write the unit, e.g. `30m`
segments/a.yaml:8:27: error[calendar-duration]: `1y`: months and years differ in length and are no durations; write days, e.g. `30d` or `365d`
    8 |     - {did: view, within: 1y, where: {prise: {over: 5}}}
      |                           ^^
segments/a.yaml:8:39: error[unknown-property]: the event `view` has no property `prise`
    8 |     - {did: view, within: 1y, where: {prise: {over: 5}}}
      |                                       ^^^^^
  hint: did you mean `price`?
segments/a.yaml:9:12: error[empty-list]: `all` is empty, and would match everyone or nobody
    9 |     - all: []
      |            ^^
  hint: list a condition
segments/a.yaml:10:20: error[unknown-segment]: there is no segment `vips`
   10 |     - {in_segment: vips}
      |                    ^^^^
  hint: there are `Nordics`, `nordics`
segments/a.yaml:13:38: error[invalid-instant]: `2026-13-01T00:00:00Z` is not an instant: month must be in 1..12
   13 | when: {feature: user:signup, before: 2026-13-01T00:00:00Z}
      |                                      ^^^^^^^^^^^^^^^^^^^^
segments/a.yaml:15:10: error[duplicate-segment]: there is another segment `nordics` at segments/a.yaml:12
   15 | segment: nordics
      |          ^^^^^^^
  hint: rename one of them
segments/a.yaml:16:32: error[sequence-last-within]: a last `did_not` needs `within`: how long nothing must happen before the sequence is complete
   16 | when: {sequence: [{did: view}, {did_not: purchase}]}
      |                                ^^^^^^^^^^^^^^^^^^^
  hint: add e.g. `within: 30m`
12 errors"""
    )


def test_control_characters_never_reach_a_terminal() -> None:
    shown = str(Diagnostic("bad", Span("a.yaml", 1, 6, 3, "a: \x1b[\tb"), "no good"))
    assert "\x1b" not in shown
    assert shown.splitlines()[1] == "    1 | a:  [ b"


def test_the_caret_is_one_wide_at_least_and_stands_in_a_line_past_99999() -> None:
    shown = str(Diagnostic("bad", Span("a.yaml", 1234567, 3, 0, "a: b"), "no good"))
    assert shown.splitlines()[1:] == ["1234567 | a: b", "        |   ^"]


def test_order_and_count() -> None:
    problems = [
        Diagnostic("c", Span("b.yaml", 1, 1), "third"),
        Diagnostic("b", Span("a.yaml", 10, 1), "second", severity=Severity.WARNING),
        Diagnostic("a", Span("a.yaml", 9, 7), "first"),
    ]
    lines = render_all(problems).splitlines()
    assert [line.split(": ")[-1] for line in lines] == ["first", "second", "third", "2 errors, 1 warning"]
    assert lines[1] == "a.yaml:10:1: warning[b]: second"
    assert render_all([]) == ""


def test_a_definition_error_carries_its_diagnostics() -> None:
    problem = Diagnostic("a", Span("a.yaml", 9, 7), "first", "try again")
    error = DefinitionError([problem])
    assert isinstance(error, SegmentsError)
    assert error.diagnostics == (problem,)
    assert str(error) == "a.yaml:9:7: error[a]: first\n  hint: try again\n1 error"


def test_a_missing_extra_says_how_to_install_it() -> None:
    error = MissingExtraError("duckdb", "duckdb", "evaluate_sql")
    assert str(error) == "evaluate_sql needs the package 'duckdb', which is not installed"
    assert error.hint == "pip install 'feast-segments[duckdb]'"


@pytest.mark.parametrize(
    ("name", "known", "hint"),
    [
        ("equal", ["equals", "exists"], "did you mean `equals`?"),
        ("atleast", ["at_least", "at_most"], "did you mean `at_least`?"),
        ("AT_LEAST", ["at_least", "at_most"], "did you mean `at_least`?"),
        ("Country", ["country"], "did you mean `country`?"),
        ("xyz", ["equals"], None),
        ("", ["equals"], None),
        ("equals", [], None),
    ],
)
def test_the_nearest_name(name: str, known: list[str], hint: str | None) -> None:
    assert nearest(name, known) == hint


def test_a_long_list_of_names_is_cut() -> None:
    assert listing([f"n{number:02d}" for number in range(15)], limit=3) == "`n00`, `n01`, `n02` and 12 more"
    assert listing([]) == ""
