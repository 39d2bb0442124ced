"""Conditions in YAML to their trees, files to programs; hints for what is misspelt; every problem in one go.

Codes and carets of single refusals are held by tests/conformance/refusals; here it is about what is built.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rules_engine.clock import DAY, HOUR, MINUTE, parse_instant
from rules_engine.definitions.source import from_plain, read_documents
from rules_engine.errors import DefinitionError, UnknownNameError
from rules_engine.rules.aggregates import Aggregate
from rules_engine.rules.catalog import Catalog, EventType, Feature
from rules_engine.rules.evaluate import Evaluation
from rules_engine.rules.explain import explain
from rules_engine.rules.forms import FORMS
from rules_engine.rules.inputs import Inputs
from rules_engine.rules.load import definition_files, load_folder, load_text
from rules_engine.rules.nodes import (
    AllOf,
    AnyOf,
    ClockField,
    ClockRef,
    Condition,
    ContextRef,
    EventAggregate,
    EventMatch,
    FeatureRef,
    Not,
    Predicate,
    PropertyRef,
    SegmentRef,
    Sequence,
    SequenceStep,
)
from rules_engine.rules.operators import OPERATORS
from rules_engine.rules.parsing.conditions import ConditionParser
from rules_engine.rules.segments.checks import MAX_LEVELS
from rules_engine.rules.types import BYTES, FLOAT, INTEGER, STRING, TIME, Kind, ValueType
from tests.docs_pages import shop

SHOP = shop()
OPEN = Catalog(closed=False)
STRINGS = ValueType(Kind.STRING, is_list=True)


def parse(text: str, catalog: Catalog = SHOP) -> Condition:
    [document], problems = read_documents(text, "a.yaml")
    assert not problems
    parser = ConditionParser(catalog, {"vip", "employees"})
    parsed = parser.condition(document)
    assert not parser.problems, "\n".join(map(str, parser.problems))
    assert parsed is not None
    return parsed


def problems_of(text: str, catalog: Catalog = SHOP) -> list[str]:
    [document], found = read_documents(text, "a.yaml")
    parser = ConditionParser(catalog, {"vip", "employees"})
    assert parser.condition(document) is None
    return [problem.code for problem in [*found, *parser.problems]]


def hint_of(text: str, catalog: Catalog = SHOP) -> str | None:
    [document], _ = read_documents(text, "a.yaml")
    parser = ConditionParser(catalog, {"vip", "employees"})
    parser.condition(document)
    [problem] = parser.problems
    return problem.hint


# --- trees ----------------------------------------------------------------------------------------------------------

AGE, COUNTRY, EMAIL = FeatureRef("user", "age"), FeatureRef("user", "country"), FeatureRef("user", "email")
VIEWS = EventMatch("view")


@pytest.mark.parametrize(
    ("text", "tree"),
    [
        ("{feature: user:age, at_least: 18}", Predicate(AGE, "at_least", 18, INTEGER)),
        ("{feature: user:age, equals: 18.5}", Predicate(AGE, "equals", 18.5, INTEGER)),
        ("{feature: user:country, in: [NO, SE]}", Predicate(COUNTRY, "in", ("NO", "SE"), STRING)),
        ("{feature: user:age, exists: false}", Predicate(AGE, "exists", False, INTEGER)),
        (
            "{feature: user:email, equals: ADA@X.NO, ignore_case: true, or_missing: true}",
            Predicate(EMAIL, "equals", "ada@x.no", STRING, ignore_case=True, or_missing=True),
        ),
        (
            "{feature: user:email, in: [A, b], ignore_case: true}",
            Predicate(EMAIL, "in", ("a", "b"), STRING, ignore_case=True),
        ),
        (
            "{feature: user:email, matches: 'A[B-D]', ignore_case: true}",
            Predicate(EMAIL, "matches", "(?i)A[B-D]", STRING, ignore_case=True),
        ),
        ("{feature: user:age, equals: 1, or_missing: false}", Predicate(AGE, "equals", 1, INTEGER)),
        (
            "{feature: user:signup, before: 2026-01-01T00:00:00+01:00}",
            Predicate(FeatureRef("user", "signup"), "before", parse_instant("2025-12-31T23:00:00Z"), TIME),
        ),
        ("{feature: user:renewal, in_next: 2w}", Predicate(FeatureRef("user", "renewal"), "in_next", 14 * DAY, TIME)),
        (
            "{feature: user:tags, includes_all: [a, b]}",
            Predicate(FeatureRef("user", "tags"), "includes_all", ("a", "b"), STRINGS),
        ),
        (
            "{context: device, equals: mobile, default: web}",
            Predicate(ContextRef("device", "web"), "equals", "mobile", STRING),
        ),
        ("{context: seats, between: [1, 2.5]}", Predicate(ContextRef("seats"), "between", (1, 2.5), INTEGER)),
        (
            "{context: since, after: 2026-01-01T00:00:00Z}",
            Predicate(ContextRef("since"), "after", parse_instant("2026-01-01T00:00:00Z"), TIME),
        ),
        ("{context: tags, includes: a, default: [a]}", Predicate(ContextRef("tags", ("a",)), "includes", "a", STRINGS)),
        (
            "{clock: time_of_day, less_than: '17:00'}",
            Predicate(ClockRef(ClockField.TIME_OF_DAY), "less_than", 17 * HOUR, ValueType(Kind.TIME_OF_DAY)),
        ),
        (
            "{clock: day_of_week, equals: monday, timezone: {feature: user:timezone}}",
            Predicate(
                ClockRef(ClockField.DAY_OF_WEEK, FeatureRef("user", "timezone")),
                "equals",
                "monday",
                ValueType(Kind.DAY_OF_WEEK),
            ),
        ),
        (
            "{did: view, within: 10m}",
            Predicate(EventAggregate(Aggregate.COUNT, VIEWS, 10 * MINUTE), "at_least", 1, INTEGER),
        ),
        (
            "{did: purchase, within: ever, count: {between: [2, 5]}, where: {sku: A1, amount: {greater_than: 5}}}",
            Predicate(
                EventAggregate(
                    Aggregate.COUNT,
                    EventMatch(
                        "purchase",
                        (
                            Predicate(PropertyRef("sku", STRING), "equals", "A1", STRING),
                            Predicate(PropertyRef("amount", FLOAT), "greater_than", 5, FLOAT),
                        ),
                    ),
                    None,
                ),
                "between",
                (2, 5),
                INTEGER,
            ),
        ),
        (
            "{avg: {event: purchase, of: amount}, within: 30d, at_most: 5, or_missing: true}",
            Predicate(
                EventAggregate(Aggregate.AVG, EventMatch("purchase"), 30 * DAY, "amount", FLOAT),
                "at_most",
                5,
                FLOAT,
                or_missing=True,
            ),
        ),
        (
            "{distinct: {event: view, of: sku}, within: 1h, at_least: 2}",
            Predicate(EventAggregate(Aggregate.DISTINCT, VIEWS, HOUR, "sku", STRING), "at_least", 2, INTEGER),
        ),
        (
            "{last: {event: visit, of: source}, within: 1d, not_in: [ad]}",
            Predicate(
                EventAggregate(Aggregate.LAST, EventMatch("visit"), DAY, "source", STRING), "not_in", ("ad",), STRING
            ),
        ),
        (
            "{sequence: [{did: view}, {did: add_to_cart, within: 1h}], within: 1d, match_on: sku}",
            Sequence(
                (SequenceStep(VIEWS), SequenceStep(EventMatch("add_to_cart"), within=HOUR)),
                within=DAY,
                match_on="sku",
            ),
        ),
        (
            "{sequence: [{did: purchase}, {did_not: visit, within: 1h, where: {page: home}}], within: ever}",
            Sequence(
                (
                    SequenceStep(EventMatch("purchase")),
                    SequenceStep(
                        EventMatch("visit", (Predicate(PropertyRef("page", STRING), "equals", "home", STRING),)),
                        negated=True,
                        within=HOUR,
                    ),
                ),
                latest_only=True,
            ),
        ),
        (
            "{sequence: [{did: view}, {did_not: purchase, within: 1h}], within: 1d, anchor: any}",
            Sequence(
                (SequenceStep(VIEWS), SequenceStep(EventMatch("purchase"), negated=True, within=HOUR)), within=DAY
            ),
        ),
        (
            "{sequence: [{did: view}, {did: purchase}], within: 1d, anchor: latest}",
            Sequence((SequenceStep(VIEWS), SequenceStep(EventMatch("purchase"))), within=DAY, latest_only=True),
        ),
        ("in_segment: vip", SegmentRef("vip")),
        ("not_in_segment: vip", Not(SegmentRef("vip"))),
        ("not: {in_segment: vip}", Not(SegmentRef("vip"))),
        ("all: [{in_segment: vip}]", AllOf((SegmentRef("vip"),))),
        ("any: [{in_segment: vip}, {in_segment: employees}]", AnyOf((SegmentRef("vip"), SegmentRef("employees")))),
        ("none: [{in_segment: vip}]", Not(AnyOf((SegmentRef("vip"),)))),
    ],
)
def test_what_is_built(text: str, tree: Condition) -> None:
    assert parse(text) == tree


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("{did_not: view, within: 1h}", "{did: view, within: 1h, count: {equals: 0}}"),
        ("{did: view, within: 24h}", "{did: view, within: 1d, count: {at_least: 1}}"),
        (
            "none: [{in_segment: vip}, {in_segment: employees}]",
            "not: {any: [{in_segment: vip}, {in_segment: employees}]}",
        ),
        ("{did: view, within: 1h, where: {sku: A}}", "{did: view, within: 60m, where: {sku: {equals: A}}}"),
    ],
)
def test_what_means_the_same_is_the_same(one: str, other: str) -> None:
    assert parse(one) == parse(other)


def test_a_named_windowed_feature_is_its_aggregate() -> None:
    carts = EventAggregate(Aggregate.COUNT, EventMatch("add_to_cart"), DAY)
    catalog = Catalog(event_features={"cart_adds_24h": carts})
    assert parse("{feature: events:cart_adds_24h, at_least: 2}", catalog) == Predicate(carts, "at_least", 2, INTEGER)
    assert hint_of("{feature: events:cart_ads_24h, at_least: 2}", catalog) == "did you mean `events:cart_adds_24h`?"


@pytest.mark.parametrize(
    ("text", "value_type"),
    [
        ("{feature: a:b, equals: 5}", INTEGER),
        ("{feature: a:b, at_least: 5.0}", FLOAT),
        ("{feature: a:b, equals: 2026-01-01T00:00:00Z}", STRING),
        ("{feature: a:b, at_least: 2026-01-01T00:00:00Z}", TIME),
        ("{feature: a:b, in_last: 5d}", TIME),
        ("{feature: a:b, between: [2026-01-01T00:00:00Z, 2026-02-01T00:00:00Z]}", TIME),
        ("{feature: a:b, includes: x}", STRINGS),
        ("{feature: a:b, exists: true}", None),
        ("{last: {event: e, of: p}, within: 1d, equals: x}", STRING),
        ("{max: {event: e, of: p}, within: 1d, at_least: 5}", FLOAT),
    ],
)
def test_where_nothing_is_declared_the_literal_tells_the_type(text: str, value_type: ValueType | None) -> None:
    parsed = parse(text, OPEN)
    assert isinstance(parsed, Predicate)
    assert parsed.operand_type == value_type


@pytest.mark.parametrize(
    "text",
    [
        "{context: a, greater_than: true}",
        "{context: a, between: [false, true]}",
        "{context: a, between: [1, x]}",
        "{context: a, in: [1, x]}",
        "{context: a, contains: 5}",
        "{did: e, within: 1d, where: {p: {at_least: true}}}",
        "{first: {event: e, of: p}, within: 1d, at_most: false}",
    ],
)
def test_where_nothing_is_declared_a_literal_still_has_to_fit_its_operator(text: str) -> None:
    [code] = problems_of(text, OPEN)
    assert code in ("literal-type", "invalid-instant")


def test_spans_lead_back_to_the_text() -> None:
    parsed = parse("all:\n  - {in_segment: vip}\n  - {feature: user:age, at_least: 18}\n")
    assert isinstance(parsed, AllOf)
    assert [str(child.span) for child in parsed.conditions] == ["a.yaml:2:18", "a.yaml:3:5"]
    assert parsed.conditions[1].span.text == "  - {feature: user:age, at_least: 18}"


# --- hints ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("{feature: user:contry, equals: NO}", "did you mean `user:country`?"),
        ("{feature: usr:country, equals: NO}", "did you mean `user:country`?"),
        ("{feature: country, equals: NO}", "did you mean `user:country`?"),
        ("{feature: user:zzz, equals: NO}", "`user` has `user:age`, `user:born`, `user:country`"),
        ("{feature: user:device, equals: mobile}", "did you mean `session:device`?"),
        ("{feature: zzz:qqq, equals: NO}", "the feature views are `engagement`, `events`, `session`, `user`"),
        ("{feature: user:age, atleast: 18}", "did you mean `at_least`?"),
        ("{feature: user:age, contains: x}", "for this type there are equals, not_equals, in, not_in, exists"),
        ("{feature: user:age, equals: '18'}", "remove the quotes"),
        ("{feature: user:country, equals: 47}", "quote it"),
        ("{feature: user:country, in: NO}", "write `[...]`"),
        ("{feature: user:country, equals: null}", "use `exists: false`, or `or_missing: true`"),
        ("{feature: user:age, between: [9, 5]}", "write the lower value first"),
        (
            "{clock: time_of_day, between: ['22:00', '06:00']}",
            "over midnight, write `any:` of `at_least` and `at_most`",
        ),
        ("{clock: day_of_week, equals: Monday}", "did you mean `monday`?"),
        ("{clock: weekday, equals: monday}", "write `time_of_day` or `day_of_week`"),
        ("{clock: time_of_day, at_least: '09:00', timezone: Europe/Olso}", "did you mean `Europe/Oslo`?"),
        ("{clock: day_of_week, equals: monday, timezone: user:timezone}", "write `timezone: {feature: user:timezone}`"),
        ("{did: purchse, within: 1d}", "did you mean `purchase`?"),
        ("{did: zzz, within: 1d}", "the events are `add_to_cart`, `purchase`, `view`, `visit`"),
        ("{did: purchase}", "for example `{did: purchase, within: 30d"),
        ("{did: purchase, within: 1d, where: {amuont: 5}}", "did you mean `amount`?"),
        ("{did: purchase, within: 1d, where: {zzz: 5}}", "`purchase` has `amount`, `coupon`, `quantity`, `sku`"),
        ("{did: purchase, within: 1d, where: {sku: [A, B]}}", "write `sku: {in: [...]}` for one of several values"),
        ("{did: purchase, within: 1d, count: 3}", "write e.g. `count: {at_least: 2}`"),
        ("{did: view, within: 100d}", "look back at most 90d, or raise `retention` in feature_repo/events.yaml"),
        ("{did: view, withn: 1d}", "did you mean `within`?"),
        ("{in_segment: vpi}", "did you mean `vip`?"),
        ("{al: [{in_segment: vip}]}", "did you mean `all`?"),
        ("{country: NO}", "a condition starts with one of all, any, none, not, feature"),
        ("{sequence: [{did: view}, {did_not: visit}], within: 1d}", "add e.g. `within: 30m`"),
        ("{sequence: [{did: view}, {did: visit}], within: 1d, anchor: last}", "did you mean `latest`?"),
        ("{sequence: [{did: view}, {did: visit}]}", "look back at most 90d"),
        ("{feature: user:age, at_least: 1, less_than: 5}", "make two conditions of them, or write `between`"),
    ],
)
def test_hints(text: str, hint: str) -> None:
    assert hint in (hint_of(text) or "")


def test_a_feature_that_rules_cannot_read_is_refused_with_its_type() -> None:
    catalog = Catalog({"a:map": Feature("a", "map", None, "Map"), "a:raw": Feature("a", "raw", BYTES, "Bytes")})
    assert problems_of("{feature: a:map, exists: true}", catalog) == ["operator-type"]
    assert problems_of("{feature: a:raw, equals: x}", catalog) == ["operator-type"]
    assert parse("{feature: a:raw, exists: true}", catalog)


# --- what decides nothing -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "codes"),
    [
        ("all: [{feature: user:age, at_least: 65}, {feature: user:age, less_than: 18}]", ["never-true"]),
        ("all: [{feature: user:age, greater_than: 18}, {feature: user:age, less_than: 18}]", ["never-true"]),
        (
            (
                "all: [{feature: user:renewal, after: 2026-01-01T00:00:00Z}, "
                "{feature: user:renewal, before: 2026-01-01T00:00:00.000001Z}]"
            ),
            ["never-true"],
        ),
        (
            "all: [{did: view, within: 1d, count: {greater_than: 2}}, {did: view, within: 1d, count: {less_than: 3}}]",
            ["never-true"],
        ),
        (
            "all: [{did: view, within: 1d, count: {greater_than: 2}}, {did: view, within: 2d, count: {less_than: 3}}]",
            [],
        ),
        ("all: [{feature: user:income, greater_than: 17}, {feature: user:income, less_than: 18}]", []),
        ("all: [{feature: user:age, equals: 5}, {feature: user:age, in: [6, 7]}]", ["never-true"]),
        ("all: [{feature: user:country, equals: 'NO'}, {feature: user:country, starts_with: S}]", ["never-true"]),
        ("all: [{feature: user:age, at_least: 5}, {feature: user:age, exists: false}]", ["never-true"]),
        ("all: [{feature: user:age, at_least: 5, or_missing: true}, {feature: user:age, exists: false}]", []),
        ("all: [{feature: user:age, exists: true}, {feature: user:age, exists: false}]", ["never-true"]),
        ("all: [{feature: user:age, between: [1, 5]}, {feature: user:age, between: [5, 9]}]", []),
        ("all: [{feature: user:age, between: [1, 4]}, {feature: user:age, between: [5, 9]}]", ["never-true"]),
        ("all: [{feature: user:email, equals: A, ignore_case: true}, {feature: user:email, equals: a}]", []),
        ("all: [{feature: user:renewal, in_last: 1d}, {feature: user:renewal, in_next: 1d}]", []),
        ("any: [{feature: user:age, at_least: 18}, {feature: user:age, less_than: 18}]", ["never-false"]),
        ("any: [{feature: user:age, at_least: 18}, {feature: user:age, less_than: 17}]", []),
        ("any: [{feature: user:country, equals: NO}, {feature: user:country, not_equals: NO}]", ["never-false"]),
        ("any: [{feature: user:age, exists: true}, {feature: user:age, exists: false}]", ["never-false"]),
        ("all: [{clock: day_of_week, in: [monday]}, {clock: day_of_week, in: [friday]}]", ["never-true"]),
        ("{did: view, within: 1d, count: {less_than: 1}}", []),
        ("{did: view, within: 1d, count: {less_than: 0}}", ["never-true"]),
        ("{did: view, within: 1d, count: {at_least: 0}}", ["never-false"]),
        ("{did: view, within: 1d, count: {not_in: [0]}}", []),
        ("{distinct: {event: view, of: sku}, within: 1d, equals: -1}", ["never-true"]),
        ("{sum: {event: purchase, of: amount}, within: 1d, at_least: -5}", []),
        ("{feature: user:email, contains: ''}", ["never-false"]),
        ("{feature: user:email, equals: ''}", []),
        ("{sequence: [{did: purchase}, {did_not: visit, within: 1h}], within: 1h}", ["never-true"]),
        ("{sequence: [{did: purchase}, {did_not: visit, within: 1h}], within: 61m}", []),
    ],
)
def test_conditions_that_nobody_means(text: str, codes: list[str]) -> None:
    [document], _ = read_documents(text, "a.yaml")
    parser = ConditionParser(SHOP)
    parsed = parser.condition(document)
    assert [problem.code for problem in parser.problems] == codes
    assert (parsed is None) is bool(codes)


# --- files ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "segments"
    (made / "deep").mkdir(parents=True)
    return made


def refused(folder: Path) -> DefinitionError:
    with pytest.raises(DefinitionError) as caught:
        load_folder(folder, SHOP)
    return caught.value


def test_the_files_that_are_read(folder: Path) -> None:
    for name in ("b.yaml", "deep/a.yml", "a.test.yaml", "a.test.yml", ".hidden.yaml", "notes.md", "deep/c.yaml.bak"):
        (folder / name).write_text("segment: x\nwhen: {feature: user:age, exists: true}\n")
    (folder / ".git").mkdir()
    (folder / ".git/config.yaml").write_text("nonsense")
    assert [path.relative_to(folder).as_posix() for path in definition_files(folder)] == ["b.yaml", "deep/a.yml"]


def test_all_problems_of_all_files_come_together(folder: Path) -> None:
    (folder / "a.yaml").write_text("segment: one\nwhen: {in_segment: two}\n---\nsegmnt: x\n")
    (folder / "b.yaml").write_text("segment: two\nwhen:\n  all:\n    - {in_segment: one}\n    - {in_segment: tow}\n")
    (folder / "c.yaml").write_text("segment: one\nwhen: [\n")
    (folder / "d.yaml").write_text("segment: one\nowner: [me]\n")
    (folder / "deep/e.yaml").write_bytes(b"segment: caf\xe9\n")
    (folder / "deep/f.yaml").write_text("- segment: x\n")
    found = [(str(problem.span), problem.code) for problem in refused(folder).diagnostics]
    assert sorted(found) == [
        ("segments/a.yaml:4:1", "unknown-kind"),
        ("segments/b.yaml:5:20", "unknown-segment"),
        ("segments/c.yaml:3:1", "yaml-syntax"),
        ("segments/d.yaml:1:1", "missing-key"),
        ("segments/d.yaml:1:10", "duplicate-segment"),
        ("segments/d.yaml:2:8", "wrong-shape"),
        ("segments/deep/e.yaml:1:1", "yaml-syntax"),
        ("segments/deep/f.yaml:1:1", "wrong-shape"),
    ]


def test_a_circle_is_told_once_with_its_way(folder: Path) -> None:
    for name, other in (("a", "b"), ("b", "c"), ("c", "a"), ("d", "a"), ("e", "e")):
        (folder / f"{name}.yaml").write_text(f"segment: {name}\nwhen:\n  not: {{in_segment: {other}}}\n")
    problems = refused(folder).diagnostics
    assert [(problem.code, str(problem.span)) for problem in problems] == [
        ("segment-cycle", "segments/a.yaml:3:21"),
        ("segment-cycle", "segments/e.yaml:3:21"),
    ]
    assert problems[0].message.endswith("in a circle: `a` -> `b` -> `c` -> `a`")
    assert problems[1].message.endswith("in a circle: `e` -> `e`")


def chain(length: int, condition: str = "{{in_segment: s{0}}}") -> str:
    """Segments of which each refers to the next one."""
    documents = [f"segment: s{n}\nwhen: {condition.format(n + 1)}\n" for n in range(length)]
    return "---\n".join([*documents, f"segment: s{length}\nwhen: {{feature: user:age, exists: true}}\n"])


@pytest.mark.slow
def test_references_are_as_deep_as_the_stack_can_follow() -> None:
    program = load_text(chain(MAX_LEVELS - 1), SHOP).program
    assert Evaluation(program, Inputs(), 0).segment("s0") is False
    assert explain(program, "s0", Inputs(), 0).changes_at is None
    nested = "{{not: " * 45 + "{{in_segment: s{0}}}" + "}}" * 45
    assert len(load_text(chain(4, nested), SHOP).program.order) == 5
    for text, name in ((chain(MAX_LEVELS), "s0"), (chain(3_000), "s2800"), (chain(5, nested), "s0")):
        with pytest.raises(DefinitionError) as caught:
            load_text(text, SHOP)
        [problem] = caught.value.diagnostics
        assert problem.code == "too-deep"
        assert f"`{name}` is more than 200 levels deep" in problem.message


def test_what_stands_in_several_places_through_an_alias_is_told_once() -> None:
    text = "segment: a\nwhen: {any: [&x {feature: user:aeg, exists: true}, *x]}\n"
    with pytest.raises(DefinitionError) as caught:
        load_text(text, SHOP)
    assert [problem.code for problem in caught.value.diagnostics] == ["unknown-feature"]
    assert str(caught.value).endswith("\n1 error")


@pytest.mark.parametrize("name", ["", "A", "1a", "a-b", "a b", "é", "a" * 64, "a\\n", "_a"])
def test_names_that_cannot_be_used(name: str) -> None:
    with pytest.raises(DefinitionError) as caught:
        load_text(f'segment: "{name}"\nwhen: {{feature: user:age, exists: true}}\n', SHOP)
    assert [problem.code for problem in caught.value.diagnostics] == ["invalid-name"]


def test_a_folder_without_files_defines_nothing(folder: Path) -> None:
    definitions = load_folder(folder, SHOP)
    assert definitions.program.names == ()
    assert definitions.settings.now is None


def test_what_a_segment_keeps() -> None:
    text = "segment: adults\ndescription: Of age\nowner: ada\ntags: [a, b]\nwhen: {feature: user:age, at_least: 18}\n"
    segment = load_text(text, SHOP, "a.yaml").program.segment("adults")
    assert (segment.description, segment.owner, segment.tags, str(segment.span)) == (
        "Of age",
        "ada",
        ("a", "b"),
        "a.yaml:1:1",
    )


def test_a_program_knows_its_order_and_its_names() -> None:
    text = "---\n".join(
        f"segment: {name}\nwhen: {{in_segment: {other}}}\n" for name, other in (("c", "b"), ("a", "c"), ("x", "b"))
    )
    program = load_text(text + "---\nsegment: b\nwhen: {feature: user:age, exists: true}\n", SHOP).program
    assert program.order == ("b", "c", "a", "x")
    assert program.closure(["c"]) == ("b", "c")
    with pytest.raises(UnknownNameError) as caught:
        program.segment("aa")
    assert caught.value.hint == "did you mean `a`?"


def test_settings_of_the_project() -> None:
    settings_ = load_text("project: shop\nnow: 1998-07-01T00:00:00+02:00\n", SHOP).settings
    assert (settings_.name, settings_.now) == ("shop", parse_instant("1998-06-30T22:00:00Z"))


@pytest.mark.parametrize(
    ("text", "codes"),
    [
        ("project: a\n---\nproject: b\n", ["duplicate-project"]),
        ("project: a\nnow: 1998-07-01\n", ["instant-without-offset"]),
        ("project: a\nnow: yesterday\n", ["invalid-instant"]),
        ("project: a\nnwo: 1998-07-01T00:00:00Z\n", ["unknown-key"]),
    ],
)
def test_settings_that_are_refused(text: str, codes: list[str]) -> None:
    with pytest.raises(DefinitionError) as caught:
        load_text(text, SHOP)
    assert [problem.code for problem in caught.value.diagnostics] == codes


def test_a_comma_in_braces_is_explained() -> None:
    with pytest.raises(DefinitionError) as caught:
        load_text("{segment: a, description: Here, and there, when: {in_segment: b}}", SHOP)
    hints = [problem.hint for problem in caught.value.diagnostics if problem.code == "unknown-key"]
    assert hints == ["inside `{...}` a comma ends a value: put the whole text in quotes"]


# --- anything at all ------------------------------------------------------------------------------------------------

WORDS = [*FORMS, *OPERATORS, "within", "where", "count", "event", "of", "match_on", "anchor", "timezone", "default"]
WORDS += ["or_missing", "ignore_case", "user:age", "user:country", "view", "purchase", "amount", "sku", "vip", "zzz"]
values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.sampled_from([*WORDS, "", "1h", "ever", "09:00", "0d"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(WORDS), inner, max_size=4),
    max_leaves=12,
)


@pytest.mark.slow
@pytest.mark.parametrize("catalog", [SHOP, OPEN], ids=["closed", "open"])
@given(
    head=st.sampled_from(sorted(FORMS)),
    value=values,
    beside=st.dictionaries(st.sampled_from(WORDS), values, max_size=3),
)
@settings(max_examples=400, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
def test_no_data_breaks_the_parser(catalog: Catalog, head: str, value: Any, beside: dict[str, Any]) -> None:
    parser = ConditionParser(catalog, {"vip"})
    parsed = parser.condition(from_plain({**beside, head: value}))
    assert (parsed is None) is bool(parser.problems)
    assert all(problem.code and str(problem) for problem in parser.problems)
    assert parsed is None or str(parsed)


# --- speed ----------------------------------------------------------------------------------------------------------


def definition(number: int) -> str:
    return f"""\
segment: segment_{number:03d}
description: Number {number} of shoppers who linger and fill a cart, and have not bought
owner: growth@shop.example
tags: [intent, team_{number % 7}]
when:
  all:
    - {{feature: user:country, in: ["NO", "SE", "X{number}"]}}
    - {{feature: user:age, between: [{18 + number % 40}, {60 + number % 30}]}}
    - {{feature: user:email, ends_with: ".example{number}.com", ignore_case: true}}
    - {{did: view, within: {1 + number % 50}h, count: {{at_least: {1 + number % 5}}}, where: {{sku: "A{number}"}}}}
    - any:
        - {{sum: {{event: purchase, of: amount}}, within: 30d, at_least: {100 + number}}}
        - sequence:
            - {{did: add_to_cart}}
            - {{did_not: purchase, within: {10 + number % 20}m}}
          within: 24h
    - none:
        - {{feature: user:tags, includes_any: [staff, banned]}}
    - {{not_in_segment: segment_{number // 2:03d}}}
""".replace("    - {not_in_segment: segment_000}\n" if number < 2 else "", "")


@pytest.mark.slow
def test_five_hundred_definitions_load_in_two_seconds() -> None:
    text = "---\n".join(definition(number) for number in range(500))
    started = time.process_time()
    program = load_text(text, SHOP).program
    elapsed = time.process_time() - started
    assert len(program.segments) == 500
    assert program.order[0] in ("segment_000", "segment_001")
    assert elapsed < 2


def test_an_event_type_may_lack_retention() -> None:
    catalog = Catalog(events={"view": EventType("view", {}, None)})
    assert parse("{sequence: [{did: view}, {did: view}]}", catalog)
