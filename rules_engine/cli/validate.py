"""``segments validate``."""

from __future__ import annotations

import typer

from rules_engine.cli.common import output
from rules_engine.cli.common.options import HERE, Format, OutputFormat, Repo
from rules_engine.diagnostics import Severity
from rules_engine.folders import Project


def validate(repo: Repo = HERE, output_format: OutputFormat = Format.TEXT) -> None:
    """Check all definitions and show every problem.

    All files of segments/ are checked against the features of feature_repo/, their tests too. Every problem is shown
    at its place, with a hint. Warnings are shown and let the definitions pass.
    """
    from rules_engine.deploy.check import check_project

    project = Project.open(repo)
    with output.working("Checking the definitions"):
        report = check_project(project)
    problems = report.problems
    failed = any(problem.severity is Severity.ERROR for problem in problems)
    if output_format is Format.JSON:
        output.print_json(
            {
                "ok": not failed,
                **{f"{kind}s": number for kind, number in report.documents.items()},
                "files": report.files,
                "test_files": report.test_files,
                "problems": [output.diagnostic_data(problem) for problem in problems],
            }
        )
    else:
        if problems:
            output.show_diagnostics(problems)
        if not failed:
            files = output.plural(report.files, "file")
            tests = output.plural(report.test_files, "test file")
            numbers = ((kind, number) for kind, number in report.documents.items() if number or kind == "segment")
            *others, last = (output.plural(number, kind) for kind, number in numbers)
            checked = f"{', '.join(others)} and {last}" if others else last
            output.say(("ok", "bold green"), f": {checked} in {files}, and {tests}")
    if failed:
        raise typer.Exit(1)
