"""Know without Feast, whose import takes seconds, that nothing changed: `segments apply` and `segments plan` ask first.

After an apply, or a plan that found no difference, a hash of all that went into it is kept. While it is the same,
and the store still holds what it should, nothing is to be done. Where a part cannot be watched (a registry or a source
on another machine, definitions that read the environment), nothing is kept, and Feast is always asked.
"""

from __future__ import annotations

import contextlib
import hashlib
import sys
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
import yaml

import rules_engine
from rules_engine.deploy.stages import ApplyStages, Register, Switch
from rules_engine.errors import SegmentsError
from rules_engine.features.feast.registry import RegistryChange
from rules_engine.files import files_below, write_atomically
from rules_engine.folders import Project
from rules_engine.project.catalog import feature_files, local_sources
from rules_engine.project.versions import plan_hash
from rules_engine.read_plan import ReadPlan
from rules_engine.redis.eviction import check_eviction
from rules_engine.redis.server import server_of
from rules_engine.redis.store_mark import StoreMark
from rules_engine.rules.load import definition_files
from rules_engine.rules.segments.lists import SUFFIXES

#: Raised by one whenever an older note could be misread.
_FORMAT = 1

#: What definitions in Python may ask, and a hash of files does not see.
_ELSEWHERE = (b"environ", b"getenv")


@dataclass(frozen=True, slots=True)
class Unchanged:
    """The plan in effect, the number of its version, and the stages of an apply that has nothing to do."""

    plan: ReadPlan
    version: int
    stages: ApplyStages


def project_files(project: Project) -> str:
    """Return a hash that changes with every definition, and with every model that scores within requests."""
    digest = hashlib.sha256(feature_files(project.feature_repo).encode())
    for path in definition_files(project.segments_dir):
        content = path.read_bytes()
        digest.update(f"{path.relative_to(project.root)} {len(content)}\n".encode() + content)
    for path in files_below(project.segments_dir):
        if path.suffix in SUFFIXES:
            digest.update(_stamp(path))
    for name in ("models", "propensity"):
        for path in files_below(project.state_dir / name):
            digest.update(_stamp(path))
    return digest.hexdigest()


def note_unchanged(project: Project, files: str, plan: ReadPlan, version: int) -> None:
    """Keep that a plan is what the files say.

    Parameters
    ----------
    project
        the project.
    files
        what :func:`project_files` returned before the files were read.
    plan
        the plan in effect.
    version
        the number of its version.
    """
    outside = [str(path) for path in _outside(project)]
    state = _state(project, outside)
    if state is None:
        _path(project).unlink(missing_ok=True)
        return
    states = _states_name(plan)
    content = {
        "format": _FORMAT,
        "files": files,
        "outside": outside,
        "state": state,
        "version": version,
        "states": None if states is None else states.decode(),
    }
    with contextlib.suppress(SegmentsError):  # a folder that cannot be written is no reason to fail
        write_atomically(_path(project), orjson.dumps(content, option=orjson.OPT_INDENT_2) + b"\n")


def unchanged(project: Project) -> Unchanged | None:
    """Return what is in effect, if it is known that applying the files would change nothing."""
    try:
        noted = orjson.loads(_path(project).read_bytes())
        if noted["format"] != _FORMAT or noted["state"] != _state(project, noted["outside"]):
            return None
        if noted["files"] != project_files(project):
            return None
        plan = ReadPlan.load(project.read_plan)
        if not _is_held(project, plan, noted["states"]):
            return None
        nothing = (Register(RegistryChange((), (), ())), Switch(()))
        return Unchanged(
            plan,
            int(noted["version"]),
            ApplyStages(nothing, plan_hash(plan), plan.definitions, plan.now, differs=False),
        )
    except (OSError, ValueError, KeyError, TypeError, SegmentsError):
        return None


def _is_held(project: Project, plan: ReadPlan, states: str | None) -> bool:
    """Tell whether the store has what it should, and keeps it."""
    server = server_of(plan.connection, project.root)
    if server is None:
        return True
    check_eviction(server)
    with server.connected() as client:
        mark = StoreMark(client, plan.project)
        complete = states is None or mark.states == states.encode()
        return complete and not mark.missing(view.name for view in plan.views)


def _states_name(plan: ReadPlan) -> bytes | None:
    """Return the name of the event states that the definitions need; None if they need none."""
    if plan.definitions.get("events") is None:
        return None
    from rules_engine.rules.segments.codec import decode_program
    from rules_engine.sdk.event_rules import EventRules

    events = EventRules(decode_program(plan.definitions.get("segments", {})), plan.definitions)
    return events.name if events.requirements.events else None


# --- what Feast would look at -----------------------------------------------------------------------------------------


def _state(project: Project, outside: list[str]) -> str | None:
    """Return a hash of everything else that an apply looks at; None if a part of it cannot be watched."""
    registry, sources = _registry(project), local_sources(project)
    if registry is None or sources is None or _asks_elsewhere(project):
        return None
    digest = hashlib.sha256()
    try:
        for path in (project.read_plan, project.state_dir / "schema.json", registry, *map(Path, outside)):
            digest.update(path.read_bytes() if path.is_file() else b"-")
            digest.update(b"\n")
    except PermissionError:  # an apply writes the plan anew, whoever may read the old one
        return None
    for path in (*(source.path for source in sources), project.state_dir / "owed_sweep.json"):
        digest.update(_stamp(path))
    return digest.hexdigest()


def _stamp(path: Path) -> bytes:
    """Return what tells that a file was written anew."""
    if not path.is_file():
        return f"{path} -\n".encode()
    status = path.stat()
    return f"{path} {status.st_size} {status.st_mtime_ns}\n".encode()


def _registry(project: Project) -> Path | None:
    """Return the file of Feast's registry; None if it is none, or its name depends on the environment."""
    content: Any = yaml.safe_load(project.feature_store_yaml.read_text(encoding="utf-8"))
    registry = content.get("registry") if isinstance(content, dict) else None
    if isinstance(registry, dict) and registry.get("registry_type", "file") == "file":
        registry = registry.get("path")
    if not isinstance(registry, str) or "://" in registry or "$" in registry:
        return None
    path = project.feature_repo / registry
    return path if path.is_file() else None


def _asks_elsewhere(project: Project) -> bool:
    scripts = [path for path in files_below(project.feature_repo) if path.suffix == ".py"]
    return any(word in path.read_bytes() for path in scripts for word in _ELSEWHERE)


def _outside(project: Project) -> Iterator[Path]:
    """Yield the files of modules that lie neither in the project nor among what is installed."""
    installed = [Path(place).resolve() for name, place in sysconfig.get_paths().items() if name != "data"]
    installed += [Path(rules_engine.__file__).resolve().parent, project.feature_repo.resolve()]
    for name, module in sorted(sys.modules.items()):
        place = getattr(module, "__file__", None)
        if place is None or name == "__main__":
            continue
        path = Path(place).resolve()
        if path.suffix == ".py" and not any(path.is_relative_to(folder) for folder in installed):
            yield path


def _path(project: Project) -> Path:
    return project.state_dir / "unchanged.json"
