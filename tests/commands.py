"""Our commands in this process: as processes, which other tests start, they would import Feast for seconds each."""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from click.testing import Result
from typer.testing import CliRunner

from rules_engine.cli.main import app
from rules_engine.redis.embedded import EmbeddedStore


def invoke(*arguments: object, code: int = 0) -> Result:
    """Run a command that must end with an exit code."""
    done = CliRunner().invoke(app, [str(argument) for argument in arguments], prog_name="segments")
    if done.exit_code != code:
        shown = "".join(traceback.format_exception(done.exception)) if done.exception else ""
        raise AssertionError(f"segments {arguments} ended with {done.exit_code}:\n{done.output}\n{shown}")
    return done


def run(*arguments: object) -> str:
    """Return the output of a command that must succeed."""
    return invoke(*arguments).stdout


def good(*arguments: object) -> str:
    """Return the output of a command that must succeed, and have nothing to remark."""
    done = invoke(*arguments)
    assert done.stderr == "", arguments
    return done.stdout


def bad(*arguments: object) -> str:
    """Return the message of a command that must fail."""
    return invoke(*arguments, code=1).stderr


@contextmanager
def stopped(root: Path) -> Iterator[None]:
    """Stop the project's server at the end."""
    try:
        yield
    finally:
        EmbeddedStore(root).stop()
