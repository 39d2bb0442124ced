"""Run the command line: the group of all commands, their common options, and how their errors are shown."""

from __future__ import annotations

import gc
import io
import os
import sys
import warnings
from collections.abc import Sequence
from typing import Annotated, Any

import typer

from rules_engine.cli.commands import LazyGroup
from rules_engine.cli.common import output
from rules_engine.cli.interrupts import INTERRUPTED, WATCH
from rules_engine.errors import ProjectError, SegmentsError, of_the_system
from rules_engine.installed import CLIENT, WHOLE, is_whole, own_version


class _Segments(LazyGroup):
    """Groups all commands, and turns an error of one into a message and an exit code."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except BrokenPipeError:  # whoever reads our output has seen enough, as `head` has
            raise typer.Exit(0) from None
        except (SegmentsError, OSError) as error:
            if WATCH.came:  # the error is a consequence of the interrupt
                WATCH.leave()
            output.show_error(of_the_system(error) if isinstance(error, OSError) else error)
            raise typer.Exit(1) from None
        except ModuleNotFoundError as error:
            if is_whole():
                raise
            output.show_error(_beyond_the_client(ctx.invoked_subcommand, error))
            raise typer.Exit(1) from None
        except KeyboardInterrupt:
            if WATCH.on:
                WATCH.leave()
            output.remark("interrupted")
            raise typer.Exit(INTERRUPTED) from None
        finally:
            _flush()


def _beyond_the_client(command: str, error: ModuleNotFoundError) -> ProjectError:
    return ProjectError(
        f"`segments {command}` needs {error.name}, which {CLIENT} does not bring",
        hint=f"where this is to run, uninstall {CLIENT} and install {WHOLE}",
    )


def _flush() -> None:
    """Flush stdout; if its reader is gone, discard what is left, or Python would report an error when it exits."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


app = typer.Typer(
    cls=_Segments,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
    no_args_is_help=True,
)


def _version(requested: bool) -> None:
    if requested:
        output.say(f"segments {own_version()}")
        raise typer.Exit


@app.callback()
def segments(
    _version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
    progress: Annotated[
        bool, typer.Option("--progress", help="Show on stderr what goes on, also where that is no terminal.")
    ] = False,
) -> None:
    """A feature store with declarative segment rules.

    Start with `segments init NAME`, or see `segments demo`.
    Exit codes: 0 done, 1 something is wrong with what you gave, 2 usage, 3 a part of what you gave was refused,
    130 interrupted.
    """
    output.show_progress(progress)


def run(args: Sequence[str] | None = None) -> None:
    """Run the command line; raises ``SystemExit`` with its exit code."""
    if not sys.warnoptions:
        # Deprecations between libraries tell a user nothing; python -W brings them back.
        warnings.simplefilter("ignore")
    gc.set_threshold(100_000, 50, 100)  # definitions are many small objects that live to the end of the command
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal that cannot show a letter is no reason to fail
    command = typer.main.get_command(app)
    command.main(args=None if args is None else list(args), prog_name="segments")
