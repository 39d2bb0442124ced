# ruff: noqa: E501 - documents are shown as they are
"""Tests of decisions in `*.test.yaml` files: what passes, how a failure reads, and what is wrong with a test itself."""

from __future__ import annotations

from pathlib import Path

import pytest

from rules_engine.errors import DefinitionError
from rules_engine.rules.load import load_text
from rules_engine.simulation.segment_tests import TestReport as Report
from rules_engine.simulation.segment_tests import run_tests
from tests.docs_pages import shop

SHOP = shop()
DEFINITIONS = """\
project: shop
now: 2026-03-02T12:00:00Z
---
segment: pro
when: {feature: user:plan, equals: pro}
---
experiment: offer
arms: {control: {serve: none}, voucher: {serve: voucher}}
start: 2026-03-01T00:00:00Z
stop: 2026-03-10T00:00:00Z
winner: voucher
---
decision: banner
variants:
  none: {value: null}
  voucher: {value: {percent: 10}}
  new_in: {value: {banner: new_in}}
rules:
  - {when: {in_segment: pro}, serve: new_in}
  - {when: {did: add_to_cart, within: 1h}, experiment: offer}
  - {when: {did: purchase, within: 1d}, serve: {none: 90, new_in: 10}}
default: none
"""
LOADED = load_text(DEFINITIONS, SHOP)


def run(tmp_path: Path, body: str, decision: str = "banner") -> Report:
    folder = tmp_path / "segments"
    folder.mkdir(exist_ok=True)
    lines = "".join(f"    {line}\n" for line in body.strip().splitlines())
    text = f"test: {{decision: {decision}}}\ncases:\n  - name: it\n{lines}"
    (folder / "a.test.yaml").write_text(text, encoding="utf-8")
    return run_tests(folder, LOADED, SHOP)


def case(tmp_path: Path, body: str) -> list[str]:
    """Return what the only case finds to be different."""
    return [failure.message for failure in run(tmp_path, body).failures]


CART = "events: [{event: add_to_cart, ago: 10m}]"


@pytest.mark.parametrize(
    "body",
    [
        'entity: "1"\nfeatures: {user:plan: pro}\nexpect: new_in\nreason: rule\nrule: 1',
        'entity: "1"\nexpect: none\nreason: default',
        f'entity: "47"\n{CART}\nexpect: voucher\nreason: experiment\nrule: 2\nthen: [{{after: 50m, expect: none}}]',
        f'entity: "47"\n{CART}\nexpect: voucher\nthen: [{{after: 1d, expect: none}}]\nchanges: [{{after: 50m, to: none}}]',
        f"{CART}\nshares: {{none: 50, voucher: 50}}",
        "events: [{event: purchase, ago: 1h}]\nshares: {none: 90, new_in: 10, voucher: 0}\nwithin: 1",
        f"at: 2026-03-11T00:00:00Z\n{CART}\nshares: {{voucher: 100}}\nwithin: 0.1",
        f"at: 2026-02-11T00:00:00Z\n{CART}\nshares: {{none: 100}}\nwithin: 0.1",
    ],
)
def test_what_is_so_passes(tmp_path: Path, body: str) -> None:
    report = run(tmp_path, body)
    assert [str(failure) for failure in report.failures] == []
    assert report.untested == ("pro",)
    assert report.tested == ("decision banner",)


def test_it_changes_when_an_experiment_stops(tmp_path: Path) -> None:
    body = """\
entity: "3"
at: 2026-03-09T23:30:00Z
events: [{event: add_to_cart, ago: 0s}]
expect: none
then: [{after: 2h, expect: none}]
changes: [{at: 2026-03-10T00:00:00Z, to: voucher}, {at: 2026-03-10T00:30:00Z, to: none}]
"""
    assert case(tmp_path, body.replace("ago: 0s", "at: 2026-03-09T23:30:00Z")) == []


def test_a_failure_says_what_was_got_and_why(tmp_path: Path) -> None:
    (failure,) = run(tmp_path, f'entity: "47"\n{CART}\nexpect: none\nrule: 1').failures
    assert failure.message == "at 2026-03-02T12:00:00Z: expected `none` by rule 1, got `voucher` by rule 2"
    assert "rule 1 is not known to be met" in failure.explanation
    assert "arm `voucher` of the experiment `offer`" in failure.explanation


def test_shares_that_differ(tmp_path: Path) -> None:
    (message,) = case(tmp_path, f"{CART}\nshares: {{none: 80}}\nusers: 1000")
    assert message.startswith("of 1,000 users: expected `none` 80 % and got ")


def test_changes_that_differ(tmp_path: Path) -> None:
    (message,) = case(tmp_path, f'entity: "47"\n{CART}\nexpect: voucher\nchanges: [{{after: 1h}}]')
    assert message == ("changes: expected 2026-03-02T13:00:00Z to `another one`, got 2026-03-02T12:50:00Z to `none`")


@pytest.mark.parametrize(
    ("body", "code", "hint"),
    [
        ('entity: "1"\nexpect: vouchr', "unknown-variant", "did you mean `voucher`?"),
        ("shares: {vouchr: 100}", "unknown-variant", "did you mean `voucher`?"),
        ("expect: none", "missing-key", 'add e.g. `entity: "42"`, or test `shares` over many users'),
        ('entity: "1"\nexpect: none\nchanges: []', "missing-key", "add e.g. `then: [{after: 1d, expect: VARIANT}]`"),
    ],
)
def test_what_is_wrong_with_a_test(tmp_path: Path, body: str, code: str, hint: str) -> None:
    with pytest.raises(DefinitionError) as refused:
        run(tmp_path, body)
    (problem,) = refused.value.diagnostics
    assert (problem.code, problem.hint) == (code, hint)


def test_an_unknown_decision(tmp_path: Path) -> None:
    with pytest.raises(DefinitionError) as refused:
        run(tmp_path, "expect: none", decision="baner")
    assert refused.value.diagnostics[0].hint == "did you mean `banner`?"
