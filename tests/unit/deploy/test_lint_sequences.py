"""Warnings of steps of a sequence that decide nothing."""

from __future__ import annotations

import pytest

from rules_engine.deploy.lint.segments import lint_segments
from rules_engine.rules.catalog import Catalog
from rules_engine.rules.load import load_text


def warned_of(steps: str, rest: str = "within: 30d") -> list[tuple[str, int, str]]:
    text = f"segment: s\nwhen:\n  sequence: {steps}\n  {rest}\n"
    return [
        (found.code, found.span.column, found.message)
        for found in lint_segments(load_text(text, Catalog(closed=False)))
    ]


@pytest.mark.parametrize(
    ("steps", "column", "why"),
    [
        ("[{did: buy}, {did_not: buy}, {did: buy}]", 26, "would itself be the first"),
        ("[{did: view}, {did_not: buy}, {did: buy}]", 27, "would itself be the second"),
        ("[{did: view}, {did_not: view}, {did: buy}]", 27, "would itself be the first"),
        ("[{did: view}, {did_not: buy, where: {gift: true}}, {did: buy}]", 27, "would itself be the second"),
        ("[{did: view}, {did_not: call}, {did_not: call}, {did: buy}]", 44, "another step forbids"),
        (
            "[{did: view}, {did_not: call, where: {gift: true}}, {did_not: call}, {did: buy}]",
            27,
            "another step forbids",
        ),
        ("[{did: view}, {did: cart}, {did_not: buy}, {did: buy, within: 1h}]", 40, "would itself be the second"),
    ],
)
def test_a_step_that_decides_nothing_is_warned_of(steps: str, column: int, why: str) -> None:
    (code, found, message), *others = warned_of(steps)
    assert (code, found, others) == ("idle-step", column, [])
    assert why in message


@pytest.mark.parametrize(
    "steps",
    [
        "[{did: buy}, {did_not: buy, within: 9d}, {did: buy}]",
        "[{did: view}, {did_not: buy, within: 1h}]",
        "[{did: view}, {did_not: call}, {did: buy}]",
        "[{did: view}, {did_not: buy}, {did: buy, where: {gift: true}}]",
        "[{did: view}, {did_not: buy}, {did_not: call, within: 1h}, {did: buy}]",
        "[{did: view}, {did_not: cart}, {did: cart, within: 1h}, {did: buy, within: 1h}]",
        "[{did: view}, {did: cart, within: 1h}, {did_not: cart}, {did: buy}]",
        "[{did: view}, {did_not: buy}, {did: buy}, {did_not: buy, within: 1d}]",
    ],
)
def test_a_step_that_decides_is_not_warned_of(steps: str) -> None:
    assert warned_of(steps) == []
