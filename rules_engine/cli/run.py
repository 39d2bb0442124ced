"""``segments run``."""

from __future__ import annotations

import signal
from dataclasses import asdict
from typing import Annotated

import typer

from rules_engine.cli import output
from rules_engine.cli.options import HERE, Format, OutputFormat, Repo
from rules_engine.project import Project


def run(
    once: Annotated[
        bool, typer.Option("--once", help="End when all is done that waits, and every timer that is due.")
    ] = False,
    repo: Repo = HERE,
    output_format: OutputFormat = Format.TEXT,
) -> None:
    """Work off the streams of events.

    Events that applications report are checked, written to the event log and put into the online store; who enters or
    leaves a segment is noted in the ledger, and triggers are started, watched and fired. Start as many workers as you
    like, they share the work; the work of one that is killed is taken over within seconds, and nothing is lost or done
    twice. Ctrl-C or SIGTERM ends a worker after the events that it is at, and hands its work over at once.
    """
    from rules_engine.lifecycle.worker import Worker

    project = Project.open(repo)
    worker = Worker(project)
    before = {number: signal.signal(number, lambda *_: worker.stop()) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        if not once:
            output.remark("working; Ctrl-C ends it")
        progress = worker.run(once=once)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if output_format is Format.JSON:
        output.print_json(asdict(progress))
    else:
        output.say(f"Took {output.plural(progress.accepted, 'event')}, refused {progress.refused:,}")
        if progress.transitions or progress.fired:
            moved = output.plural(progress.transitions, "membership")
            output.say(f"  {moved} began or ended, {output.plural(progress.fired, 'trigger')} fired")
