"""Where the process of a command begins. It is ready for Ctrl-C before it imports anything of weight."""

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
