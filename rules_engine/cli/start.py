"""Start the process of a command, and be ready for Ctrl-C before importing anything heavy."""

from __future__ import annotations

from rules_engine.cli.interrupts import WATCH

TYPE_CHECKING = False  # as `typing` has it, without its weight
if TYPE_CHECKING:
    from collections.abc import Sequence


def main(args: Sequence[str] | None = None) -> None:
    """Run the command line; ends the process with its exit code."""
    WATCH.begin()
    try:
        from rules_engine.cli.main import run

        run(args)
    finally:
        WATCH.end()
