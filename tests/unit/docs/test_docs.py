"""What the documentation shows is what happens: examples run, and tables are complete."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from rules_engine.definitions.source import Node, from_plain, read_documents, to_plain
from rules_engine.errors import DefinitionError
from rules_engine.events.declarations.events_yaml import parse_events
from rules_engine.rules.explain import explain
from rules_engine.rules.forms import FORMS
from rules_engine.rules.kinds import KINDS
from rules_engine.rules.load import Definitions, load_documents
from rules_engine.rules.operators import OPERATORS
from rules_engine.rules.reference import COMMAND, PAGE, page
from rules_engine.simulation.case_files import AnyCase, Case, read_cases
from rules_engine.simulation.segment_tests import run_case
from tests.docs_pages import EVENTS_FILE, ROOT, Example, events_table, examples, pages, shop, shop_events
from tests.docs_pages import NOW as DOCS_NOW

CATALOG = shop()
PAGES = {path.relative_to(ROOT).as_posix(): examples(path) for path in pages()}
ALL = [example for found in PAGES.values() for example in found]
ACCEPTED = [example for example in ALL if example.refusal is None and not example.is_events]
REFUSED = [example for example in ALL if example.refusal is not None]

#: Functions whose first argument is the code of a problem.
_MAKERS = {"Refusal", "at_key", "Diagnostic", "_refuse", "PatternProblem", "SinkWarning", "_warning"}


def load(example: Example) -> Definitions:
    """An example beside the definitions of its page, as they would stand in one project."""
    others = [other for other in PAGES[example.block.page] if other is not example and other.is_definition]
    if any("project" in document for one in others for document in one.documents):
        # There is one set of settings in a project: an example that has its own stands alone.
        others = [] if any("project" in document for document in example.documents) else others
    documents: list[Node] = [document for one in [*others, example] for document in one.documents]
    definitions = load_documents(documents, CATALOG)
    now = definitions.settings.now
    return definitions.with_now(DOCS_NOW if now is None else now)


def read(example: Example) -> tuple[Definitions, list[AnyCase]]:
    if example.is_events:
        parse_events(example.block.text, EVENTS_FILE)
    definitions = load(example)
    cases, problems = read_cases(example.tests, definitions, CATALOG)
    if problems:
        raise DefinitionError(problems)
    return definitions, cases


# --- examples -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("example", ACCEPTED, ids=str)
def test_the_cases_of_an_example_hold(example: Example) -> None:
    definitions, cases = read(example)
    failures = [str(failure) for case in cases for failure in run_case(case, definitions.program)]
    if example.failure is None:
        assert not failures, "\n".join(failures)
    else:
        assert "\n".join(failures) == example.failure


@pytest.mark.parametrize("example", [example for example in ACCEPTED if example.failure is None], ids=str)
def test_every_segment_of_an_example_has_cases_with_different_answers(example: Example) -> None:
    _, found = read(example)
    cases = [case for case in found if isinstance(case, Case)]
    for name in example.names:
        answers = {answer for case in cases if case.segment == name for _, answer in case.points}
        moves = [case for case in cases if case.segment == name and (case.enters or case.exits)]
        assert len(answers) > 1 or moves, f"{example}: {name}: the cases show one answer only: {answers}"


@pytest.mark.parametrize("example", REFUSED, ids=str)
def test_an_example_is_refused_in_these_words(example: Example) -> None:
    with pytest.raises(DefinitionError) as caught:
        read(example)
    assert str(caught.value) == example.refusal


@pytest.mark.parametrize("example", [example for example in ALL if example.explanations], ids=str)
def test_the_first_case_is_explained_in_these_words(example: Example) -> None:
    definitions, cases = read(example)
    for case, shown in zip(cases, example.explanations, strict=False):
        assert isinstance(case, Case)
        entity = re.split(" is (?:not |known )*", shown, maxsplit=1)[0]
        assert str(explain(definitions.program, case.segment, case.inputs, case.start, entity)) == shown


def test_the_pages_have_examples_of_all_kinds() -> None:
    assert len(PAGES["docs/language.md"]) >= 35
    assert len(REFUSED) >= 3
    assert any(example.explanations for example in ALL)
    assert any(example.failure for example in ALL)


def test_the_events_of_the_shop_are_those_of_the_table() -> None:
    declared = shop_events().types
    assert {name: replace(event, description="") for name, event in declared.items()} == events_table()


# --- tables ---------------------------------------------------------------------------------------------------------


def test_the_page_of_operators_is_not_stale() -> None:
    assert (ROOT / PAGE).read_text(encoding="utf-8") == page(), f"run `{COMMAND}` and commit {PAGE}"


@pytest.mark.parametrize(
    "text", [*(one.example for one in OPERATORS.values()), *(one.example for one in FORMS.values())]
)
def test_the_examples_of_the_tables_load(text: str) -> None:
    documents = [document for one in PAGES["docs/language.md"] if one.is_definition for document in one.documents]
    [condition], problems = read_documents(text, "example")
    assert not problems
    load_documents([*documents, from_plain({"segment": "example", "when": to_plain(condition)})], CATALOG)


def test_every_form_and_nearly_every_operator_is_used_in_the_examples() -> None:
    text = "\n".join(example.block.text for example in ALL)
    unused = {name for name in (*OPERATORS, *FORMS) if not re.search(rf"\b{name}:", text)}
    assert not unused & FORMS.keys()
    assert len(unused) <= 5, unused


def test_every_kind_of_document_is_listed() -> None:
    text = (ROOT / "docs/language.md").read_text(encoding="utf-8")
    assert [kind for kind in KINDS if f"| `{kind}:` |" not in text] == []


def codes_in(folder: Path) -> Iterator[str]:
    """The codes of all problems that the modules of a folder can report."""
    for path in folder.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            where: ast.expr | None = None
            if isinstance(node, ast.Call) and node.args:
                name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
                where = node.args[0] if name in _MAKERS else None
                where = next((given.value for given in node.keywords if given.arg == "code"), where)
            elif isinstance(node, ast.arguments):
                defaults = zip(node.kwonlyargs, node.kw_defaults, strict=True)
                where = next((default for argument, default in defaults if argument.arg == "code"), None)
            elif isinstance(node, ast.Assign) and any(getattr(target, "id", "") == "code" for target in node.targets):
                where = node.value
            for found in ast.walk(where) if where is not None else ():
                if isinstance(found, ast.Constant) and re.fullmatch(r"[a-z]+(-[a-z]+)+", str(found.value)):
                    yield str(found.value)


def test_the_codes_of_refusals_are_listed_and_no_others() -> None:
    text = (ROOT / "docs/language.md").read_text(encoding="utf-8")
    section = text[text.index("\n## What is refused") :]
    listed = set(re.findall(r"`([a-z]+(?:-[a-z]+)+)`", "\n".join(re.findall(r"^\| (`.*?) \|", section, re.MULTILINE))))
    package = ROOT / "rules_engine"
    known = {code for folder in ("definitions", "rules", "sinks") for code in codes_in(package / folder)}
    known |= {f"duplicate-{kind}" for kind in KINDS}
    warned = set(codes_in(package / "deploy"))
    assert known - listed == set()
    assert listed - known - warned == set()


def test_the_reasons_to_turn_an_event_away_are_listed() -> None:
    text = (ROOT / "docs/events.md").read_text(encoding="utf-8")
    section = text[text.index("\n## Events that are turned away") :]
    listed = set(re.findall(r"`([a-z]+(?:-[a-z]+)+)`", "\n".join(re.findall(r"^\| (`.*?) \|", section, re.MULTILINE))))
    files = [
        ROOT / "rules_engine/events/declarations/validation.py",
        ROOT / "rules_engine/sdk/tracking.py",
        *(ROOT / "rules_engine/stream").rglob("*.py"),
    ]
    source = "\n".join(file.read_text(encoding="utf-8") for file in files)
    assert listed == set(re.findall(r"(?:_Invalid|Rejection)\(\s*\"([a-z-]+)\"", source))
