"""The option ``--context NAME=VALUE``."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from rules_engine.clock import from_micros, parse_instant
from rules_engine.rules.program import Program
from rules_engine.rules.walk import context_times

#: Use as ``context: Context = None`` and read it with :func:`read_context`.
Context = Annotated[
    list[str] | None,
    typer.Option(
        "--context",
        metavar="NAME=VALUE",
        help="A value that the request brings; may be given several times. VALUE is read as YAML: 5 is a number, "
        "'\"5\"' a string, [a, b] a list.",
    ),
]


def read_context(options: list[str] | None, program: Program) -> dict[str, Any]:
    """Return the values of ``--context`` options, as Python has them.

    An instant becomes a time where a segment reads the value as one.

    >>> read_context(["device=mobile", "age=5", "tags=[a, b]", "country=NO"], Program({}))
    {'device': 'mobile', 'age': 5, 'tags': ['a', 'b'], 'country': 'NO'}
    """
    if not options:
        return {}
    times = context_times(segment.when for segment in program.segments.values())
    context = {}
    for text in options:
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise typer.BadParameter(f"`{text}` is not NAME=VALUE", param_hint="--context")
        context[name] = _instant(name, _plain(text, value)) if name in times else _plain(text, value)
    return context


def _plain(text: str, value: str) -> Any:
    from rules_engine.definitions.source import read_documents, to_plain  # most lookups bring nothing to be parsed

    documents, problems = read_documents(value, "--context")
    if problems or len(documents) > 1:
        reason = problems[0].message if problems else "it is more than one value"
        raise typer.BadParameter(f"`{text}`: {reason}; quote the value as in YAML", param_hint="--context")
    return to_plain(documents[0]) if documents else None


def _instant(name: str, value: Any) -> Any:
    if not isinstance(value, str):
        return value
    try:
        return from_micros(parse_instant(value))
    except ValueError as error:
        raise typer.BadParameter(f"`{name}`: {error}", param_hint="--context") from None
