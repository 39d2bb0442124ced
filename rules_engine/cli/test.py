"""``segments test``."""
# ruff: noqa: PT028 -- this is a command, not a test

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from rules_engine.cli.common import output
from rules_engine.cli.common.options import HERE, Format, OutputFormat, Repo
from rules_engine.diagnostics import listing
from rules_engine.folders import Project

if TYPE_CHECKING:
    from rules_engine.simulation.segment_tests import TestReport


def test(
    segments: Annotated[
        list[str] | None,
        typer.Argument(metavar="NAME", help="The segments, decisions and triggers to test. Default: all."),
    ] = None,
    repo: Repo = HERE,
    output_format: OutputFormat = Format.TEXT,
) -> None:
    """Run the tests beside the definitions.

    A file NAME.test.yaml gives features, context and events on a simulated clock, and says what is expected when. No
    store is needed. Exit code 1 means that a test failed.
    """
    from rules_engine.deploy.definitions import load_project
    from rules_engine.simulation.segment_tests import run_tests

    project = Project.open(repo)
    with output.working("Running the tests"):
        loaded = load_project(project)
        report = run_tests(project.segments_dir, loaded.definitions, loaded.catalog, segments or [])
    if output_format is Format.JSON:
        output.print_json(_data(report))
    else:
        _show(report, of_all=not segments)
    if report.failures:
        raise typer.Exit(1)


def _show(report: TestReport, of_all: bool) -> None:
    for failure in report.failures:
        first, _, rest = str(failure).partition("\n")
        output.say(("failed", "bold red"), f" {first}")
        output.say_lines(f"{rest}\n")
    cases = output.plural(report.cases, "case")
    if report.failures:
        failed = len({id(failure.case) for failure in report.failures})
        output.say((f"{failed} of {cases} failed", "bold red"))
    elif report.cases:
        where = f" in {output.plural(report.files, 'test file')}" if of_all else ""
        output.say(("ok", "bold green"), f": {cases}{where}")
    else:
        output.say("there are no tests: write them beside a definition, as NAME.test.yaml")
    if report.untested and of_all:
        output.say(("without a test", "yellow"), f": {listing(report.untested)}")


def _data(report: TestReport) -> dict[str, Any]:
    return {
        "cases": report.cases,
        "failures": [
            {
                failure.case.kind: failure.case.title,
                "case": failure.case.name,
                "file": failure.case.span.file,
                "line": failure.case.span.line,
                "message": failure.message,
                "explanation": failure.explanation,
            }
            for failure in report.failures
        ],
        "untested": list(report.untested),
    }
