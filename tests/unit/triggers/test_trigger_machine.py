"""The machine of triggers step by step: what people rely on, spelt out; and its record as bytes."""

from __future__ import annotations

import pytest

from rules_engine.clock import DAY, HOUR, MINUTE, SECOND
from rules_engine.errors import StoreDataError
from rules_engine.events.state.entity_state import empty_state
from rules_engine.features.online.selection import EntityFeatures
from rules_engine.rules.catalog import Catalog
from rules_engine.rules.inputs import Event
from rules_engine.rules.load import load_text
from rules_engine.rules.triggers.nodes import Cap, OnEnter, Trigger
from rules_engine.rules.types import STRING
from rules_engine.sdk.rules import encode_definitions
from rules_engine.triggers.encoding import RECORD_VERSION, decode_record, encode_record
from rules_engine.triggers.machine import SEEN_FOR, Machine
from rules_engine.triggers.policy import is_capped, is_cooling
from rules_engine.triggers.record import (
    PENDING_KEPT,
    SEEN_KEPT,
    Record,
    State,
    SuppressionReason,
    Transition,
    TriggerStep,
)
from rules_engine.triggers.rules import TriggerRules

NOW = 1_772_452_800_000_000  # 2026-03-02T12:00:00Z

DEFINITIONS = """\
segment: abandoned
when: {sequence: [{did: cart}, {did_not: buy, within: 30m}], within: 1d}
---
segment: viewing
when: {did: view, within: 10m}
---
segment: gold
when: {feature: user:tier, equals: gold}
---
trigger: remind
on_enter: abandoned
delay: 10m
cancel_if: {did: buy, within: 10m}
payload: {sku: {last: {event: cart, of: sku}, within: 1d}, tier: {feature: user:tier}}
send: [{stream: reminders}, {stream: audit}]
---
trigger: bought
on_event: {did: buy, where: {amount: {at_least: 10}}}
send: [{stream: orders}]
---
trigger: fallen
on_exit: gold
send: [{stream: fallen}]
"""


def rules(text: str = DEFINITIONS) -> TriggerRules:
    loaded = load_text(text, Catalog(closed=False))
    encoded = encode_definitions(loaded)
    return TriggerRules(encoded, {"user:tier": STRING}, "v1")


RULES = rules()
ALL = RULES.names


class User:
    """One user, whose record and state go through bytes after every step."""

    def __init__(self, swept: frozenset[str] = ALL, tier: str | None = None, rules: TriggerRules = RULES) -> None:
        self.rules, self.swept, self.tier = rules, swept, tier
        self.record, self.state = Record(), empty_state(rules.events.requirements)
        self.told: list[str] = []
        self.steps = 0

    def machine(self) -> Machine:
        values = {} if self.tier is None else {"user:tier": self.tier}
        return Machine(self.rules, self.record, EntityFeatures("42", values), self.state, swept=self.swept)

    def keep(self, machine: Machine) -> list[str]:
        told = [story(one) for one in machine.record.outbox]
        self.state = machine.state
        self.record = decode_record(encode_record(machine.record)).published()
        self.told += told
        return told

    def event(
        self, name: str, at: int, arrival: int | None = None, number: int | None = None, **properties: object
    ) -> list[str]:
        machine = self.machine()
        self.steps += 1
        identity = f"{name}:{self.steps if number is None else number}"
        machine.event(Event(name, at, identity, properties), at if arrival is None else arrival, (NOW, self.steps))
        return self.keep(machine)

    def timers(self, until: int) -> list[str]:
        machine = self.machine()
        machine.timers(until)
        return self.keep(machine)

    def look(self, at: int, cause: str = "materialize", views: list[str] | None = None) -> list[str]:
        machine = self.machine()
        machine.look(at, cause, views)
        return self.keep(machine)


def story(one: Transition | TriggerStep) -> str:
    after = (one.at - NOW) // SECOND
    if isinstance(one, Transition):
        return f"{after} {one.change.value} {one.segment} by {one.cause}"
    reason = f" {one.reason.value}" if one.reason else ""
    return f"{after} {one.trigger} {one.state.value}{reason}"


def test_an_absence_is_noticed_when_it_is_complete_and_not_before() -> None:
    user = User()
    assert user.event("cart", NOW, sku="A1") == []
    assert user.record.next_due == NOW + 30 * MINUTE
    assert user.timers(NOW + 30 * MINUTE) == []
    assert user.timers(NOW + 30 * MINUTE + 1) == ["1800 enter abandoned by timer", "1800 remind pending"]
    assert user.record.next_due == NOW + 40 * MINUTE
    assert user.timers(NOW + HOUR) == ["2400 remind fired"]


def test_an_action_for_each_sink_has_a_key_of_its_own_that_is_always_the_same() -> None:
    def actions() -> list[str]:
        user = User(tier="gold")
        user.event("cart", NOW, sku="A1")
        machine = user.machine()
        machine.timers(NOW + HOUR)
        fired = machine.record.outbox[-1]
        assert isinstance(fired, TriggerStep)
        assert fired.payload == {"sku": "A1", "tier": "gold"}
        found = fired.actions("42")
        assert [(one.sink, one.cause, one.segment, one.at) for one in found] == [
            (sink, "enter", "abandoned", NOW + 40 * MINUTE) for sink in ("stream:reminders", "stream:audit")
        ]
        return [one.key for one in found]

    assert actions() == actions()
    assert len(set(actions())) == 2


def test_a_purchase_in_the_meantime_cancels() -> None:
    user = User()
    user.event("cart", NOW)
    assert user.event("buy", NOW + 35 * MINUTE) == [
        "1800 enter abandoned by timer",
        "1800 remind pending",
        "2100 remind cancelled",
    ]


def test_timers_before_an_event_come_first_even_if_the_worker_was_down() -> None:
    user = User()
    user.event("cart", NOW)
    assert user.event("view", NOW + 5 * DAY)[:3] == [
        "1800 enter abandoned by timer",
        "1800 remind pending",
        "2400 remind fired",
    ]


def test_an_entry_of_the_stream_is_done_once() -> None:
    user = User()
    user.event("buy", NOW, amount=10)
    machine = user.machine()
    assert not machine.event(Event("buy", NOW, "buy:1", {"amount": 10}), NOW, (NOW, 1))
    assert not machine.changed
    assert machine.record.outbox == ()


def test_an_event_that_is_delivered_twice_starts_once_and_the_first_content_counts() -> None:
    user = User()
    assert user.event("buy", NOW, number=7, amount=9) == []
    assert user.event("buy", NOW + DAY, number=7, amount=99) == []
    assert user.event("buy", NOW + DAY, number=8, amount=99) == ["86400 bought fired"]


def test_what_is_remembered_of_events_is_bounded() -> None:
    user = User()
    machine = user.machine()
    for number in range(SEEN_KEPT + 5):
        machine.event(Event("buy", NOW + number, f"buy:{number}", {}), NOW + number)
    assert len(machine.record.seen) == SEEN_KEPT
    machine.event(Event("buy", NOW, "buy:later", {}), NOW + 2 * SEEN_FOR)
    assert len(machine.record.seen) == 1


def test_not_more_than_a_bound_wait_for_one_user() -> None:
    text = "segment: s\nwhen: {did: buy, within: 1d}\n---\n"
    made = rules(text + "trigger: t\non_event: {did: buy}\ndelay: 1d\nsend: [{stream: s}]")
    machine = Machine(made, Record(), EntityFeatures("1"), empty_state(made.events.requirements), swept=made.names)
    for number in range(PENDING_KEPT + 3):
        machine.event(Event("buy", NOW + number, f"buy:{number}", {}), NOW + number)
    steps = [one for one in machine.record.outbox if isinstance(one, TriggerStep)]
    assert [one.state for one in steps].count(State.PENDING) == PENDING_KEPT
    assert [one.reason for one in steps if one.state is State.SUPPRESSED] == [SuppressionReason.TOO_MANY] * 3


def test_an_event_of_the_future_counts_from_its_own_instant() -> None:
    user = User()
    assert user.event("view", NOW + HOUR, arrival=NOW) == []
    assert user.event("buy", NOW + HOUR, arrival=NOW, amount=50) == []
    assert user.timers(NOW + 2 * HOUR) == [
        "3600 enter viewing by timer",
        "3600 bought fired",
        "4200 exit viewing by timer",
    ]


def test_a_late_event_does_not_turn_the_clock_back() -> None:
    user = User()
    user.event("view", NOW)
    assert user.event("view", NOW - 5 * MINUTE, arrival=NOW - MINUTE) == []
    assert user.record.at == NOW
    assert user.timers(NOW + HOUR) == ["600 exit viewing by timer"]


def test_somebody_new_enters_and_somebody_known_is_taken_as_they_are() -> None:
    assert User(swept=ALL, tier="gold").look(NOW) == ["0 enter gold by materialize"]
    assert User(swept=frozenset(), tier="gold").look(NOW) == ["0 baseline gold by baseline"]


def test_a_first_event_in_an_unswept_partition_is_judged_against_before() -> None:
    user = User(swept=frozenset(), tier="gold")
    assert user.event("view", NOW) == ["0 baseline gold by baseline", "0 enter viewing by event:view:1"]


def test_an_exit_by_changed_features_starts_the_trigger_on_it() -> None:
    user = User(tier="gold")
    user.look(NOW)
    user.tier = "silver"
    assert user.look(NOW + HOUR, views=["session"]) == []
    assert user.look(NOW + HOUR, views=["user"]) == ["3600 exit gold by materialize", "3600 fallen fired"]


def test_changed_definitions_move_people_with_the_cause_apply() -> None:
    user = User(tier="silver")
    user.event("cart", NOW)
    user.timers(NOW + 35 * MINUTE)
    text = DEFINITIONS.replace("equals: gold", "in: [gold, silver]").replace("trigger: remind", "trigger: other")
    user.rules = rules(text)
    assert user.event("view", NOW + 36 * MINUTE) == [
        "2160 remind cancelled removed",
        "2160 enter gold by apply",
        "2160 enter viewing by event:view:2",
    ]


def test_a_removed_segment_leaves_no_trace() -> None:
    user = User(tier="gold")
    user.look(NOW)
    user.rules = rules("segment: viewing\nwhen: {did: view, within: 10m}")
    assert user.look(NOW + 1, "apply") == []
    assert user.record.members == {}


def test_entering_twice_at_one_instant_has_two_causes() -> None:
    text = "segment: on_a\nwhen: {last: {event: view, of: page}, within: 1h, equals: a}\n---\n"
    text += "trigger: hush\non_enter: on_a\nsend: [{stream: s}]"
    user = User(rules=rules(text), swept=frozenset({"on_a"}))
    told = [user.event("view", NOW, page=page) for page in "aba"]
    assert [one[0].split()[1] for one in told] == ["enter", "exit", "enter"]
    assert user.record.repeats == {"on_a": 1}
    machine = user.machine()
    machine.event(Event("view", NOW, "view:4", {"page": "b"}), NOW)
    machine.event(Event("view", NOW, "view:5", {"page": "a"}), NOW)
    moves = [one for one in machine.record.outbox if isinstance(one, Transition)]
    assert [one.name for one in moves] == [f"exit:on_a:{NOW}:2", f"enter:on_a:{NOW}:2"]
    user.keep(machine)
    user.event("view", NOW + 1, page="c")
    assert user.record.repeats == {}


def test_a_look_at_somebody_of_whom_nothing_is_to_be_kept_writes_nothing() -> None:
    user = User()
    machine = user.machine()
    machine.look(NOW, "apply")
    assert not machine.changed
    user.tier = "gold"
    machine = user.machine()
    machine.look(NOW, "apply")
    assert machine.changed


def test_what_rules_have_to_be_read_for() -> None:
    assert RULES.features == ("user:tier",)
    assert {group: sorted(names) for group, names in RULES.groups.items()} == {
        "": ["gold"], "buy": ["abandoned"], "cart": ["abandoned"], "view": ["viewing"],
    }  # fmt: skip
    assert RULES.groups_of_views(["user"]) == ("",)
    assert RULES.fingerprint == rules().fingerprint != rules(DEFINITIONS.replace("10m}", "11m}")).fingerprint


def test_what_begins_later_is_cancelled_as_it_begins() -> None:
    text = "segment: s\nwhen: {did: view, within: 1m}\n---\ntrigger: t\non_event: {did: cart}\ndelay: 10m\n"
    user = User(rules=rules(text + "cancel_if: {did: view, within: 2h}\nsend: [{stream: s}]"), swept=frozenset("s"))
    assert user.event("cart", NOW + HOUR, arrival=NOW) == []
    assert user.event("view", NOW + 30 * MINUTE) == ["1800 enter s by event:view:2"]
    assert user.timers(NOW + 2 * HOUR) == ["1860 exit s by timer", "3600 t cancelled"]


def test_cooldown_and_cap_end_with_their_last_instant() -> None:
    trigger = Trigger("t", OnEnter("s"), (), cooldown=10, cap=Cap(2, 20))
    assert [is_cooling(trigger, (0,), at) for at in (0, 9, 10)] == [True, True, False]
    assert [is_capped(trigger, (0, 5), at) for at in (5, 19, 20)] == [True, True, False]
    assert not is_capped(trigger, (5,), 6)


# --- the record as bytes --------------------------------------------------------------------------------------------


def full() -> Record:
    step = TriggerStep("remind", "enter:a:1", State.SUPPRESSED, 5, 5, SuppressionReason.CAP, "v1")
    fired = TriggerStep("remind", "event:é:1", State.FIRED, 5, 5, None, "v1", {"x": [1, None, "é"]}, ("stream:a",))
    user = User(tier="gold")
    user.event("cart", NOW)
    user.event("buy", NOW + 31 * MINUTE, amount=50)
    machine = user.machine()
    machine.event(Event("view", NOW + HOUR, "view:9", {}), NOW + HOUR, (NOW, 99))
    found = machine.record
    return Record(
        **{name: getattr(found, name) for name in Record.__slots__} | {"outbox": (*found.outbox, step, fired)}
    )


def test_a_record_is_the_same_after_bytes() -> None:
    for record in (Record(), full(), Record(at=-5, repeats={"a": 1}, fresh=frozenset("ab"))):
        assert decode_record(encode_record(record)) == record
    assert decode_record(None) == Record()


def test_damaged_bytes_are_told() -> None:
    data = encode_record(full())
    for place in range(len(data)):
        broken = data[:place] + bytes([data[place] ^ 0x41]) + data[place + 1 :]
        with pytest.raises(StoreDataError):
            decode_record(broken)
    for size in range(len(data)):
        with pytest.raises(StoreDataError):
            decode_record(data[:size])


def test_a_record_of_another_version_is_told() -> None:
    with pytest.raises(StoreDataError, match=f"has version {RECORD_VERSION + 1}"):
        decode_record(bytes([RECORD_VERSION + 1]) + encode_record(Record())[1:])


LIMITED = """
project: shop
frequency: [{max: 1, per: 1h, of: {tag: mail}}, {max: 3, per: 1d}]
---
segment: gold
when: {feature: user:tier, equals: gold}
---
trigger: letter
on_event: {did: buy}
delay: 10m
tags: [mail]
send: [{stream: a}]
---
trigger: receipt
on_event: {did: buy}
delay: 10m
tags: [mail]
priority: 1
payload: {sku: {property: sku}, gift: {property: gift}}
send: [{stream: a}]
---
trigger: hint
on_event: {did: buy}
cooldown: ever
send: [{stream: a}]
"""


def test_triggers_of_a_tag_share_a_limit_and_the_higher_priority_goes_first() -> None:
    user = User(rules=rules(LIMITED))
    assert user.event("buy", NOW, sku="A1") == ["0 hint fired", "0 receipt pending", "0 letter pending"]
    assert user.timers(NOW + 11 * MINUTE) == ["600 receipt fired", "600 letter suppressed frequency"]
    assert user.event("buy", NOW + 60 * MINUTE, sku="A2")[0] == "3600 hint suppressed cooldown"
    # An hour after the receipt the limit is free again; the third of all is the last of the day.
    assert user.timers(NOW + 71 * MINUTE) == ["4200 receipt fired", "4200 letter suppressed frequency"]
    user.event("buy", NOW + 200 * MINUTE)
    assert user.timers(NOW + 211 * MINUTE)[0] == "12600 receipt suppressed frequency"


def test_what_is_sent_of_the_event_is_noted_when_it_comes() -> None:
    user = User(rules=rules(LIMITED))
    user.event("buy", NOW, sku="A1", amount=5)
    user.event("buy", NOW + MINUTE, sku="A2")
    assert [dict(waiting.properties) for waiting in user.record.pending if waiting.trigger == "receipt"] == [
        {"sku": "A1"},
        {"sku": "A2"},
    ]
    machine = user.machine()
    machine.timers(NOW + 11 * MINUTE)
    payloads = [step.payload for step in machine.record.outbox if isinstance(step, TriggerStep) and step.payload]
    assert payloads == [{"sku": "A1", "gift": None}]


def test_firings_that_no_limit_counts_any_more_are_forgotten() -> None:
    user = User(rules=rules(LIMITED))
    user.event("buy", NOW)
    assert set(user.record.fired) == {"hint", "of:all"}
    user.rules = rules(LIMITED.replace("frequency: [", "frequency: [{max: 9, per: 1h, of: {tag: push}}] # "))
    user.look(NOW + MINUTE, cause="apply")
    assert set(user.record.fired) == {"hint"}
