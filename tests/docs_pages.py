"""The examples of the documentation, read from its pages and put together as a project would.

The convention, which docs/tests.md explains to readers: a block of YAML is a definition, a condition alone, a list of
cases for the block before it, or a test document. A block of text after one may say how it is refused, how a case of it
fails, or how an answer is explained; then exactly that is what must come out.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from rules_engine.clock import parse_duration, parse_instant
from rules_engine.definitions import source
from rules_engine.definitions.source import Entry, Items, Node, Scalar, read_documents
from rules_engine.events.declarations.events_yaml import EventDeclarations, parse_events
from rules_engine.rules.catalog import Catalog, EventType, Feature
from rules_engine.rules.forms import FORMS
from rules_engine.rules.kinds import KINDS
from rules_engine.rules.types import FLOAT, INTEGER, STRING, TIME, ValueType, from_feast_name

ROOT = Path(__file__).parents[1]

#: Where the clock of a case starts that does not say it; docs/language.md names it.
NOW = parse_instant("2026-03-02T12:00:00Z")

#: The files that the examples are said to stand in.
FILE, TEST_FILE = "segments/example.yaml", "segments/example.test.yaml"
EVENTS_FILE = "feature_repo/events.yaml"

#: The name that a condition which stands alone is given.
CONDITION = "example"

_FENCE = re.compile(r"^```(?P<info>[^\n`]*)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)
_REFUSAL = re.compile(r"\S+:\d+:\d+: (error|warning)\[")
_FAILURE = re.compile(r"\S+:\d+:\d+: \w+: ")
_EXPLANATION = re.compile(r"\S.* (is in|is not in|is not known to be in) \w+ at ")

_PROPERTY_TYPES = {"string": STRING, "number": FLOAT, "integer": INTEGER, "date-time": TIME}


@dataclass(frozen=True)
class Block:
    """A fenced block: the words after its fence, its text, and the line of its fence."""

    page: str
    line: int
    info: str
    text: str

    @property
    def place(self) -> str:
        return f"{self.page}:{self.line}"


@dataclass
class Example:
    """A block of YAML with what the blocks behind it say of it."""

    block: Block
    documents: list[Node] = field(default_factory=list)
    tests: list[Node] = field(default_factory=list)
    refusal: str | None = None
    failure: str | None = None
    explanations: list[str] = field(default_factory=list)
    is_events: bool = False

    def __str__(self) -> str:
        return self.block.place

    @property
    def is_definition(self) -> bool:
        """Whether the other examples of the page may refer to what this one defines."""
        return not self.is_events and self.refusal is None and self.names != [CONDITION]

    @property
    def names(self) -> list[str]:
        """The segments that the block defines."""
        return [str(document.entry("segment").value.value) for document in self.documents if "segment" in document]


def pages() -> list[Path]:
    """The pages whose examples are checked."""
    return [path for path in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))) if path.exists()]


def blocks(page: Path) -> Iterator[Block]:
    """Every fenced block of a page."""
    text = page.read_text(encoding="utf-8")
    for match in _FENCE.finditer(text):
        line = text.count("\n", 0, match.start()) + 1
        yield Block(page.relative_to(ROOT).as_posix(), line, match["info"].strip(), match["text"])


def examples(page: Path) -> list[Example]:
    """The examples of a page in their order.

    A fence ``yaml other`` marks YAML that is no definition of ours, such as the settings of another tool.
    """
    found: list[Example] = []
    for block in blocks(page):
        if block.info == "yaml":
            _add_yaml(found, block)
        elif block.info == "text" and found:
            _add_expectation(found[-1], block.text.rstrip("\n"))
    return found


def _add_expectation(example: Example, text: str) -> None:
    if _REFUSAL.match(text):
        example.refusal = text
    elif _FAILURE.match(text):
        example.failure = text
    elif _EXPLANATION.match(text):
        example.explanations.append(text)


def _add_yaml(found: list[Example], block: Block) -> None:
    documents, problems = read_documents(block.text, FILE)
    first = documents[0] if documents else None
    key = first.entries[0].key if isinstance(first, source.Mapping) and first.entries else None
    if isinstance(first, Items) or key == "test":
        assert found, f"{block.place}: cases stand after the definition that they are of"
        cases, _ = read_documents(block.text, TEST_FILE)
        found[-1].tests += [_test(found[-1], case) for case in cases]
    elif key == "events":
        found.append(Example(block, is_events=True))
    elif key in FORMS and not problems:
        found.append(Example(block, [_segment(CONDITION, documents[0])]))
    else:
        assert key in KINDS or problems, f"{block.place}: `{key}` is no kind of example; is it `yaml other`?"
        found.append(Example(block, documents))


def _segment(name: str, condition: Node) -> Node:
    return _mapping({"segment": Scalar(name, condition.span), "when": condition})


def _test(example: Example, cases: Node) -> Node:
    if not isinstance(cases, Items):
        return cases
    return _mapping({"test": Scalar(example.names[-1], cases.span), "cases": cases})


def _mapping(entries: Mapping[str, Node]) -> source.Mapping:
    span = next(iter(entries.values())).span
    return source.Mapping(tuple(Entry(key, span, value) for key, value in entries.items()), span)


# --- the example shop -----------------------------------------------------------------------------------------------


def shop() -> Catalog:
    """What the examples may name: the tables of docs/language.md."""
    text = (ROOT / "docs/language.md").read_text(encoding="utf-8")
    features = {row["feature"]: _feature(row) for row in _table(text, "feature")}
    ttl = {row["feature"].split(":")[0]: parse_duration(row["ttl"]) for row in _table(text, "feature") if row["ttl"]}
    declared = shop_events()
    return Catalog(features, ttl, declared.types, declared.features)


def shop_events() -> EventDeclarations:
    """The first events.yaml of docs/events.md."""
    first = next(example for example in examples(ROOT / "docs/events.md") if example.is_events)
    return parse_events(first.block.text, EVENTS_FILE)


def events_table() -> dict[str, EventType]:
    """The events as the table of docs/language.md has them, without descriptions."""
    text = (ROOT / "docs/language.md").read_text(encoding="utf-8")
    return {row["event"]: _event(row) for row in _table(text, "event")}


def _feature(row: Mapping[str, str]) -> Feature:
    view, name = row["feature"].split(":")
    value_type = from_feast_name(row["type"])
    assert value_type is not None, row
    return Feature(view, name, value_type, row["type"])


def _event(row: Mapping[str, str]) -> EventType:
    properties: dict[str, ValueType] = {}
    for part in row["properties"].split(", "):
        name, kind = part.split(" ")
        properties[name] = _PROPERTY_TYPES[kind]
    return EventType(row["event"], properties, None if row["kept for"] == "ever" else parse_duration(row["kept for"]))


def _table(text: str, first_head: str) -> list[dict[str, str]]:
    """The rows of the table whose first column is headed so, without backticks."""
    lines = iter(text.splitlines())
    head = next(cells for line in lines if (cells := _cells(line)) and cells[0] == first_head)
    next(lines)
    rows = []
    for line in lines:
        if not line.startswith("|"):
            break
        rows.append(dict(zip(head, _cells(line), strict=True)))
    return rows


def _cells(line: str) -> list[str]:
    return [cell.strip().replace("`", "") for cell in line.strip().strip("|").split("|")] if "|" in line else []
