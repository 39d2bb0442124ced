"""Our commands, as trials run them: in this process, as each would import Feast for seconds."""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from typer.testing import CliRunner

from rules_engine.cli.main import app
from rules_engine.redis.embedded import EmbeddedStore


def run(*arguments: object) -> str:
    """Run a command of ours in this process; give what it printed.

    Raises
    ------
    AssertionError
        if it fails.
    """
    done = CliRunner().invoke(app, [str(argument) for argument in arguments])
    if done.exit_code:
        shown = "".join(traceback.format_exception(done.exception)) if done.exception else ""
        raise AssertionError(f"segments {arguments} ended with {done.exit_code}:\n{done.output}\n{shown}")
    return done.output


@contextmanager
def stopped(root: Path) -> Iterator[None]:
    """Stop the project's server at the end."""
    try:
        yield
    finally:
        EmbeddedStore(root).stop()
