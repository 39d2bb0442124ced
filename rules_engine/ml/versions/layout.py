"""Take over what earlier releases wrote, so that nothing has to be fitted anew.

============================== ======================================== ========================
earlier                        today                                    kind
============================== ======================================== ========================
``.segments/models/NAME/``     ``.segments/clusters/NAME/``             clusters
``promoted``, ``attached``     ``history.json``
``.segments/propensity/NAME/`` ``.segments/models/NAME/``               models
``promotions.json``            ``history.json``
============================== ======================================== ========================

The files of versions are the same. Each folder is moved in one step, so an interruption is made good the next time.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from rules_engine.errors import ProjectError
from rules_engine.files import entries
from rules_engine.folders import Project
from rules_engine.ml.versions.history import FILE, HistoryStep, write_history
from rules_engine.project.lock import project_lock

#: The start of a file of clusters. Files of models start with ``{"format":1,"definition":{"model":``.
_CLUSTERS = re.compile(rb'\A\{\s*"format":\s*\d+,\s*"definition":\s*\{\s*"clusters":')
_HEAD = 200


def take_over(project: Project) -> None:
    """Move what an earlier release kept to where it belongs now.

    Raises
    ------
    ProjectError
        if it cannot be moved, because something of that name is there already.
    """
    if any(_moves(project)):
        with project_lock(project):
            for old, new in list(_moves(project)):
                _move(old, new)


def _moves(project: Project) -> Iterator[tuple[Path, Path]]:
    """Yield each folder of the old layout, and where it belongs: clusters first, as models take their place."""
    state = project.state_dir
    for folder in entries(state / "models", "*"):
        if _holds_clusters(folder):
            yield folder, state / "clusters" / folder.name
    for folder in entries(state / "propensity", "*"):
        if folder.is_dir():
            yield folder, state / "models" / folder.name


def _holds_clusters(folder: Path) -> bool:
    """Tell old clusters from models; a name of clusters that were all deleted holds nothing to move."""
    for path in entries(folder, "v*.json"):
        with path.open("rb") as file:
            if _CLUSTERS.match(file.read(_HEAD)):
                return True
    return False


def _move(old: Path, new: Path) -> None:
    if new.exists():
        raise ProjectError(
            f"{old} was written by an earlier release and belongs at {new}, where something is already",
            hint=f"move or remove one of the two folders; a version is a file {new.name}/v1.json, v2.json, ...",
        )
    if not (old / FILE).exists():
        if (old / "promotions.json").exists():
            (old / "promotions.json").rename(old / FILE)
        elif steps := (*_steps(old, "promoted", "promote"), *_steps(old, "attached", "attach")):
            write_history(old, steps)
    for name in ("promoted", "attached"):
        (old / name).unlink(missing_ok=True)
    new.parent.mkdir(parents=True, exist_ok=True)
    old.rename(new)
    if not any(old.parent.iterdir()):
        old.parent.rmdir()


def _steps(folder: Path, name: str, action: str) -> tuple[HistoryStep, ...]:
    """Return the steps of a file with a version in each line. It does not say when; the file's own time stands in."""
    path = folder / name
    if not path.exists():
        return ()
    at = path.stat().st_mtime_ns // 1000
    return tuple(HistoryStep(action, version, at) for version in path.read_text(encoding="utf-8").split())
