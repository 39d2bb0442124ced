"""The option that says what counts as drift."""

from __future__ import annotations

from typing import Annotated

import typer


def limit(text: str) -> str:
    """Check a limit such as ``psi=0.25`` as an option's value."""
    from rules_engine.ml.drift import parse_limits

    try:
        parse_limits([text])
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None
    return text


#: Use as ``limit: Limit = None`` beside ``--if-drift``.
Limit = Annotated[
    list[str] | None,
    typer.Option(
        "--limit",
        metavar="MEASURE=NUMBER",
        parser=limit,
        help="With --if-drift: what counts as drift. Default: psi=0.25, ks=0.2 and share=10%.",
    ),
]

#: Use as ``fail_if: FailIf = None``.
FailIf = Annotated[
    list[str] | None,
    typer.Option(
        "--fail-if",
        metavar="MEASURE=NUMBER",
        parser=limit,
        help="Exit with 1 if this is reached: psi=0.25, ks=0.2, share=10%, loss=0.05. May be given several times.",
    ),
]
