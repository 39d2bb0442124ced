"""The page docs/operators.md, written from the operator table and the table of forms.

``python -m rules_engine.rules.reference`` writes it; a test fails while the file is not what the tables say.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from rules_engine.rules.forms import (
    AGGREGATE_OPTIONAL,
    AGGREGATE_REQUIRED,
    FORMS,
    SCALED_OPTIONAL,
    STEP_OPTIONS,
    TWO_SIDED,
    Form,
)
from rules_engine.rules.operators import COUNT_OPERATORS, OPERATORS, Operator
from rules_engine.rules.types import Kind

#: Where the page stands below the root of the repository.
PAGE = Path("docs/operators.md")

#: How the page is renewed, for messages.
COMMAND = "python -m rules_engine.rules.reference"

_KIND_WORDS = {
    Kind.BOOLEAN: "true or false",
    Kind.INTEGER: "number",
    Kind.FLOAT: "number",
    Kind.STRING: "string",
    Kind.BYTES: "bytes",
    Kind.TIME: "time",
    Kind.TIME_OF_DAY: "time of day",
    Kind.DAY_OF_WEEK: "day of week",
}

_HEAD = f"""\
# Operators and forms

Written from the tables that the checker, the editors' schema and every target read, by `{COMMAND}`. Do not edit it.
What the words mean together is in [the language](language.md).

## Operators

A predicate is an operand (a feature, a context value, the clock, an aggregate, a property) and one operator. On a
missing value every operator is unknown, but for `exists`; with `or_missing: true` it is true instead.
"""

_FORMS_HEAD = """
## Forms of a condition

The first key says what a condition looks at. "One operator" is one of those above that fits the operand's type.
"""


def page() -> str:
    """Return the whole page.

    >>> "| `at_least` | number, time, time of day |" in page()
    True
    """
    operators = _table(
        ("operator", "operand", "what follows it", "true if the operand", "missing", "`ignore_case`", "example"),
        (_operator_row(operator) for operator in OPERATORS.values()),
    )
    forms = _table(
        ("form", "what follows it", "beside it", "true if, or what it is", "example"),
        (_form_row(form) for form in FORMS.values()),
    )
    return "\n".join([_HEAD, *operators, _FORMS_HEAD, *forms, "", *_notes()]) + "\n"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    lines = [head, ["---"] * len(head), *rows]
    return ["| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines]


def _operator_row(operator: Operator) -> Sequence[str]:
    return (
        f"`{operator.name}`",
        _operand(operator),
        operator.argument.value,
        operator.summary,
        operator.missing,
        "yes" if operator.foldable else "",
        f"`{operator.example}`",
    )


def _operand(operator: Operator) -> str:
    """Return the types that an operator takes, in the order of the kinds."""
    if operator.name == "exists":
        return "any, lists too"
    words = list(dict.fromkeys(_KIND_WORDS[kind] for kind in Kind if kind in operator.kinds))
    if operator.on_lists:
        return "list"
    every = {_KIND_WORDS[kind] for kind in Kind} - {_KIND_WORDS[Kind.BYTES]}
    return "any single value" if set(words) == every else ", ".join(words)


def _form_row(form: Form) -> Sequence[str]:
    keys = [f"`{key}`" for key in form.required]
    keys += ["one operator"] if form.takes_operator else []
    keys += [f"[`{key}`]" for key in form.optional]
    return f"`{form.head}`", form.shape.value, " ".join(keys), form.summary, f"`{form.example}`"


def _notes() -> list[str]:
    names = [name for name in OPERATORS if name in COUNT_OPERATORS]
    moving = [operator.name for operator in OPERATORS.values() if operator.boundaries is not None]
    return [
        "Keys in brackets may be left out.",
        "",
        f"- `count` takes one of {_listed(names)} with whole numbers from 0.",
        f"- Inside the aggregates stand {_listed(AGGREGATE_REQUIRED)} and [{_listed(AGGREGATE_OPTIONAL)}].",
        f"- Beside `did` or `did_not` in a step of a `sequence` may stand {_listed(STEP_OPTIONS)}.",
        f"- After {_listed(TWO_SIDED)} may stand another value: a feature, a context value, an aggregate with its",
        f"  `within`, inside `where` a property of the same event; or `{{of: VALUE}}` with {_listed(SCALED_OPTIONAL)}.",
        f"- {_listed(moving)} do not apply to event properties: the window already says how old an event may be.",
        "- `where` maps a property to a value, or to `{operator: value}` with [`ignore_case`] [`or_missing`].",
    ]


def _listed(names: Iterable[str]) -> str:
    return " ".join(f"`{name}`" for name in names)


def main() -> None:
    """Write the page, below the folder in which the command runs."""
    PAGE.write_text(page(), encoding="utf-8")
    sys.stdout.write(f"wrote {PAGE}\n")


if __name__ == "__main__":
    main()
