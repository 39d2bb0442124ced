"""Characters that the eye misses: an error in a key, a warning in a value, nothing where another script is written."""

from __future__ import annotations

import pytest

from rules_engine.definitions.characters import LOOK_ALIKES, hidden_characters
from rules_engine.definitions.source import read_documents
from rules_engine.deploy.lint.characters import lint_characters
from rules_engine.errors import DefinitionError
from rules_engine.rules.catalog import Catalog
from rules_engine.rules.load import load_text


@pytest.mark.parametrize(
    ("text", "place", "code", "said"),
    [
        ("when: {feature:\u00a0u:s, equals: NO}", (1, 16), "invisible-character", "no-break space (U+00A0)"),
        ("wh\u200ben: {feature: u:s, equals: NO}", (1, 3), "invisible-character", "zero width space (U+200B)"),
        ("\u201cwhen\u201d: {feature: u:s, equals: NO}", (1, 1), "look-alike-character", "(U+201C)"),
        ("wh\u0435n: {feature: u:s, equals: NO}", (1, 3), "look-alike-character", "cyrillic small letter ie (U+0435)"),
        ("when: {feature: u:s, \ufeffequals: NO}", (1, 22), "invisible-character", "(U+FEFF)"),
    ],
)
def test_a_key_with_such_a_character_is_refused_at_its_place(
    text: str, place: tuple[int, int], code: str, said: str
) -> None:
    with pytest.raises(DefinitionError) as caught:
        load_text(f"segment: s\n{text}", Catalog(closed=False))
    found = next(problem for problem in caught.value.diagnostics if problem.code == code)
    assert said in found.message
    assert (found.span.line - 1, found.span.column) == place


@pytest.mark.parametrize(
    ("value", "codes"),
    [
        ("NO", []),
        ("NO\u200b", ["invisible-character"]),
        ("N\u00a0O", ["invisible-character"]),
        ("\u201cNO\u201d", ["look-alike-character", "look-alike-character"]),
        ("'NO '", ["blank-at-the-end"]),
        ("\u0421hina", ["look-alike-character"]),
        ("\u0420\u043e\u0441\u0441\u0438\u044f", []),
        ("\u0421\u0421\u0421\u0420", []),
        ("Gr\u00f6\u00dfe\u00a0M", []),
        ("\u6771\u4eac\u3000", []),
        ('"a\\u200bb"', ["invisible-character"]),
    ],
)
@pytest.mark.parametrize(
    "where",
    [
        "when: {feature: u:s, equals: VALUE}",
        "when: {feature: u:s, in: [x, VALUE]}",
        "when: {did: e, within: 1d, where: {p: VALUE}}",
        "payload: {k: {value: VALUE}}",
        "when: {did: VALUE, within: 1d}",
    ],
)
def test_a_value_with_such_a_character_is_warned_of(where: str, value: str, codes: list[str]) -> None:
    [document], problems = read_documents(where.replace("VALUE", value), "a.yaml")
    assert not problems
    assert [warning.code for warning in lint_characters(document)] == codes


def test_prose_and_texts_to_look_for_are_left_alone() -> None:
    text = "description: It\u2019s \u201cmore\u201d\nwhen: {feature: u:s, contains: ' x '}"
    [document], _ = read_documents(text, "a.yaml")
    assert list(lint_characters(document)) == []


def test_every_look_alike_is_found_among_plain_letters_and_stands_for_a_plain_one() -> None:
    for stranger, plain in LOOK_ALIKES.items():
        assert plain.isascii(), stranger
        [found] = hidden_characters(f"ab{stranger}")
        assert (found.index, found.code) == (2, "look-alike-character"), stranger
