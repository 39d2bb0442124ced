# ruff: noqa: E501 - documents are shown as they are
"""Documents of decisions, experiments and metrics: what is read, what is refused and where, and who gets what."""

from __future__ import annotations

import json

import pytest
from jsonschema import Draft7Validator

from rules_engine.clock import parse_instant
from rules_engine.definitions.source import read_documents, to_plain
from rules_engine.diagnostics import Diagnostic
from rules_engine.errors import DefinitionError
from rules_engine.rules.catalog import Catalog
from rules_engine.rules.decisions.choosing import ChoiceReason, Chooser
from rules_engine.rules.decisions.nodes import ExperimentRef, Serve, Split
from rules_engine.rules.experiments.nodes import Status
from rules_engine.rules.json_schema import build_schema
from rules_engine.rules.load import Definitions, conditions_of, decode_definitions, load_text
from rules_engine.rules.metrics.nodes import Goal, MetricForm
from rules_engine.sdk.rules import encode_definitions

OPEN = Catalog(closed=False)

TEXT = """\
project: shop
holdout: {percent: 5}
---
segment: champions
when: {feature: u:spend, at_least: 100}
---
metric: bought
did: purchase
where: {amount: {at_least: 10}}
within: 14d
---
metric: spend
sum: {event: purchase, of: amount}
within: 14d
cap: {percentile: 99}
---
metric: orders
count: {event: purchase}
within: 14d
---
metric: came_back
retained: {did: visit, after: 7d, within: 7d}
goal: increase
---
metric: complaints
did: complaint
within: 7d
goal: decrease
---
metric: per_order
ratio: [spend, orders]
---
experiment: offer
hypothesis: A voucher brings lapsed champions back
arms: {control: {serve: none, weight: 50}, voucher: {serve: voucher, weight: 50}}
coverage: 80
exclusive: {group: home, from: 0, to: 50}
start: 2026-12-01T00:00:00Z
stop: 2026-12-15T00:00:00Z
winner: voucher
metrics: {primary: bought, secondary: [spend, per_order], guardrails: [complaints]}
covariate: u:spend
---
decision: banner
variants:
  none: {value: null}
  voucher: {value: {banner: voucher, percent: 10}}
  new_in: {value: {banner: new_in}}
rules:
  - {when: {in_segment: champions}, serve: new_in}
  - {when: {feature: u:lapsed, equals: true}, experiment: offer}
  - {serve: {none: 90, new_in: 10}, seed: march}
default: none
public: true
"""
LOADED = load_text(TEXT, OPEN)


def refused(text: str) -> list[Diagnostic]:
    with pytest.raises(DefinitionError) as error:
        load_text(text, OPEN, "d.yaml")
    return list(error.value.diagnostics)


# --- what is read ---------------------------------------------------------------------------------------------------


def test_a_decision_is_read() -> None:
    decision = LOADED.decisions["banner"]
    assert [rule.serve for rule in decision.rules] == [
        Serve("new_in"),
        ExperimentRef("offer"),
        Split("march", ("none", "new_in"), (0.9, 0.1)),
    ]
    assert (decision.type, decision.default, decision.public) == ("object", "none", True)
    assert decision.variant("voucher").value == {"banner": "voucher", "percent": 10}
    assert list(conditions_of(LOADED))[1:] == ["decision.banner.rule_1", "decision.banner.rule_2"]


def test_an_experiment_is_read() -> None:
    offer = LOADED.experiments["offer"]
    assert offer.seed == "offer"
    assert offer.coverage == 0.8
    assert offer.metrics == ("bought", "spend", "per_order", "complaints")
    assert str(offer.exclusive) == "home from 0 to 50"


def test_metrics_are_read() -> None:
    metrics = LOADED.metrics
    assert {name: metric.form for name, metric in metrics.items()} == {
        "bought": MetricForm.SHARE,
        "spend": MetricForm.MEAN,
        "orders": MetricForm.MEAN,
        "came_back": MetricForm.SHARE,
        "complaints": MetricForm.SHARE,
        "per_order": MetricForm.RATIO,
    }
    assert metrics["complaints"].goal is Goal.DECREASE
    assert metrics["came_back"].lasts == 14 * 86_400_000_000


def test_all_come_back_from_a_read_plan() -> None:
    encoded = json.loads(json.dumps(encode_definitions(LOADED), sort_keys=True))
    decoded = decode_definitions(encoded)
    assert decoded.decisions == LOADED.decisions
    assert decoded.experiments == LOADED.experiments
    assert decoded.metrics == LOADED.metrics
    assert decoded.settings.holdout == LOADED.settings.holdout == 0.05


def test_editors_accept_what_is_accepted() -> None:
    validator = Draft7Validator(build_schema(OPEN))
    for document in read_documents(TEXT, "d.yaml")[0]:
        assert [error.message for error in validator.iter_errors(to_plain(document))] == []


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        ("true", "boolean"),
        ('"a"', "string"),
        ("1.5", "number"),
        ("[1]", "array"),
        ("{a: 1}", "object"),
        ("null", "object"),
    ],
)
def test_values_have_a_type(values: str, kind: str) -> None:
    text = f"decision: d\nvariants: {{a: {{value: {values}}}, b: {{value: null}}}}\ndefault: a"
    assert load_text(text, OPEN).decisions["d"].type == kind


# --- what is refused ------------------------------------------------------------------------------------------------

DECISION = """\
decision: d
variants: {on: {value: true}, off: {value: false}}
rules:
  - RULE
default: off
"""
EXPERIMENT = "experiment: e\narms: {control: {serve: off}, on: {serve: on}}\n"


@pytest.mark.parametrize(
    ("rule", "code", "place", "hint"),
    [
        ("{serve: onn}", "unknown-variant", (4, 13), "did you mean `on`?"),
        ("{when: {in_segment: vip}}", "missing-key", (4, 5), "write e.g. `serve: VARIANT`, or name an `experiment`"),
        ("{serve: on, experiment: e}", "missing-key", (4, 5), "write e.g. `serve: VARIANT`, or name an `experiment`"),
        (
            "{serve: {on: 50, off: 40}}",
            "wrong-weights",
            (4, 13),
            "change a weight, or leave all of them out for equal ones",
        ),
        ("{serve: {on: 150, off: -50}}", "invalid-percent", (4, 18), None),
        ("{serve: {on: 50%, off: 50}}", "invalid-percent", (4, 18), "write 50 for 50 %"),
        ("{serve: {on: 33.333, off: 66.667}}", "invalid-percent", (4, 18), None),
        ("{serve: {on: 100}}", "wrong-weights", (4, 13), "write `serve: VARIANT`"),
        ("{experiment: e}", "unknown-experiment", (4, 18), "write a document `experiment: e`"),
        ("{serve: on, seed: s}", "unknown-key", (4, 17), "remove it"),
        ("{serve: on, wen: {}}", "unknown-key", (4, 17), "did you mean `when`?"),
        ("{serve: on, when: {feature: u:x, equal: 1}}", "unknown-operator", (4, 38), "did you mean `equals`?"),
    ],
)
def test_a_rule_is_refused_at_its_place(rule: str, code: str, place: tuple[int, int], hint: str | None) -> None:
    (problem,) = refused(DECISION.replace("RULE", rule))
    assert (problem.code, problem.hint) == (code, hint)
    assert (problem.span.line, problem.span.column) == place


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("decision: d\nvariants: {a: {value: 1}, b: {value: x}}\ndefault: a", "value-type"),
        ("decision: d\nvariants: {a: {value: 1}}\ndefault: b", "unknown-variant"),
        ("decision: d\nvariants: {a: {valu: 1}}\ndefault: a", "unknown-key"),
        ("decision: d\nvariants: {A: {value: 1}}\ndefault: A", "invalid-name"),
        ("decision: d\nvariants: {}\ndefault: a", "empty-list"),
        ("segment: d\nwhen: {feature: u:x, equals: 1}\n---\ndecision: d\nvariants: {a: {value: 1}}\ndefault: a", "duplicate-decision"),
        (EXPERIMENT.replace("control", "base"), "missing-control"),
        (EXPERIMENT.replace("serve: on}", "serve: on, weight: 10}"), "missing-weight"),
        ("experiment: e\narms: {control: {serve: off}}", "too-few-entries"),
        (EXPERIMENT + "stop: 2026-01-01T00:00:00Z", "missing-key"),
        (EXPERIMENT + "start: 2026-01-02T00:00:00Z\nstop: 2026-01-01T00:00:00Z", "never-runs"),
        (EXPERIMENT + "start: 2026-01-02", "instant-without-offset"),
        (EXPERIMENT + "winner: on", "missing-key"),
        (EXPERIMENT + "start: 2026-01-01T00:00:00Z\nstop: 2026-01-02T00:00:00Z\nwinner: no", "unknown-arm"),
        (EXPERIMENT + "coverage: 101", "invalid-percent"),
        (EXPERIMENT + "phase: 0", "invalid-count"),
        (EXPERIMENT + "exclusive: {group: g, from: 50, to: 50}", "empty-slice"),
        (EXPERIMENT + "metrics: {primary: nothing}", "unknown-metric"),
        (EXPERIMENT + "---\n" + DECISION.replace("{on:", "{yes:").replace("RULE", "{experiment: e}"), "unknown-variant"),
        (
            EXPERIMENT + "exclusive: {group: g, from: 0, to: 60}\n---\n"
            + EXPERIMENT.replace("experiment: e", "experiment: f") + "exclusive: {group: g, from: 50, to: 100}",
            "overlapping-experiments",
        ),
        ("metric: m\nwithin: 1d", "missing-key"),
        ("metric: m\ndid: a", "missing-key"),
        ("metric: m\ndid: a\nsum: {event: a, of: b}\nwithin: 1d", "several-forms"),
        ("metric: m\ndid: a\nwithin: 1d\ncap: {percentile: 99}", "unknown-key"),
        ("metric: m\nsum: {event: a, of: b}\nwithin: 1d\ncap: {percentile: 5}", "invalid-percent"),
        ("metric: m\nratio: [a, b]", "unknown-metric"),
        ("metric: m\ndid: a\nwithin: 1d\n---\nmetric: r\nratio: [m, m]\n---\nmetric: q\nratio: [r, m]", "ratio-of-ratios"),
        ("metric: m\ndid: a\nwithin: {calendar: month}", "wrong-shape"),
        ("project: p\nholdout: {percent: 60}", "invalid-percent"),
    ],
)  # fmt: skip
def test_a_document_is_refused(text: str, code: str) -> None:
    assert code in [problem.code for problem in refused(text)]


def test_problems_of_all_documents_are_told_together() -> None:
    text = EXPERIMENT + "coverage: 200\n---\n" + DECISION.replace("RULE", "{serve: onn}")
    assert sorted(problem.code for problem in refused(text)) == ["invalid-percent", "unknown-variant"]


# --- who gets what --------------------------------------------------------------------------------------------------


def chooser(definitions: Definitions = LOADED, holdout: float = 0.0) -> Chooser:
    return Chooser(definitions.decisions["banner"], definitions.experiments, holdout)


BEFORE, DURING, AFTER = (parse_instant(f"2026-12-{day}T00:00:00Z") - 1 for day in ("01", "02", "16"))
RULE_1, RULE_2 = "decision.banner.rule_1", "decision.banner.rule_2"


def test_the_first_rule_that_serves_decides() -> None:
    assert chooser().choose("1", {RULE_1, RULE_2}, DURING).rule == 1
    assert chooser().choose("1", set(), DURING).reason is ChoiceReason.SPLIT


def test_an_experiment_has_a_life() -> None:
    statuses = [LOADED.experiments["offer"].status(at) for at in (BEFORE, DURING, AFTER)]
    assert statuses == [Status.DRAFT, Status.RUNNING, Status.SHIPPED]
    before, during, after = ([chooser().choose(str(unit), {RULE_2}, at) for unit in range(2_000)]
                             for at in (BEFORE, DURING, AFTER))  # fmt: skip
    assert {choice.reason for choice in before} == {ChoiceReason.SPLIT}  # a draft is passed over
    assert {choice.reason for choice in during} == {ChoiceReason.SPLIT, ChoiceReason.EXPERIMENT}
    assert {(choice.reason, choice.variant) for choice in after} == {(ChoiceReason.SHIPPED, "voucher")}
    taking_part = [choice for choice in during if choice.reason is ChoiceReason.EXPERIMENT]
    assert 0.36 < len(taking_part) / 2_000 < 0.44  # half of the group, and 80 % of it
    assert {choice.phase for choice in taking_part} == {1}
    assert {choice.arm for choice in taking_part} == {"control", "voucher"}


def test_those_held_out_take_part_in_nothing() -> None:
    held_out = [str(unit) for unit in range(2_000)
                if chooser(holdout=0.2).choose(str(unit), {RULE_2}, AFTER).reason is not ChoiceReason.SHIPPED]  # fmt: skip
    assert 0.16 < len(held_out) / 2_000 < 0.24
    _, skipped = chooser(holdout=0.2).trace(held_out[0], {RULE_2}, DURING)
    assert [skip.why for skip in skipped] == ["held out of all experiments"]


def test_a_new_phase_assigns_anew() -> None:
    again = load_text(TEXT.replace("coverage: 80", "phase: 2\ncoverage: 80"), OPEN)
    assert again.experiments["offer"].seed == "offer.2"
    arms = [(chooser().choose(str(unit), {RULE_2}, DURING).arm, chooser(again).choose(str(unit), {RULE_2}, DURING).arm)
            for unit in range(2_000)]  # fmt: skip
    both = [(first, second) for first, second in arms if first and second]
    assert 0.4 < sum(first == second for first, second in both) / len(both) < 0.6


def test_exclusive_experiments_have_nobody_in_common() -> None:
    text = TEXT.replace("experiment: offer\nhyp", "experiment: rival\nexclusive: {group: home, from: 50, to: 100}\n"
                        "arms: {control: {serve: none}, new: {serve: new_in}}\nstart: 2026-12-01T00:00:00Z\n---\n"
                        "experiment: offer\nhyp").replace("  - {serve: {none", "  - {experiment: rival}\n  - {serve: {none")  # fmt: skip
    both = load_text(text, OPEN)
    rival = load_text(text.replace("  - {when: {feature: u:lapsed, equals: true}, experiment: offer}\n", ""), OPEN)
    for unit in map(str, range(500)):
        in_offer = chooser(both).choose(unit, {RULE_2}, DURING).experiment == "offer"
        in_rival = chooser(rival).choose(unit, set(), DURING).experiment == "rival"
        assert not (in_offer and in_rival)
