# ruff: noqa: E501 - the messages are shown as they are
"""`*.test.yaml` files: what passes, how a failure reads, and what is wrong with a test itself."""

from __future__ import annotations

from pathlib import Path

import pytest

from rules_engine.clock import HOUR, parse_instant
from rules_engine.errors import DefinitionError, UnknownNameError
from rules_engine.rules.catalog import Catalog
from rules_engine.rules.load import load_text
from rules_engine.simulation.case_files import load_cases
from rules_engine.simulation.segment_tests import TestReport as Report
from rules_engine.simulation.segment_tests import run_tests
from tests.docs_pages import shop

SHOP = shop()

SEGMENTS = """\
segment: open_carts
when:
  sequence: [{did: add_to_cart}, {did_not: purchase, within: 30m}]
  within: 24h
---
segment: adults
when: {feature: user:age, at_least: 18}
---
segment: high_scores
when: {feature: engagement:score, at_least: 80}
---
segment: trial_ends_soon
when: {context: trial_ends, in_next: 3d}
---
segment: mobile
when: {context: device, in: [ios, android], default: web}
---
segment: mornings
when: {clock: time_of_day, less_than: "12:00"}
"""
DEFINITIONS = load_text(SEGMENTS, SHOP)
NOW = parse_instant("2026-03-02T12:00:00Z")


def run(
    tmp_path: Path, *texts: str, now: int | None = NOW, only: tuple[str, ...] = (), catalog: Catalog = SHOP
) -> Report:
    folder = tmp_path / "segments"
    folder.mkdir(exist_ok=True)
    for number, text in enumerate(texts):
        (folder / f"{number}.test.yaml").write_text(text, encoding="utf-8")
    definitions = DEFINITIONS.with_now(now)
    return run_tests(folder, definitions, catalog, only)


def problem(tmp_path: Path, case: str, segment: str = "adults") -> tuple[str, str, str, str | None]:
    with pytest.raises(DefinitionError) as caught:
        run(tmp_path, f"test: {segment}\ncases:\n  - {case}\n")
    [found] = caught.value.diagnostics
    return found.code, str(found.span), found.message, found.hint


# --- passing --------------------------------------------------------------------------------------------------------


def test_everything_that_a_case_can_say(tmp_path: Path) -> None:
    report = run(
        tmp_path,
        """
test: open_carts
description: ignored here
cases:
  - name: waits and gives up
    events: [{event: add_to_cart, after: 5m, sku: A1, price: 10}]
    expect: false
    then: [{after: 34m, expect: false}, {after: 35m, expect: true}, {at: 2026-03-03T12:05:00Z, expect: false}]
    enters: [{after: 35m}]
    exits: [{at: 2026-03-03T12:05:00Z}]
  - name: bought
    at: 2026-06-01T00:00:00+02:00
    events: [{event: add_to_cart, ago: 2h}, {event: purchase, at: 2026-05-31T20:10:00Z, amount: 5.5}]
    expect: false
""",
        """
test: adults
cases:
  - {name: of age, features: {user:age: 18}, expect: true}
  - {name: young, features: {user:age: 17}, expect: false}
  - {name: a row without it, features: {user:age: null}, expect: unknown}
  - {name: no row, expect: unknown}
---
test: mobile
cases:
  - {name: passed, context: {device: ios}, expect: true}
  - {name: default, expect: false}
  - {name: of another type, context: {device: 5}, expect: unknown}
""",
    )
    assert (report.cases, report.failures, report.files) == (9, (), 2)
    assert report.tested == ("adults", "mobile", "open_carts")
    assert report.untested == ("high_scores", "mornings", "trial_ends_soon")


def test_only_the_named_segments(tmp_path: Path) -> None:
    texts = [f"test: {name}\ncases: [{{name: x, expect: unknown}}]\n" for name in ("adults", "high_scores")]
    report = run(tmp_path, *texts, only=("adults",))
    assert (report.cases, report.failures) == (1, ())
    with pytest.raises(UnknownNameError, match="there is no segment, decision or trigger `adult`"):
        run(tmp_path, only=("adult",))


def test_a_value_expires_with_its_row(tmp_path: Path) -> None:
    report = run(
        tmp_path,
        """
test: high_scores
cases:
  - name: seven days are the ttl
    features: {engagement:score: 90}
    updated_at: {engagement: {ago: 6d}}
    expect: true
    then: [{after: 1d, expect: true}, {after: 86401s, expect: unknown}]
    exits: [{at: 2026-03-03T12:00:00.000001Z}]
  - name: a row of tomorrow
    features: {engagement:score: 90}
    updated_at: {engagement: {after: 1d}}
    expect: true
    then: [{after: 8d, expect: true}, {after: 9d, expect: unknown}]
  - name: without an age nothing expires
    features: {engagement:score: 90}
    expect: true
    then: [{after: 900d, expect: true}]
""",
    )
    assert report.failures == ()


def test_a_time_in_the_context_is_an_instant(tmp_path: Path) -> None:
    text = """
test: trial_ends_soon
cases:
  - name: three days before
    context: {trial_ends: 2026-03-06T12:00:00Z}
    expect: false
    enters: [{at: 2026-03-03T12:00:00Z}]
  - {name: not passed, context: {trial_ends: null}, expect: unknown}
"""
    assert run(tmp_path, text).failures == ()
    code, place, message, _ = problem(
        tmp_path, "{name: x, context: {trial_ends: tomorrow}, expect: true}", "trial_ends_soon"
    )
    assert (code, place) == ("invalid-instant", "segments/0.test.yaml:3:37")
    assert "`tomorrow` is not an instant" in message


def test_one_event_is_delivered_twice(tmp_path: Path) -> None:
    definitions = load_text("segment: twice\nwhen: {did: view, within: 1d, count: {at_least: 2}}\n", SHOP)
    (tmp_path / "segments").mkdir()
    path = tmp_path / "segments/a.test.yaml"
    path.write_text(
        "test: twice\ncases:\n"
        "  - {name: one, events: [{event: view, ago: 1h, event_id: a}, {event: view, ago: 2h, event_id: a}], expect: false}\n"
        "  - {name: two, events: [{event: view, ago: 1h}, {event: view, ago: 1h}], expect: true}\n"
    )
    assert run_tests(tmp_path / "segments", definitions, SHOP).failures == ()


def test_the_wall_clock_where_no_instant_is_given(tmp_path: Path) -> None:
    case = "{name: x, events: [{event: add_to_cart, ago: 31m}], expect: true}"
    assert run(tmp_path, f"test: open_carts\ncases: [{case}]\n", now=None).failures == ()


def test_the_answer_may_pass_through_unknown(tmp_path: Path) -> None:
    """Unknown is no member: from true to unknown is an exit, from false to unknown nothing."""
    text = """
test: high_scores
cases:
  - {name: true to unknown, features: {engagement:score: 90}, updated_at: {engagement: {ago: 6d}}, expect: true, then: [{after: 2d, expect: unknown}], enters: [], exits: [{at: 2026-03-03T12:00:00.000001Z}]}
  - {name: false to unknown, features: {engagement:score: 9}, updated_at: {engagement: {ago: 6d}}, expect: false, then: [{after: 2d, expect: unknown}], enters: [], exits: []}
"""
    assert run(tmp_path, text).failures == ()


# --- failing --------------------------------------------------------------------------------------------------------


def test_a_failure_says_where_what_and_why(tmp_path: Path) -> None:
    report = run(
        tmp_path,
        """
test: open_carts
cases:
  - name: bought in time
    events: [{event: add_to_cart, ago: 40m}, {event: purchase, ago: 20m}]
    expect: true
    then: [{after: 1h, expect: unknown}]
""",
    )
    assert "\n".join(map(str, report.failures)) == """\
segments/0.test.yaml:4:11: open_carts: bought in time
  at 2026-03-02T12:00:00Z: expected true, got false
    the case is not in open_carts at 2026-03-02T12:00:00Z
    └─ false: sequence: add_to_cart, then no purchase within 30m; all within 1d (events at 2026-03-02T11:20:00Z, 2026-03-02T11:40:00Z)
    nearest miss: one condition would have to change
      - false: sequence: add_to_cart, then no purchase within 30m; all within 1d (events at 2026-03-02T11:20:00Z, 2026-03-02T11:40:00Z)
segments/0.test.yaml:4:11: open_carts: bought in time
  at 2026-03-02T13:00:00Z: expected unknown, got false
    the case is not in open_carts at 2026-03-02T13:00:00Z
    └─ false: sequence: add_to_cart, then no purchase within 30m; all within 1d (events at 2026-03-02T11:20:00Z, 2026-03-02T11:40:00Z)
    nearest miss: one condition would have to change
      - false: sequence: add_to_cart, then no purchase within 30m; all within 1d (events at 2026-03-02T11:20:00Z, 2026-03-02T11:40:00Z)"""  # fmt: skip


@pytest.mark.parametrize(
    ("moves", "message"),
    [
        ("enters: [{after: 36m}]", "enters: expected 2026-03-02T12:36:00Z, got 2026-03-02T12:35:00Z"),
        ("enters: [{after: 35m}, {after: 40m}]", "enters: expected 2026-03-02T12:35:00Z, 2026-03-02T12:40:00Z, got 2026-03-02T12:35:00Z"),
        ("enters: [{after: 35m}, {after: 35m}]", "enters: expected 2026-03-02T12:35:00Z, 2026-03-02T12:35:00Z, got 2026-03-02T12:35:00Z"),
        ("{enters: [], then: [{after: 1h, expect: true}]}", "enters: expected none, got 2026-03-02T12:35:00Z"),
        ("exits: [{after: 1h}]", "exits: expected 2026-03-02T13:00:00Z, got none"),
        ("exits: [{after: 1444m}]", "exits: expected 2026-03-03T12:04:00Z, got none"),
        ("exits: [{after: 1446m}]", "exits: expected 2026-03-03T12:06:00Z, got 2026-03-03T12:05:00Z"),
    ],
)  # fmt: skip
def test_moves_that_differ(tmp_path: Path, moves: str, message: str) -> None:
    given = moves.strip("{}") if moves.startswith("{") else moves
    case = f"{{name: x, events: [{{event: add_to_cart, after: 5m}}], expect: false, {given}}}"
    [failure] = run(tmp_path, f"test: open_carts\ncases: [{case}]\n").failures
    assert failure.message == message


def test_the_explanation_is_of_the_instant_at_which_it_differs(tmp_path: Path) -> None:
    case = "{name: x, events: [{event: add_to_cart, after: 5m}], expect: false, enters: [{after: 50m}]}"
    [failure] = run(tmp_path, f"test: open_carts\ncases: [{case}]\n").failures
    assert failure.explanation.startswith(
        "the case is in open_carts at 2026-03-02T12:35:00Z, until 2026-03-03T12:05:00Z"
    )


def test_clock_conditions_end_with_the_case(tmp_path: Path) -> None:
    """A clock goes on for ever; a case looks no further than the last instant that it names."""
    case = (
        "{name: x, at: 2026-03-02T11:00:00Z, expect: true, exits: [{after: 1h}, {after: 25h}], enters: [{after: 13h}]}"
    )
    assert run(tmp_path, f"test: mornings\ncases: [{case}]\n").failures == ()


# --- tests that are wrong themselves --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("case", "code", "column", "hint"),
    [
        ("{name: x, features: {user:aeg: 5}, expect: true}", "unknown-feature", 26, "did you mean `user:age`?"),
        ("{name: x, features: {events:carts: 5}, expect: true}", "unknown-feature", 26, "it is computed from events: write those under `events`"),
        ("{name: x, features: {user:age: '5'}, expect: true}", "literal-type", 36, "remove the quotes"),
        ("{name: x, features: {user:age: [5]}, expect: true}", "literal-type", 36, None),
        ("{name: x, features: {user:tags: vip}, expect: true}", "literal-type", 37, None),
        ("{name: x, features: {user:signup: 2026-01-01}, expect: true}", "instant-without-offset", 39, None),
        ("{name: x, updated_at: {users: {ago: 1d}}, expect: true}", "unknown-feature", 28, "did you mean `user`?"),
        ("{name: x, updated_at: {user: {}}, expect: true}", "missing-key", 34, None),
        ("{name: x, updated_at: {user: 2026-01-01T00:00:00Z}, expect: true}", "wrong-shape", 34, None),
        ("{name: x, events: [{event: look, ago: 1d}], expect: true}", "unknown-event", 32, "the events are `add_to_cart`, `purchase`, `view`, `visit`"),
        ("{name: x, events: [{event: veiw, ago: 1d}], expect: true}", "unknown-event", 32, "did you mean `view`?"),
        ("{name: x, events: [{event: view, ago: 1d, colour: red}], expect: true}", "unknown-property", 47, "it has `category`, `list_price`, `price`, `sku`"),
        ("{name: x, events: [{event: view, ago: 1d, price: red}], expect: true}", "literal-type", 54, None),
        ("{name: x, events: [{event: view}], expect: true}", "missing-key", 24, None),
        ("{name: x, events: [{event: view, ago: 1d, at: 2026-01-01T00:00:00Z}], expect: true}", "missing-key", 24, None),
        ("{name: x, events: [{event: view, ago: 1 day}], expect: true}", "invalid-duration", 43, None),
        ("{name: x, at: 2026-01-01T00:00:00, expect: true}", "instant-without-offset", 19, None),
        ("{name: x, expect: maybe}", "invalid-choice", 23, None),
        ("{name: x, expect: yes}", "invalid-choice", 23, None),
        ("{expect: true}", "missing-key", 5, "add `name: ...`"),
        ("{name: x}", "missing-key", 5, "add `expect: ...`"),
        ("{name: x, expects: true, expect: true}", "unknown-key", 15, "did you mean `expect`?"),
        ("{name: one, and another, expect: true}", "unknown-key", 17, "inside `{...}` a comma ends a value: put the whole text in quotes"),
        ("{name: x, expect: true, then: [{expect: true}]}", "missing-key", 36, None),
        ("{name: x, expect: true, then: [{after: 1d}]}", "missing-key", 36, "add `expect: ...`"),
        ("{name: x, expect: true, enters: [{at: 2026-01-01T00:00:00Z, ago: 1d}]}", "unknown-key", 65, None),
        ("{name: x, expect: true, enters: []}", "missing-key", 5, "add e.g. `then: [{after: 1d, expect: false}]`"),
        ("{name: x, expect: true, exits: []}", "missing-key", 5, "add e.g. `then: [{after: 1d, expect: false}]`"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_case(tmp_path: Path, case: str, code: str, column: int, hint: str | None) -> None:
    found_code, place, _, found_hint = problem(tmp_path, case)
    assert (found_code, place) == (code, f"segments/0.test.yaml:3:{column}")
    if hint is not None:
        assert found_hint == hint


def test_all_that_is_wrong_comes_together(tmp_path: Path) -> None:
    with pytest.raises(DefinitionError) as caught:
        run(
            tmp_path,
            "test: adult\ncases: [{name: x, expect: true}]\n---\ntest: adults\ncases:\n  - {name: x, features: {a:b: 1}, expect: true}\n  - {name: y, context: {z: 1}, features: {c:d: 1}, expect: true}\n",
            "tests: adults\n",
            "test: adults\ncases: [\n",
        )
    found = [(str(problem.span), problem.code) for problem in caught.value.diagnostics]
    assert found == [
        ("segments/2.test.yaml:3:1", "yaml-syntax"),
        ("segments/0.test.yaml:1:7", "unknown-segment"),
        ("segments/0.test.yaml:6:26", "unknown-feature"),
        ("segments/0.test.yaml:7:43", "unknown-feature"),
        ("segments/1.test.yaml:1:1", "missing-key"),
        ("segments/1.test.yaml:1:1", "missing-key"),
        ("segments/1.test.yaml:1:1", "unknown-key"),
    ]
    assert caught.value.diagnostics[1].hint == "did you mean `adults`?"


def test_with_an_open_catalog_any_name_passes(tmp_path: Path) -> None:
    text = "test: adults\ncases: [{name: x, features: {user:age: 20, other:thing: x}, updated_at: {other: {ago: 1d}}, events: [{event: look, ago: 1h, colour: red}], expect: true}]\n"
    report = run(tmp_path, text, catalog=Catalog(closed=False))
    assert (report.cases, report.failures) == (1, ())


def test_cases_know_their_start_and_end(tmp_path: Path) -> None:
    path = tmp_path / "a.test.yaml"
    path.write_text(
        "test: adults\ncases: [{name: x, at: 2026-03-02T12:00:00Z, expect: unknown, then: [{after: 1h, expect: unknown}]}]\n"
    )
    [case], problems = load_cases([path], tmp_path, DEFINITIONS, SHOP)
    assert (case.start, case.end, problems) == (NOW, NOW + HOUR, [])


def test_a_folder_without_tests(tmp_path: Path) -> None:
    report = run(tmp_path)
    assert (report.cases, report.files, report.untested) == (0, 0, DEFINITIONS.program.names)
