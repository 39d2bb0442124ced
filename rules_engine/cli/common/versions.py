"""The commands that clusters and models have in common: list, show, compare, promote and roll back versions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Generic, TypeVar

import typer

from rules_engine.cli.common.options import HERE, Format, OutputFormat, Repo
from rules_engine.cli.common.output import print_json, remark, say, table, warn
from rules_engine.clock import now_micros
from rules_engine.folders import Project

if TYPE_CHECKING:
    from rules_engine.ml.versions.kinds import ModelKind
    from rules_engine.ml.versions.store import StoredVersion, VersionStore

M = TypeVar("M")

#: The name of what was fitted, as an argument and as an option beside other arguments.
Stored = Annotated[str | None, typer.Argument(metavar="NAME", help="Which one. Default: the only one that was fitted.")]
Of = Annotated[
    str | None, typer.Option("--of", "--model", metavar="NAME", help="Which one. Default: the only one fitted.")
]
Version = Annotated[str, typer.Argument(metavar="VERSION", help="A version, e.g. v1.")]
WhichVersion = Annotated[
    str | None, typer.Option("--version", help="A version, e.g. v1. Default: the promoted, else the newest.")
]


@dataclass(frozen=True, slots=True)
class Pages(Generic[M]):
    """The output of the common commands for one kind.

    Attributes
    ----------
    headers, row
        of the table of `list`, without the column of marks. The first column is the version.
    right
        the headers of numbers.
    data
        a version for JSON.
    show, compare
        print a version, and two of them side by side.
    compared_data
        two versions for JSON, with the data of each.
    after_promotion
        is called when another version counts.
    next_step
        what to do after a promotion.
    """

    kind: ModelKind[Any]
    headers: Sequence[str]
    right: Sequence[str]
    row: Callable[[M], list[str]]
    data: Callable[[M, VersionStore[Any]], dict[str, Any]]
    show: Callable[[M], None]
    compare: Callable[[M, M], None]
    compared_data: Callable[[M, M, VersionStore[Any]], Any]
    after_promotion: Callable[[Project], object]
    next_step: str


def add_version_commands(app: typer.Typer, pages: Callable[[], Pages[Any]]) -> None:
    """Add the commands to a group. ``pages`` is called when one runs, as it loads heavy modules."""

    def opened(repo: Path, name: str | None) -> tuple[Pages[Any], VersionStore[Any]]:
        from rules_engine.ml.versions.store import open_fitted

        kind_pages = pages()
        return kind_pages, open_fitted(Project.open(repo), kind_pages.kind, name)

    @app.command("list")
    def list_versions(name: Stored = None, repo: Repo = HERE, output_format: OutputFormat = Format.TEXT) -> None:
        """Show the stored versions, oldest first.

        The promoted version is marked, and so is the attached one, whose labels or scores are in the stores. A file
        that is damaged is marked too, and the other versions can be used.
        """
        page, store = opened(repo, name)
        entries = store.entries()
        if output_format is Format.JSON:
            print_json([_entry_data(page, store, entry) for entry in entries])
        else:
            _show_entries(page, store, entries)

    @app.command()
    def show(
        name: Stored = None,
        version: WhichVersion = None,
        repo: Repo = HERE,
        output_format: OutputFormat = Format.TEXT,
    ) -> None:
        """Show a stored version."""
        page, store = opened(repo, name)
        model = store.load(version or store.promoted() or store.versions()[-1])
        if output_format is Format.JSON:
            print_json({"version": model.version, "file": str(store.file(model.version)), **model.content()})
            return
        page.show(model)

    @app.command()
    def compare(
        first: Version, second: Version, name: Of = None, repo: Repo = HERE, output_format: OutputFormat = Format.TEXT
    ) -> None:
        """Show two versions side by side."""
        page, store = opened(repo, name)
        models = store.load(first), store.load(second)
        if output_format is Format.JSON:
            print_json(page.compared_data(*models, store))
            return
        page.compare(*models)

    @app.command()
    def promote(version: Version, name: Of = None, repo: Repo = HERE) -> None:
        """Let a version count, whatever is fitted later."""
        page, store = opened(repo, name)
        before = store.promote(version, now_micros())
        page.after_promotion(store.project)
        say(f"{store.name}: {version} is promoted", "" if before in (None, version) else f", instead of {before}")
        say(page.next_step)

    @app.command()
    def rollback(name: Of = None, repo: Repo = HERE) -> None:
        """Undo the last promotion: the version that was promoted before it counts again."""
        page, store = opened(repo, name)
        undone, now = store.rollback(now_micros())
        page.after_promotion(store.project)
        say(f"{store.name}: {now} is promoted again, instead of {undone}")
        say(page.next_step)


def _entry_data(page: Pages[Any], store: VersionStore[Any], entry: StoredVersion[Any]) -> dict[str, Any]:
    if entry.model is None:
        return {"version": entry.version, "damaged": str(entry.error)}
    return page.data(entry.model, store)


def _show_entries(page: Pages[Any], store: VersionStore[Any], entries: Sequence[StoredVersion[Any]]) -> None:
    marked = {"attached": store.attached(), "promoted": store.promoted()}
    rows = []
    for entry in entries:
        marks = [mark for mark, version in marked.items() if version == entry.version]
        empty = [entry.version, *[""] * (len(page.headers) - 1)]
        cells = empty if entry.model is None else page.row(entry.model)
        rows.append([*cells, ", ".join([*marks, *(["damaged"] if entry.error else [])])])
    table([*page.headers, ""], rows, right=page.right)
    for entry in entries:
        if entry.error:
            warn(str(entry.error))
            remark(("  hint", "bold cyan"), f": {entry.error.hint}")
