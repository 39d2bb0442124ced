"""`segments demo`: the main job on real purchases. Every step is a command that works by itself."""

from __future__ import annotations

import shlex
import sys
import time
from pathlib import Path

from rules_engine.cli.common import output
from rules_engine.cli.common.called import this_command, typed
from rules_engine.cli.common.options import HERE, Repo
from rules_engine.cli.serve import PORT
from rules_engine.clock import format_instant
from rules_engine.folders import Project

#: The segment whose first member the demo looks at.
_SHOWN = "next_champions"


def demo(repo: Repo = HERE) -> None:
    """Show the main job on real purchases, end to end.

    Builds features from the purchases of 23,570 customers, applies and materializes them, finds clusters, runs the
    tests of the segments, and answers who is in which segment. Every step is shown as the command that does it. Run it
    again as often as you like.
    """
    from rules_engine.cli.apply import apply
    from rules_engine.cli.cluster import attach, fit
    from rules_engine.cli.explain import explain
    from rules_engine.cli.lookup import lookup
    from rules_engine.cli.materialize import materialize
    from rules_engine.cli.test import test
    from rules_engine.deploy.demo import build, build_script, customers, take_census
    from rules_engine.sdk import SegmentClient

    started = time.perf_counter()
    project = Project.open(repo)
    script = build_script(project)
    steps = _Steps(repo)
    steps.show(
        "Build the offline features, point in time, from the purchase file",
        f"{typed(Path(sys.executable))} {typed(script)}",
    )
    build(script)
    steps.command("Register features and segments, and write the read plan", "apply")
    apply(repo)
    _say_now(project)
    steps.command("Bring everyone's newest features into the online store", "materialize")
    materialize(repo=repo)
    steps.command("Find groups that nobody defined", "cluster fit")
    fit(repo=repo)
    steps.command("Give every customer the label of a group: one more feature", "cluster attach")
    attach(repo=repo)
    steps.command("Do the segments mean what their tests say?", "test")
    test(repo=repo)

    with SegmentClient.from_repo(repo) as client:
        steps.show("Ask for everyone's segments, as an application does", "SegmentClient.lookup_many, in Python")
        entities = customers(project)
        began = time.perf_counter()
        with output.working("Looking up everyone") as show:
            census = take_census(client, entities, lambda done: show(f"Looked up {done:,} of {len(entities):,}"))
        took = time.perf_counter() - began
    rows = [
        [name, f"{len(members):,}", f"{census.share(name):.1%}"] for name, members in sorted(census.members.items())
    ]
    output.table(["segment", "customers", "share"], rows, right=["customers", "share"])
    for name, values in census.of_requests.items():
        output.say(f"{name} asks for what a request brings ({values}), so nobody is in it here; see below")
    output.say(f"{census.customers:,} customers through the online store in {took:.1f} s")

    someone = census.members[_SHOWN][0]
    steps.command("Ask for one customer", f"lookup {someone}")
    lookup(someone, repo=repo)
    steps.command("And why?", f"explain {someone} {_SHOWN}")
    explain(someone, _SHOWN, repo=repo)
    _say_what_next(steps, someone, census.members["champions"][0])
    output.say()
    address = f"http://127.0.0.1:{PORT}"
    output.say("To look at it in a browser: ", (steps.line("serve --dev"), "cyan"), f", then open {address}/console")
    output.say(
        f"The demo took {time.perf_counter() - started:.0f} s. The embedded store runs on; `store stop` stops it."
    )


class _Steps:
    """Says what comes next, as a command that can be pasted."""

    def __init__(self, repo: Path) -> None:
        self._segments = this_command()
        self._option = "" if repo == HERE else f" --repo {shlex.quote(str(repo))}"

    def show(self, what: str, how: str) -> None:
        output.say()
        output.say((f"# {what}", "dim"))
        output.say((f"$ {how}", "bold cyan"))

    def command(self, what: str, arguments: str) -> None:
        self.show(what, self.line(arguments))

    def line(self, arguments: str) -> str:
        return f"{self._segments} {arguments}{self._option}"


def _say_now(project: Project) -> None:
    from rules_engine.read_plan import ReadPlan

    now = ReadPlan.load(project.read_plan).now
    if now is not None:
        instant = format_instant(now)
        output.say(
            f"The purchases end in June 1998, so `now` is {instant} in this project: segments/project.yaml says so"
        )


def _say_what_next(steps: _Steps, someone: str, champion: str) -> None:
    output.say()
    output.say(("What to try next", "bold"))
    saturday = "--at 1998-07-04T16:00:00Z"
    for arguments, remark in (
        (f"lookup {champion}", "a champion"),
        (f"lookup {champion} --context device=mobile {saturday}", "the same, with a phone in hand, on a Saturday"),
        (f"explain {someone} champions", "why somebody is not one"),
        (f"lookup {someone} --format json", "for programs"),
        ("validate", "after you changed a file in segments/, then `apply`"),
        ("store stop", "stop the online store; its data stays"),
    ):
        output.say("  ", (steps.line(arguments), "cyan"), (f"  # {remark}", "dim"))
