# ruff: noqa: E501 - the messages are shown as they are
"""Tests of triggers in `*.test.yaml` files: what passes, how a failure reads, and what is wrong with a test itself."""

from __future__ import annotations

from pathlib import Path

import pytest

from rules_engine.clock import parse_instant
from rules_engine.errors import DefinitionError
from rules_engine.rules.load import load_text
from rules_engine.simulation.segment_tests import TestReport as Report
from rules_engine.simulation.segment_tests import run_tests
from tests.docs_pages import shop

SHOP = shop()
NOW = parse_instant("2026-03-02T12:00:00Z")

DEFINITIONS = """\
project: shop
now: 2026-03-02T12:00:00Z
consent: {mail: user:newsletter}
---
segment: open_carts
when:
  sequence: [{did: add_to_cart}, {did_not: purchase, within: 30m}]
  within: 24h
---
trigger: recover
on_enter: open_carts
if: {feature: user:plan, not_equals: pro, or_missing: true}
delay: 10m
cancel_if: {did: purchase, within: 10m}
cooldown: 3h
cap: {max: 2, per: 30d}
quiet_hours: {from: "21:00", to: "08:00", timezone: user:timezone}
requires_consent: mail
send: [{stream: reminders}]
payload:
  sku: {last: {event: add_to_cart, of: sku}, within: 1d}
  carts: {count: {event: add_to_cart}, within: 1d}
---
trigger: thanks
on_event: {did: purchase, where: {amount: {at_least: 100}}}
holdout: {percent: 50}
send: [{stream: thanks}]
---
trigger: left
on_exit: open_carts
send: [{stream: left}]
"""
LOADED = load_text(DEFINITIONS, SHOP)
KNOWN = "features: {user:newsletter: true, user:timezone: Europe/Oslo}"


def run(tmp_path: Path, text: str, only: tuple[str, ...] = ()) -> Report:
    folder = tmp_path / "segments"
    folder.mkdir(exist_ok=True)
    (folder / "a.test.yaml").write_text(text, encoding="utf-8")
    return run_tests(folder, LOADED, SHOP, only)


def case(tmp_path: Path, body: str, trigger: str = "recover") -> list[str]:
    """Return what the only case finds to be different."""
    report = run(tmp_path, f"test: {{trigger: {trigger}}}\ncases:\n  - name: it\n" + indented(body))
    return [failure.message for failure in report.failures]


def indented(body: str) -> str:
    return "".join(f"    {line}\n" for line in body.strip().splitlines())


CART = "events: [{event: add_to_cart, after: 5m, sku: A1}]"


def test_it_fires_when_it_is_due_with_its_payload(tmp_path: Path) -> None:
    body = f"{KNOWN}\n{CART}\nuntil: {{after: 2d}}\nfires: [{{after: 45m, payload: {{sku: A1, carts: 1}}}}]"
    assert case(tmp_path, body) == []


def test_only_what_is_given_of_the_payload_is_compared(tmp_path: Path) -> None:
    assert case(tmp_path, f"{KNOWN}\n{CART}\nfires: [{{after: 45m, payload: {{carts: 1}}}}]") == []
    found = case(tmp_path, f"{KNOWN}\n{CART}\nfires: [{{after: 45m, payload: {{carts: 2}}}}]")
    assert found == ['fires: expected 2026-03-02T12:45:00Z {"carts":2}, got 2026-03-02T12:45:00Z {"carts":1}']


def test_what_is_expected_is_complete(tmp_path: Path) -> None:
    assert case(tmp_path, f"{KNOWN}\n{CART}\nuntil: {{after: 2d}}") == [
        "fires: expected none, got 2026-03-02T12:45:00Z"
    ]
    assert case(tmp_path, f"{KNOWN}\n{CART}\nuntil: {{after: 44m}}") == []


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("events: [{event: add_to_cart, after: 5m}, {event: purchase, after: 38m, amount: 5}]", "cancelled: [{after: 38m}]"),
        ("features: {user:newsletter: true, user:timezone: UTC, user:plan: pro}", "suppressed: [{after: 45m, reason: condition}]"),
        ("features: {user:timezone: UTC}", "suppressed: [{after: 45m, reason: consent}]"),
        ("features: {user:newsletter: true}", "suppressed: [{after: 45m, reason: timezone}]"),
        ("features: {user:newsletter: true, user:timezone: Asia/Tokyo}", "fires: [{at: 2026-03-02T23:00:00Z}]"),
        (
            "events: [{event: add_to_cart, after: 5m}, {event: add_to_cart, after: 60m}]",
            "fires: [{after: 45m}]\nsuppressed: [{after: 100m, reason: cooldown}]",
        ),
    ],
)  # fmt: skip
def test_everything_that_keeps_it_from_firing(tmp_path: Path, body: str, expected: str) -> None:
    parts = [body, *(part for part in (KNOWN, CART) if part.split(":")[0] not in body)]
    assert case(tmp_path, "\n".join([*parts, "until: {after: 15h}", expected])) == []


def test_a_trigger_on_an_event_and_one_on_an_exit(tmp_path: Path) -> None:
    events = "events: [{event: purchase, after: 1h, amount: 120}, {event: purchase, after: 2h, amount: 99}]"
    assert case(tmp_path, f"{events}\nentity: d\nfires: [{{after: 1h}}]", "thanks") == []
    assert case(tmp_path, f"{events}\nentity: b\nsuppressed: [{{after: 1h, reason: holdout}}]", "thanks") == []
    assert case(tmp_path, f"{events}\nfires: [{{after: 1h}}]", "thanks") == []  # nobody in particular is not held out
    body = "events: [{event: add_to_cart, ago: 2h}]\nfires: [{after: 22h}]"
    assert case(tmp_path, body, "left") == []


def test_who_is_a_member_at_the_start_does_not_enter(tmp_path: Path) -> None:
    assert case(tmp_path, f"{KNOWN}\nevents: [{{event: add_to_cart, ago: 2h}}]\nuntil: {{after: 10h}}") == []


def test_a_failure_tells_the_whole_story(tmp_path: Path) -> None:
    text = "test: {trigger: recover}\ncases:\n  - name: too early\n" + indented(
        f"{KNOWN}\n{CART}\nfires: [{{after: 30m}}]\nuntil: {{after: 2h}}"
    )
    [failure] = run(tmp_path, text).failures
    assert (
        str(failure)
        == """\
segments/a.test.yaml:3:11: recover: too early
  fires: expected 2026-03-02T12:30:00Z, got 2026-03-02T12:45:00Z
    2026-03-02T12:35:00Z  enters open_carts (timer)
    2026-03-02T12:35:00Z  recover pending, due 2026-03-02T12:45:00Z
    2026-03-02T12:45:00Z  recover fired"""
    )


@pytest.mark.parametrize(
    ("text", "code", "message", "hint"),
    [
        (
            "test: {trigger: recove}\ncases: [{name: x, until: {after: 1d}}]",
            "unknown-trigger", "there is no trigger `recove`", "did you mean `recover`?",
        ),
        (
            "test: recover\ncases: [{name: x, expect: true}]",
            "unknown-segment", "there is no segment `recover`", "it is a trigger: write `test: {trigger: recover}`",
        ),
        (
            "test: {trigger: recover}\ncases: [{name: x}]",
            "missing-key", "a case that expects nothing to happen has to name the instant up to which that is, and this one names none",
            "add e.g. `until: {after: 1d}`",
        ),
        (
            "test: {trigger: recover}\ncases: [{name: x, suppressed: [{after: 1h, reason: cooldwn}]}]",
            "invalid-choice",
            "`reason` is one of `cap`, `condition`, `consent`, `cooldown`, `frequency`, `holdout`, `quiet_hours`, `timezone`",
            "did you mean `cooldown`?",
        ),
        (
            "test: {trigger: recover}\ncases: [{name: x, fire: []}]",
            "unknown-key", "there is no key `fire` here", "did you mean `fires`?",
        ),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_test(tmp_path: Path, text: str, code: str, message: str, hint: str) -> None:
    with pytest.raises(DefinitionError) as caught:
        run(tmp_path, text)
    [found] = caught.value.diagnostics
    assert (found.code, found.message, found.hint) == (code, message, hint)


def test_triggers_without_a_test_are_named_and_single_ones_run(tmp_path: Path) -> None:
    text = "test: {trigger: left}\ncases: [{name: x, until: {after: 1d}}]\n---\ntest: open_carts\ncases: [{name: x, expect: false}]"
    report = run(tmp_path, text)
    assert (report.cases, report.untested) == (2, ("trigger recover", "trigger thanks"))
    assert run(tmp_path, text, only=("left",)).cases == 1


def test_a_case_starts_at_the_now_of_the_project(tmp_path: Path) -> None:
    assert LOADED.settings.now == NOW
    other = LOADED.with_now(NOW + 3_600_000_000)
    (tmp_path / "segments").mkdir()
    text = f"test: {{trigger: recover}}\ncases:\n  - name: it\n    {KNOWN}\n    {CART}\n    fires: [{{at: 2026-03-02T13:45:00Z}}]"
    (tmp_path / "segments" / "a.test.yaml").write_text(text)
    assert run_tests(tmp_path / "segments", other, SHOP).failures == ()
