"""Triggers from YAML: what they become, what a read plan carries of them, and what is warned of."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from rules_engine.clock import DAY, HOUR, MINUTE, SECOND
from rules_engine.deploy.lint.settings import lint_settings
from rules_engine.deploy.lint.triggers import lint_triggers
from rules_engine.errors import ProjectError
from rules_engine.project.versions import Version, check_features
from rules_engine.read_plan import Connection, PlanFeature, PlanView, ReadPlan
from rules_engine.rules.aggregates import Aggregate
from rules_engine.rules.load import Definitions, load_text
from rules_engine.rules.nodes import EventAggregate, EventMatch, FeatureRef, SegmentRef
from rules_engine.rules.settings.codec import decode_consent, decode_sinks
from rules_engine.rules.settings.nodes import Consent, SinkRef
from rules_engine.rules.triggers.codec import decode_triggers
from rules_engine.rules.triggers.nodes import (
    Cap,
    Constant,
    OnEnter,
    OnEvent,
    OnExit,
    QuietHours,
    QuietPolicy,
    hidden_segments,
    payload_aggregates,
    payload_features,
)
from rules_engine.rules.types import INTEGER, STRING
from rules_engine.sdk.rules import Rules, encode_definitions
from rules_engine.sinks.kinds.file import FileSettings
from rules_engine.sinks.kinds.kafka import KafkaSettings
from rules_engine.sinks.kinds.webhook import WebhookSettings
from tests.conformance.test_refusals import CATALOG, PROJECT, SEGMENT


def load(trigger: str, project: str = PROJECT, segments: str = SEGMENT) -> Definitions:
    return load_text(f"{project}---\n{segments}---\n{trigger}", CATALOG)


FULL = """\
trigger: recover
description: Bring them back
owner: crm@example.com
tags: [cart]
on_enter: s
if: {in_segment: s}
delay: 10m
cancel_if: {did: purchase, within: 10m}
cooldown: 7d
cap: {max: 2, per: 30d}
quiet_hours: {from: "21:00", to: "08:00", timezone: user:zone}
requires_consent: marketing
holdout: {percent: 10.25}
send: [{webhook: crm}, {stream: actions}]
payload:
  sku: {last: {event: add_to_cart, of: sku}}
  bought: {count: {event: purchase, where: {sku: A}}, within: 7d}
  age: {feature: user:age}
  list: {value: [1, a, true]}
  nothing: {value: }
"""


def test_every_part_has_its_place() -> None:
    trigger = load(FULL).triggers["recover"]
    assert (trigger.description, trigger.owner, trigger.tags) == ("Bring them back", "crm@example.com", ("cart",))
    assert trigger.on == OnEnter("s")
    assert trigger.if_ == SegmentRef("s")
    assert (trigger.delay, trigger.cooldown, trigger.cap) == (10 * MINUTE, 7 * DAY, Cap(2, 30 * DAY))
    assert trigger.quiet_hours == QuietHours(21 * HOUR, 8 * HOUR, FeatureRef("user", "zone"), QuietPolicy.DEFER)
    assert trigger.consent == Consent("marketing", FeatureRef("user", "vip"))
    assert trigger.holdout == 1_025
    assert trigger.send == (SinkRef("webhook", "crm"), SinkRef("stream", "actions"))
    assert [str(sink) for sink in trigger.send] == ["webhook:crm", "stream:actions"]
    payload = dict(trigger.payload)
    assert list(payload) == ["sku", "bought", "age", "list", "nothing"]
    # Without `within` it looks back as far as the event is kept.
    assert payload["sku"] == EventAggregate(Aggregate.LAST, EventMatch("add_to_cart"), 30 * DAY, "sku", STRING)
    bought = payload["bought"]
    assert isinstance(bought, EventAggregate)
    assert (bought.function, bought.match.event, bought.within, bought.type) == (
        *(Aggregate.COUNT, "purchase", 7 * DAY),
        INTEGER,
    )
    assert payload["age"] == FeatureRef("user", "age")
    assert (payload["list"], payload["nothing"]) == (Constant((1, "a", True)), Constant(None))


@pytest.mark.parametrize(
    ("cause", "node", "segment"),
    [
        ("on_enter: s", OnEnter("s"), "s"),
        ("on_exit: s", OnExit("s"), "s"),
        ("on_event: {did: logout}", OnEvent(EventMatch("logout")), None),
    ],
)
def test_the_cause(cause: str, node: Any, segment: str | None) -> None:
    trigger = load(f"trigger: t\n{cause}\nsend: [{{stream: a}}]").triggers["t"]
    assert trigger.on == node
    assert trigger.segment == segment


@pytest.mark.parametrize(("percent", "hundredths"), [("0.01", 1), ("0.29", 29), ("10", 1_000), ("99.99", 9_999)])
def test_a_share_is_exact(percent: str, hundredths: int) -> None:
    trigger = load(f"trigger: t\non_enter: s\nholdout: {{percent: {percent}}}\nsend: [{{stream: a}}]").triggers["t"]
    assert trigger.holdout == hundredths


def test_sinks_are_kept_as_they_are_written() -> None:
    project = """\
project: shop
sinks:
  crm: {webhook: "https://${HOST}/x", secret: "${S}", headers: {x-a: b}, timeout: 5s, give_up_after: 2h}
  orders: {kafka: "a:1,b:2", topic: t, options: {sasl.password: "${P}", enable.sasl.oauthbearer.unsecure.jwt: true}}
  audit: {file: logs/a.jsonl}
"""
    sinks = load("trigger: t\non_enter: s\nsend: [{file: audit}]", project).settings.sinks
    assert sinks == {
        "crm": WebhookSettings("crm", "https://${HOST}/x", "${S}", (("x-a", "b"),), 5 * SECOND, give_up_after=2 * HOUR),
        "orders": KafkaSettings(
            "orders", "a:1,b:2", "t", (("sasl.password", "${P}"), ("enable.sasl.oauthbearer.unsecure.jwt", "true"))
        ),
        "audit": FileSettings("audit", "logs/a.jsonl"),
    }


# --- what follows from triggers -------------------------------------------------------------------------------------


def test_conditions_become_segments_that_nobody_can_name() -> None:
    triggers = load(FULL).triggers.values()
    assert list(hidden_segments(triggers)) == [
        "trigger.recover.if",
        "trigger.recover.cancel_if",
        "trigger.recover.consent",
    ]
    assert list(payload_aggregates(triggers)) == ["trigger.recover.payload.sku", "trigger.recover.payload.bought"]
    assert payload_features(triggers) == {"user:age", "user:zone"}


def read_plan(definitions: Definitions) -> ReadPlan:
    encoded = encode_definitions(definitions)
    plan = ReadPlan("shop", "user", "user_id", 3, Connection("embedded"), (), encoded)
    return ReadPlan.from_json(plan.to_json())


def test_a_read_plan_carries_triggers_and_settings() -> None:
    definitions = load(FULL)
    carried = read_plan(definitions).definitions
    assert decode_triggers(carried) == definitions.triggers
    assert decode_consent(carried) == definitions.settings.consent
    assert decode_sinks(carried) == definitions.settings.sinks


def test_a_secret_stays_a_variable_in_the_plan(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CRM_SECRET", "hunter2")
    written = read_plan(load(FULL)).to_json()
    assert b"${CRM_SECRET}" in written
    assert b"hunter2" not in written


def test_a_plan_without_triggers_has_none_and_is_what_it_was() -> None:
    plain = load_text(SEGMENT, CATALOG)
    plan = read_plan(plain)
    for decode in (decode_triggers, decode_sinks, decode_consent):
        assert decode(plan.definitions) == {}
    assert set(plan.definitions) == {"segments"}


def test_damaged_triggers_are_refused() -> None:
    with pytest.raises(ValueError, match="not encoded triggers"):
        decode_triggers({"triggers": {"t": {"node": "Trigger"}}})
    with pytest.raises(ValueError, match="not encoded triggers"):
        decode_triggers({"triggers": {"t": {"node": "Popen"}}})


def test_the_state_keeps_what_triggers_read() -> None:
    without, with_trigger = Rules(read_plan(load_text(SEGMENT, CATALOG))), Rules(read_plan(load(FULL)))
    assert {one.event for one in with_trigger.events.requirements.events} == {"add_to_cart", "purchase"}
    assert not without.events.requirements.events
    assert with_trigger.program.names == ("s",)  # a request never sees the hidden ones
    assert without.events.name != with_trigger.events.name


def test_json_is_all_that_is_needed() -> None:
    definitions = load(FULL)
    encoded = encode_definitions(definitions)
    assert decode_triggers(json.loads(json.dumps(encoded, allow_nan=False))) == definitions.triggers


# --- warnings -------------------------------------------------------------------------------------------------------

USED = "trigger: other\non_enter: s\nsend: [{webhook: crm}, {kafka: orders}, {file: audit}]\n---\n"


@pytest.mark.parametrize(
    ("trigger", "code", "place"),
    [
        ("on_enter: s\ncancel_if: {did: purchase, within: 1d}", "cancel-without-waiting", (3, 12)),
        ("on_enter: s\ncooldown: 15d\ncap: {max: 2, per: 30d}", "cap-decides-nothing", (1, 1)),
        ("on_enter: asks", "context-in-trigger", (1, 1)),
        ("on_event: {did: purchase}\nif: {in_segment: asks}", "context-in-trigger", (1, 1)),
        ("on_enter: s\nif: {all: [{in_segment: s}, {not: {in_segment: s}}]}", "never-true", (3, 5)),
        (
            "on_enter: s\ndelay: 1h\ncancel_if: {any: [{did: view, within: 1d}, {not: {did: view, within: 2d}}]}",
            None,
            None,
        ),
        ("on_enter: s\ndelay: 1h\ncancel_if: {did: purchase, within: 1d}", None, None),
        ("on_enter: s\ndelay: 1h\ncancel_if: {feature: user:age, at_least: 3}", "always-cancelled", (4, 12)),
        ("on_event: {did: purchase}\ndelay: 1h\ncancel_if: {did: purchase, within: 1d}", "always-cancelled", (4, 12)),
        (
            "on_event: {did: purchase, where: {sku: A}}\ndelay: 1h\ncancel_if: {any: [{did: purchase, within: 1d}]}",
            "always-cancelled",
            (4, 12),
        ),
        (
            "on_event: {did: purchase}\ndelay: 1h\ncancel_if: {did: purchase, within: 1d, count: {at_least: 2}}",
            None,
            None,
        ),
        ("on_event: {did: purchase}\ndelay: 1h\ncancel_if: {did: purchase, within: 1d, where: {sku: A}}", None, None),
        ("on_exit: s\ndelay: 1h\ncancel_if: {in_segment: s}", None, None),
        ("on_enter: s\nif: {feature: user:age, less_than: 5}", "never-true", (3, 5)),
        ("on_enter: s\nif: {feature: user:age, less_than: 5}\ndelay: 1h", None, None),
        ("on_enter: s\nif: {feature: user:vip, equals: true}", None, None),
        ("on_enter: s\ncooldown: 14d\ncap: {max: 2, per: 30d}", None, None),
        ("on_enter: answers", None, None),
    ],
)
def test_what_hardly_anybody_means_is_warned_of(trigger: str, code: str | None, place: Any) -> None:
    segments = f"""\
{SEGMENT}---
segment: asks
when: {{any: [{{context: device, equals: mobile}}, {{feature: user:age, equals: 5}}]}}
---
segment: answers
when: {{context: device, equals: mobile, default: web}}
"""
    trigger = trigger.replace("did: view", "did: product_view")
    text = f"{USED}trigger: t\n{trigger}\nsend: [{{stream: a}}]"
    found = lint_triggers(load(text, segments=segments))
    before = f"{PROJECT}---\n{segments}---\n{USED}".count("\n")
    places = [(warning.code, (warning.span.line - before, warning.span.column)) for warning in found]
    assert places == ([] if code is None else [(code, place)])


def test_sinks_that_are_not_used_or_not_safe_are_warned_of() -> None:
    project = """\
project: shop
sinks:
  crm: {webhook: "http://crm.example"}
  here: {webhook: "http://127.0.0.1:8000", allow: [127.0.0.1]}
  spare: {file: a.jsonl}
"""
    found = lint_settings(load("trigger: t\non_enter: s\nsend: [{webhook: crm}, {webhook: here}]", project))
    assert [(warning.code, warning.span.line, warning.span.column) for warning in found] == [
        ("insecure-url", 3, 18),
        ("unused-sink", 5, 17),
    ]


# --- going back -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("gone", ["user:vip", "user:zone", "user:age"], ids=["consent", "zone", "payload"])
def test_a_version_whose_triggers_read_what_is_gone_is_refused(gone: str) -> None:
    trigger = "trigger: t\non_event: {did: purchase}\nrequires_consent: marketing\nsend: [{stream: a}]\n"
    trigger += 'quiet_hours: {from: "21:00", to: "08:00", timezone: user:zone}\npayload: {age: {feature: user:age}}\n'
    definitions = load(trigger, segments="segment: s\nwhen: {feature: user:country, equals: NO}\n")
    kinds = {"user:vip": "Bool", "user:zone": "String", "user:age": "Int64", "user:country": "String"}
    features = tuple(PlanFeature(key.partition(":")[2], kind, place) for place, (key, kind) in enumerate(kinds.items()))
    encoded = encode_definitions(definitions)
    view = PlanView("user", "user", features)
    plan = ReadPlan("shop", "user", "user_id", 3, Connection("embedded"), (view,), encoded)
    version = Version(1, "ada", 0, "hash", plan)
    check_features(version, plan.catalog())
    less = PlanView("user", "user", tuple(one for one in features if f"user:{one.name}" != gone))
    with pytest.raises(ProjectError, match=gone):
        check_features(version, replace(plan, views=(less,)).catalog())
