"""``segments serve``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from rules_engine.cli.common import output
from rules_engine.cli.common.options import HERE, Repo
from rules_engine.folders import Project

#: The port, unless another is named.
PORT = 8080


def serve(
    host: Annotated[str, typer.Option("--host", metavar="ADDRESS", help="The address to listen on.")] = "127.0.0.1",
    port: Annotated[
        int, typer.Option("--port", metavar="PORT", min=0, max=65_535, help="The port; 0 is any free one.")
    ] = PORT,
    uds: Annotated[
        Path | None, typer.Option("--uds", metavar="PATH", help="Listen on a Unix socket at this path instead.")
    ] = None,
    workers: Annotated[int, typer.Option("--workers", metavar="N", min=1, max=256, help="Processes.")] = 1,
    dev: Annotated[bool, typer.Option("--dev", help="Without keys, and for this machine only: to try it.")] = False,
    drain: Annotated[
        float,
        typer.Option("--drain", metavar="SECONDS", min=0, max=300, help="How long to go on answering after SIGTERM."),
    ] = 5.0,
    certificate: Annotated[
        Path | None, typer.Option("--certificate", metavar="PATH", help="A file with the certificate, for TLS.")
    ] = None,
    private_key: Annotated[
        Path | None, typer.Option("--private-key", metavar="PATH", help="A file with its private key.")
    ] = None,
    json_logs: Annotated[bool, typer.Option("--json-logs", help="Log lines of JSON.")] = False,
    access_log: Annotated[bool, typer.Option("--access-log", help="Log every request, without its user.")] = False,
    telemetry: Annotated[
        bool, typer.Option("--telemetry", help="Send traces and evaluations where OTEL_EXPORTER_OTLP_ENDPOINT says.")
    ] = False,
    repo: Repo = HERE,
) -> None:
    """Answer over HTTP.

    Segments are flags of OpenFeature's remote protocol, so the OpenFeature SDK of any language can ask. Keys are
    environment variables that the `project:` document names; `--dev` needs none. People look at the console under
    `/console`. Ctrl-C ends it at once; SIGTERM ends
    it after the requests that are under way, and SIGHUP replaces its processes one by one if there are several.
    """
    from rules_engine.service.process import ServeOptions, serve

    if (certificate is None) != (private_key is None):
        raise typer.BadParameter("--certificate and --private-key go together")
    project = Project(repo.expanduser().resolve())
    project = project if project.read_plan.is_file() else Project.open(repo)
    options = ServeOptions(
        project.root,
        host=host,
        port=port,
        uds=uds,
        workers=workers,
        dev=dev,
        drain=drain,
        json_logs=json_logs,
        access_log=access_log,
        telemetry=telemetry,
        certificate=certificate,
        private_key=private_key,
    )
    serve(options, lambda address: output.remark(f"serving at {address}; Ctrl-C ends it{_console_at(address)}"))


def _console_at(address: str) -> str:
    """Return where people look; nothing for a Unix socket, which no browser opens."""
    return "" if address.startswith("unix:") else f"\nThe console is at {address}/console"
