"""``segments run``."""

from __future__ import annotations

import signal
from typing import Annotated

import typer

from rules_engine.cli import output
from rules_engine.cli.options import HERE, Format, OutputFormat, Repo
from rules_engine.project import Project


def run(
    once: Annotated[bool, typer.Option("--once", help="End when nothing waits any more.")] = False,
    take_over_after: Annotated[
        float,
        typer.Option(
            "--take-over-after",
            metavar="SECONDS",
            min=0,
            help="When to take over events that another worker took and did not finish.",
        ),
    ] = 30.0,
    repo: Repo = HERE,
    output_format: OutputFormat = Format.TEXT,
) -> None:
    """Work off the stream of events.

    Events that applications report are checked, written to the event log and put into the online store. Start as many
    workers as you like, they share the work; one that is killed loses nothing. Ctrl-C or SIGTERM ends a worker after
    the events that it is at.
    """
    from rules_engine.lifecycle.worker import Worker

    project = Project.open(repo)
    worker = Worker(project, take_over_after=take_over_after)
    before = {number: signal.signal(number, lambda *_: worker.stop()) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        if not once:
            output.remark("working; Ctrl-C ends it")
        progress = worker.run(once=once)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if output_format is Format.JSON:
        output.print_json(
            {"accepted": progress.accepted, "refused": progress.refused, "taken_over": progress.taken_over}
        )
    else:
        output.say(f"Took {output.plural(progress.accepted, 'event')}, refused {progress.refused:,}")
