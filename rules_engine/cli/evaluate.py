"""``segments evaluate``."""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rules_engine.cli.common import output
from rules_engine.cli.common.context import Context, read_context
from rules_engine.cli.common.options import HERE, AsOf, CsvFormulas, Format, OutputFormat, Repo, Segments
from rules_engine.clock import format_instant
from rules_engine.folders import Project

if TYPE_CHECKING:
    from rules_engine.batch.engine import BatchProject, Sizes


class EvaluationEngine(StrEnum):
    """Names the engines that can evaluate."""

    LOCAL = "local"
    SPARK = "spark"


def evaluate(
    as_of: AsOf = None,
    segments: Segments = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            metavar="FILE",
            help="Write a row for each user and segment of theirs; the ending is the format: .parquet, .csv or .jsonl.",
        ),
    ] = None,
    matrix: Annotated[
        bool, typer.Option("--matrix", help="Write a row for each user instead, with a column for each segment.")
    ] = False,
    decision: Annotated[
        str | None, typer.Option("--decision", metavar="NAME", help="Say instead which variant everybody gets.")
    ] = None,
    csv_formulas: CsvFormulas = False,
    context: Context = None,
    engine: Annotated[
        EvaluationEngine,
        typer.Option(
            help="This process, or Spark, which writes --out as a folder, or as a table if it has none of the endings."
        ),
    ] = EvaluationEngine.LOCAL,
    repo: Repo = HERE,
    output_format: OutputFormat = Format.TEXT,
) -> None:
    """Evaluate all users as of an instant.

    Answers by the definitions in the files, applied or not, from the offline store: of each feature view the newest row
    at or before the instant, as long as the view's ttl allows; and from the event log. Nothing later is seen.
    """
    from rules_engine.batch.engine import BatchProject, BatchRules, readable
    from rules_engine.batch.evaluate import evaluate as run

    if decision is not None and (segments or matrix or engine is EvaluationEngine.SPARK):
        message = "stands without --segment, --matrix and --engine spark"
        raise typer.BadParameter(message, param_hint="--decision")
    if matrix and out is None:
        raise typer.BadParameter("needs --out FILE", param_hint="--matrix")
    with output.working("Opening the project") as show:
        opened = BatchProject.open(Project.open(repo), as_of)
        values = read_context(context, opened.conditions)
        if decision is not None:
            _decide(opened, decision, values, out, csv_formulas, output_format, show)
            return

        def read(names: tuple[str, ...]) -> Sizes:
            if engine is EvaluationEngine.SPARK:
                return _on_spark(opened, list(names), values, out, matrix, show)
            rules = BatchRules(opened.repo, opened.program, names, values, unknown=True)
            return run(
                rules,
                opened.now,
                out,
                as_matrix=matrix,
                csv_formulas=csv_formulas,
                progress=lambda users, done: show(f"Evaluated {users:,} users ({done:.0%})"),
            )

        sizes, refused = readable(opened.program, segments or opened.program.names, read)
    at = format_instant(opened.now)
    names = sorted(sizes.members)
    if output_format is Format.JSON:
        counts = {
            name: {"users": sizes.members[name], "share": sizes.share(name), "unknown": sizes.unknown[name]}
            for name in names
        }
        output.print_json({"as_of": at, "users": sizes.users, "segments": counts})
    else:
        output.say((output.plural(sizes.users, "user"), "bold"), f" as of {at}")
        rows = [
            [name, f"{sizes.members[name]:,}", f"{sizes.share(name):.1%}", f"{sizes.unknown[name]:,}"] for name in names
        ]
        output.table(["segment", "users", "share", "unknown"], rows, right=["users", "share", "unknown"])
        if out is not None:
            output.say(f"Wrote {out}")
    output.refuse(refused)


def _decide(
    opened: BatchProject,
    name: str,
    context: dict[str, Any],
    out: Path | None,
    csv_formulas: bool,
    output_format: Format,
    show: Callable[[str], None],
) -> None:
    """Count who gets which variant of a decision, and write a row for each user."""
    from rules_engine.batch.decide import BatchDecision

    batch = BatchDecision(opened.repo, opened.program, opened.chooser(name), opened.now, context)
    counts = batch.count(
        out,
        csv_formulas=csv_formulas,
        progress=lambda users, done: show(f"Decided for {users:,} users ({done:.0%})"),
    )
    users, at = sum(counts.values()), format_instant(opened.now)
    shares = {variant: number / users if users else 0.0 for variant, number in counts.items()}
    if output_format is Format.JSON:
        variants = {variant: {"users": number, "share": shares[variant]} for variant, number in counts.items()}
        output.print_json({"as_of": at, "users": users, "decision": name, "variants": variants})
        return
    output.say((output.plural(users, "user"), "bold"), f" as of {at}")
    rows = [[variant, f"{number:,}", f"{shares[variant]:.1%}"] for variant, number in counts.items()]
    output.table(["variant", "users", "share"], rows, right=["users", "share"])
    if out is not None:
        output.say(f"Wrote {out}")


def _on_spark(
    opened: BatchProject,
    segments: list[str] | None,
    context: dict[str, Any],
    out: Path | None,
    as_matrix: bool,
    show: Callable[[str], None],
) -> Sizes:
    from rules_engine.batch.spark.engine import SparkBatch

    show("Starting Spark")
    batch = SparkBatch(opened, segments, context)
    show("Evaluating on Spark")
    return batch.evaluate(opened.now, None if out is None else str(out), as_matrix=as_matrix)
