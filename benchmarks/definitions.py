"""How long definitions take to load and check: YAML text to a compiled index, on one core."""

from __future__ import annotations

import random

from rich.console import Console
from rich.table import Table

from benchmarks.timing import seconds_of, write
from rules_engine.definitions.source import Node, read_documents
from rules_engine.deploy.lint.segments import lint_segments
from rules_engine.diagnostics import Diagnostic
from rules_engine.rules.catalog import Catalog, EventType, Feature
from rules_engine.rules.load import Definitions, load_documents
from rules_engine.rules.types import FLOAT, STRING
from rules_engine.targets.index.rule_index import RuleIndex

SIZES = (100, 500, 2_000)
PREDICATES = 5
PER_FILE = 50
FEATURES = 40
COUNTRIES = ("NO", "SE", "DK", "FI", "IS", "DE", "FR", "US")


def catalog() -> Catalog:
    """Numbers, strings and one event, all declared: every name and type is checked."""
    numbers = {f"user:number{i}": Feature("user", f"number{i}", FLOAT, "Float64") for i in range(FEATURES // 2)}
    strings = {f"user:text{i}": Feature("user", f"text{i}", STRING, "String") for i in range(FEATURES // 2)}
    return Catalog({**numbers, **strings}, events={"purchase": EventType("purchase", {"amount": FLOAT})})


def predicate(chance: random.Random, feature: int) -> str:
    """One condition: half on numbers, some on strings, some on events."""
    kind = chance.random()
    if kind < 0.5:
        return f"{{feature: user:number{feature}, at_least: {chance.randrange(1_000) / 10}}}"
    if kind < 0.8:
        return f"{{feature: user:text{feature}, in: [{', '.join(chance.sample(COUNTRIES, 3))}]}}"
    return (
        f"{{sum: {{event: purchase, of: amount}}, within: {chance.randrange(1, 90)}d, at_least: {chance.random():.2f}}}"
    )


def files(size: int) -> list[str]:
    """The texts of files with so many segments in all."""
    chance = random.Random(size)
    documents = []
    for number in range(size):
        features = chance.sample(range(FEATURES // 2), PREDICATES)
        conditions = "\n".join(f"    - {predicate(chance, feature)}" for feature in features)
        documents.append(f"segment: s{number}\ndescription: number {number}\nwhen:\n  all:\n{conditions}\n")
    return ["---\n".join(documents[start : start + PER_FILE]) for start in range(0, size, PER_FILE)]


def load(texts: list[str], known: Catalog) -> Definitions:
    """What the product does with a folder's files, but for reading them from disk."""
    documents: list[Node] = []
    problems: list[Diagnostic] = []
    for number, text in enumerate(texts):
        found, trouble = read_documents(text, f"{number}.yaml")
        documents += found
        problems += trouble
    return load_documents(documents, known, problems)


def measure(size: int) -> dict[str, float]:
    """CPU seconds of each step for so many segments."""
    texts, known = files(size), catalog()
    definitions = load(texts, known)
    return {
        "load": seconds_of(lambda: load(texts, known)),
        "lint": seconds_of(lambda: list(lint_segments(definitions))),
        "compile": seconds_of(lambda: RuleIndex(definitions.program)),
    }


def main() -> None:
    """Measure, print and write down."""
    table = Table("segments", "load and check s", "lint s", "compile s", title="Definitions, CPU seconds on one core")
    figures = []
    for size in SIZES:
        took = measure(size)
        figures.append({"segments": size, "predicates": size * PREDICATES, **took})
        table.add_row(f"{size:,}", *(f"{seconds:.2f}" for seconds in took.values()))
    Console().print(table)
    write("definitions", {"figures": figures})
