"""YAML to nodes with places: scalars by YAML 1.2, and definitions as the untrusted input that they are."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rules_engine.definitions.characters import hidden_characters
from rules_engine.definitions.source import (
    MAX_BYTES,
    MAX_DEPTH,
    MAX_NODES,
    Items,
    Mapping,
    Node,
    Scalar,
    core_scalar,
    from_plain,
    read_documents,
    to_plain,
)
from rules_engine.diagnostics import Diagnostic
from rules_engine.errors import DefinitionError


def read(text: str) -> Any:
    documents, problems = read_documents(text, "a.yaml")
    assert not problems, problems
    [document] = documents
    return to_plain(document)


def only_problem(text: str) -> Diagnostic:
    _, [problem] = read_documents(text, "a.yaml")
    return problem


# --- scalars --------------------------------------------------------------------------------------------------------


STRINGS = """
    NO no No on off yes Y n 12:30 1_000 0b11 1e e3 +-1 0o8 0xg --1 1.2.3 2026-01-31 2026-01-31T09:00:00Z
    nUll tRue inf nan << = ٣ +.e1 Infinity -
"""


@pytest.mark.parametrize("text", [*STRINGS.split(), "1 2"])
def test_plain_scalars_that_are_strings(text: str) -> None:
    assert core_scalar(text) == text
    assert read(f"key: {text}" if text != "-" else "key: '-'") == {"key": text}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("true", True),
        ("FALSE", False),
        ("null", None),
        ("~", None),
        ("", None),
        ("010", 10),
        ("-0", 0),
        ("+7", 7),
        ("0o17", 15),
        ("0xFF", 255),
        ("9223372036854775808", 2**63),
        ("1.", 1.0),
        (".5", 0.5),
        ("-1.5e+3", -1500.0),
        ("1E400", math.inf),
        (".inf", math.inf),
        ("-.INF", -math.inf),
    ],
)
def test_plain_scalars_that_are_something_else(text: str, value: Any) -> None:
    found = read(f"key: {text}")["key"]
    assert (type(found), found) == (type(value), value)


def test_not_a_number_is_one_scalar() -> None:
    assert math.isnan(read("key: .nan")["key"])


def test_a_number_with_thousands_of_digits_is_no_work() -> None:
    assert read(f"key: {'9' * 5000}")["key"] == math.inf


@pytest.mark.parametrize("text", ["'true'", '"true"', "|-\n  true", ">-\n  true"])
def test_quoted_and_block_scalars_are_strings(text: str) -> None:
    assert read(f"key: {text}") == {"key": "true"}


plain_text = st.text(st.characters(exclude_categories=("Cc", "Cs", "Cn", "Zl", "Zp"), exclude_characters="\ufeff"))
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | plain_text,
    lambda inner: st.lists(inner) | st.dictionaries(plain_text, inner),
    max_leaves=20,
)


@pytest.mark.slow
@given(json_values)
def test_json_is_read_as_it_is(data: Any) -> None:
    # YAML allows 1024 characters for a key that is not announced by `?`.
    documents, problems = read_documents(json.dumps(data, ensure_ascii=False), "a.json")
    if not problems:
        assert [to_plain(document) for document in documents] == ([] if data is None else [data])
    else:
        assert any(len(key) > 200 or hidden_characters(key) for key in keys(data)), problems


def keys(data: Any) -> Iterator[str]:
    if isinstance(data, dict):
        yield from data
    for inner in data.values() if isinstance(data, dict) else data if isinstance(data, list) else ():
        yield from keys(inner)


@pytest.mark.slow
@given(json_values)
def test_python_data_becomes_the_same_nodes(data: Any) -> None:
    assert to_plain(from_plain(data)) == data


@pytest.mark.slow
@given(st.text())
def test_no_text_breaks_the_reader(text: str) -> None:
    documents, problems = read_documents(text, "a.yaml")
    for document in documents:
        to_plain(document)
    for problem in problems:
        assert problem.span.line >= 1
        assert problem.span.column >= 1
        assert str(problem)


# --- places ---------------------------------------------------------------------------------------------------------


def places(node: Node) -> Iterator[tuple[Any, int, int, int]]:
    """Every key and scalar with its line, column and length."""
    if isinstance(node, Scalar):
        yield node.value, node.span.line, node.span.column, node.span.length
    elif isinstance(node, Items):
        for item in node.items:
            yield from places(item)
    else:
        for entry in node:
            yield entry.key, entry.key_span.line, entry.key_span.column, entry.key_span.length
            yield from places(entry.value)


def test_every_node_knows_its_place() -> None:
    text = 'ключ: "ä b"\nlist:\n  - [one, 2]\n  - {k: null}\nlast: |\n  text\n'
    [document], _ = read_documents(text, "a.yaml")
    assert list(places(document)) == [
        ("ключ", 1, 1, 4),
        ("ä b", 1, 7, 5),
        ("list", 2, 1, 4),
        ("one", 3, 6, 3),
        (2, 3, 11, 1),
        ("k", 4, 6, 1),
        (None, 4, 9, 4),
        ("last", 5, 1, 4),
        ("text\n", 5, 7, 1),
    ]


def test_a_span_keeps_its_source_line() -> None:
    [document], _ = read_documents("a:\r\n  b: c\r\n", "a.yaml")
    assert isinstance(document, Mapping)
    inner = document.get("a")
    assert isinstance(inner, Mapping)
    assert inner.entry("b").value.span.text == "  b: c"
    assert str(inner.entry("b").value.span) == "a.yaml:2:6"


@pytest.mark.parametrize("text", ["", "# only a remark\n", "---\n---\n", "~", "\n\n"])
def test_a_file_without_a_document(text: str) -> None:
    assert read_documents(text, "a.yaml") == ([], [])


def test_several_documents_and_a_byte_order_mark() -> None:
    documents, problems = read_documents("\ufeffa: 1\n---\n# between\n---\nb: 2\n...\n", "a.yaml")
    assert ([to_plain(document) for document in documents], problems) == ([{"a": 1}, {"b": 2}], [])


# --- refusals -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "code", "place", "message"),
    [
        ("a: [1, 2", "yaml-syntax", "2:1", "did not find expected ',' or ']'"),
        ("a: 'b", "yaml-syntax", "1:6", "unexpected end of stream"),
        ("a: b: c", "yaml-syntax", "1:5", "mapping values are not allowed in this context"),
        ("a:\n\tb: c", "yaml-syntax", "2:1", "cannot start any token"),
        ("a: b\n\x07: c", "yaml-syntax", "2:1", "control characters are not allowed"),
        ("a: b\nc: d\ud800", "yaml-syntax", "2:5", r"'\ud800' does not stand for anything"),
        ("a: !!python/object/apply:os.system [ls]", "yaml-tag", "1:4", "YAML tags such as `tag:yaml.org,2002:python"),
        ("a: !!str 5", "yaml-tag", "1:4", "are not allowed"),
        ("a: ! 5", "yaml-tag", "1:4", "`!`"),
        ("a: *b", "yaml-alias", "1:4", "there is no anchor `&b` before this alias"),
        ("a: &a [*a]", "yaml-alias", "1:8", "the alias `*a` refers to itself"),
        ("a: &a 1\n---\nb: *a", "yaml-alias", "3:4", "there is no anchor"),
        ("a: 1\nb: 2\na: 3", "duplicate-key", "3:1", "`a` appears twice; it was first given at line 1"),
        ("{a: 1, 'a': 2}", "duplicate-key", "1:8", "appears twice"),
        ("1: a", "key-not-string", "1:1", "a key must be a string, and `1` is none"),
        ("true: a", "key-not-string", "1:1", "`true` is none"),
        ("? [a]\n: b", "key-not-string", "1:3", "and this is none"),
        ("? \n: b", "key-not-string", "1:2", "`null` is none"),
    ],
)
def test_what_is_refused_and_where(text: str, code: str, place: str, message: str) -> None:
    problem = only_problem(text)
    assert (problem.code, f"{problem.span.line}:{problem.span.column}") == (code, place)
    assert message in problem.message


def test_problems_of_keys_do_not_end_the_reading() -> None:
    documents, problems = read_documents("a: 1\na: 2\n1: x\n---\nb: 1\nb: 2\n", "a.yaml")
    assert [problem.code for problem in problems] == ["duplicate-key", "key-not-string", "duplicate-key"]
    assert [to_plain(document) for document in documents] == [{"a": 1}, {"b": 1}]


def test_documents_before_a_syntax_error_are_kept() -> None:
    documents, [problem] = read_documents("a: 1\n---\nb: [", "a.yaml")
    assert ([to_plain(document) for document in documents], problem.code) == ([{"a": 1}], "yaml-syntax")


# --- bounds ---------------------------------------------------------------------------------------------------------


def nested(depth: int, inner: str = "1") -> str:
    return "[" * depth + inner + "]" * depth


def test_the_deepest_text() -> None:
    assert read_documents(nested(MAX_DEPTH), "a.yaml")[1] == []
    assert only_problem(nested(MAX_DEPTH + 1)).code == "too-deep"


def test_a_text_of_brackets_only() -> None:
    assert only_problem("[" * 100_000).code == "too-deep"


def test_python_data_is_as_deep_as_a_text() -> None:
    data: Any = 1
    for _ in range(MAX_DEPTH):
        data = [data]
    assert to_plain(from_plain(data)) == data
    with pytest.raises(DefinitionError, match="too-deep"):
        from_plain({"key": data})


def test_aliases_do_not_stack_levels_beyond_the_deepest_text() -> None:
    """Sixty levels that hold an alias of sixty levels, and so on, would be deeper than Python's stack."""
    half = MAX_DEPTH // 2
    fits = f"- &a {nested(half)}\n- {nested(MAX_DEPTH - half - 1, '*a')}\n"
    assert read_documents(fits, "a.yaml")[1] == []
    stacked = "".join(f"- &a{n} {nested(half, f'*a{n - 1}' if n else '1')}\n" for n in range(40))
    problem = only_problem(stacked)
    assert (problem.code, problem.span.line) == ("too-deep", 2)


def test_aliases_that_multiply() -> None:
    """A billion laughs: ten levels of ten aliases each."""
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 10)]
    started = time.process_time()
    problem = only_problem("\n".join(lines))
    assert (problem.code, problem.span.line) == ("yaml-alias", 5)
    assert time.process_time() - started < 1


def test_an_alias_within_bounds_is_its_value_in_every_place() -> None:
    assert read("a: &x {k: [1]}\nb: *x\nc: [*x, *x]") == {"a": {"k": [1]}, "b": {"k": [1]}, "c": [{"k": [1]}] * 2}


def test_the_largest_text() -> None:
    assert read_documents("a: " + "x" * (MAX_BYTES - 3), "a.yaml")[1] == []
    problem = only_problem("a: " + "x" * (MAX_BYTES - 2))
    assert (problem.code, problem.hint) == ("file-too-large", "split it into several files")


@pytest.mark.slow
def test_the_greatest_number_of_values() -> None:
    assert read_documents("[" + "1," * (MAX_NODES - 1) + "]", "a.yaml")[1] == []
    assert only_problem("[" + "1," * MAX_NODES + "]").code == "file-too-large"


# --- Python data ----------------------------------------------------------------------------------------------------


def test_an_aware_datetime_is_an_instant_in_a_condition() -> None:
    assert to_plain(from_plain({"before": datetime(2026, 1, 1, tzinfo=UTC)})) == {"before": "2026-01-01T00:00:00+00:00"}
    assert to_plain(from_plain((1, "a"))) == [1, "a"]


@pytest.mark.parametrize("data", [{1: "a"}, {"a": object()}, [Decimal(1)], {"a": {1, 2}}, b"a"])
def test_python_data_that_yaml_has_no_place_for(data: Any) -> None:
    with pytest.raises(TypeError, match="a condition holds dicts with string keys, lists and scalars, not"):
        from_plain(data)
