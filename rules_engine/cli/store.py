"""``segments store``."""

from __future__ import annotations

from typing import Any

import typer

from rules_engine.cli.common import output
from rules_engine.cli.common.options import HERE, Format, OutputFormat, Repo
from rules_engine.folders import Project
from rules_engine.redis.embedded import EmbeddedStore, StoreStatus

app = typer.Typer(no_args_is_help=True, add_completion=False)


@app.callback()
def store() -> None:
    """Look after the embedded online store.

    It is a server of the project's own: commands and clients start it when they need it, it runs on between them, and
    its data is kept in .segments/store/.
    """


@app.command()
def status(repo: Repo = HERE, output_format: OutputFormat = Format.TEXT) -> None:
    """Show whether it runs, and how large it is."""
    store_status = _store(repo).status()
    if output_format is Format.JSON:
        output.print_json(_data(store_status))
        return
    if store_status.running:
        output.say(("running", "bold green"), f" (pid {store_status.pid})")
    else:
        output.say(("stopped", "bold yellow"), ": it starts when it is needed")
    for name, value in _details(store_status):
        output.say(f"  {name:<9}{value}")


@app.command()
def start(repo: Repo = HERE) -> None:
    """Start it; nothing happens if it runs."""
    embedded = _store(repo)
    with output.working("Starting the store") as show:
        embedded.ensure_running(report=lambda loading: show(f"The store is {loading}"))
    output.say(f"The store runs at {embedded.socket_path}")


@app.command()
def stop(repo: Repo = HERE) -> None:
    """Stop it; its data stays on disk.

    Nothing happens if it does not run.
    """
    output.say("Stopped the store" if _store(repo).stop() else "The store did not run")


def _store(repo: Any) -> EmbeddedStore:
    from rules_engine.project.store import embedded_store

    return embedded_store(Project.open(repo))


def _details(status: StoreStatus) -> list[tuple[str, str]]:
    return [
        (name, value)
        for name, value in (
            ("socket", str(status.socket)),
            ("data", f"{status.data_dir}, {_size(status.disk_bytes)}"),
            ("memory", "" if status.memory_bytes is None else _size(status.memory_bytes)),
            ("keys", "" if status.keys is None else f"{status.keys:,}"),
            ("version", status.version or ""),
        )
        if value
    ]


def _size(count: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000 or unit == "GB":
            break
        count /= 1000
    return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"


def _data(status: StoreStatus) -> dict[str, Any]:
    return {
        "running": status.running,
        "pid": status.pid,
        "socket": str(status.socket),
        "data_dir": str(status.data_dir),
        "disk_bytes": status.disk_bytes,
        "memory_bytes": status.memory_bytes,
        "keys": status.keys,
        "version": status.version,
    }
