"""Keep what was applied, when and by whom: every read plan that differs from the one before."""

from __future__ import annotations

import getpass
import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rules_engine.errors import ProjectError, UnknownNameError
from rules_engine.files import entries, write_atomically
from rules_engine.folders import Project
from rules_engine.read_plan import ReadPlan
from rules_engine.rules.catalog import Catalog
from rules_engine.rules.load import decode_definitions, features_of

_FORMAT = 1


@dataclass(frozen=True, slots=True)
class Version:
    """An applied plan: its number, who applied it and when (microseconds), the hash of its definitions, and itself."""

    number: int
    who: str
    applied_at: int
    hash: str
    plan: ReadPlan


def record(project: Project, plan: ReadPlan) -> Version:
    """Keep a plan that is about to take effect, unless it says the same as the newest version.

    Raises
    ------
    ProjectError
        if it cannot be written.
    """
    earlier = versions(project)
    if earlier and plan_content(earlier[-1].plan) == plan_content(plan):
        return earlier[-1]
    number = next_number(project)
    new = Version(number, _user(), plan.applied_at, plan.definitions_version, plan)
    content = {
        "format": _FORMAT,
        "number": number,
        "who": new.who,
        "applied_at": plan.applied_at,
        "hash": new.hash,
        "plan": json.loads(plan.to_json()),
    }
    write_atomically(_folder(project) / f"{number:06d}.json", json.dumps(content, indent=1).encode() + b"\n")
    return new


def next_number(project: Project) -> int:
    """Return the number that the next version gets."""
    return newest_number(project) + 1


def newest_number(project: Project) -> int:
    """Return the number of the newest version; 0 if there is none."""
    return max((int(path.stem) for path in entries(_folder(project), "[0-9]*.json")), default=0)


def versions(project: Project) -> list[Version]:
    """Return all versions, the oldest first.

    Raises
    ------
    ProjectError
        if one cannot be read.
    """
    return [_read(path) for path in entries(_folder(project), "[0-9]*.json")]


def version(project: Project, number: int) -> Version:
    """Return a version.

    Raises
    ------
    UnknownNameError
        if there is none of that number.
    ProjectError
        if it cannot be read.
    """
    path = _folder(project) / f"{number:06d}.json"
    if not path.is_file():
        raise UnknownNameError(f"there is no version {number}", hint="`segments apply --versions` lists them")
    return _read(path)


def check_features(old: Version, catalog: Catalog) -> None:
    """Refuse to go back to definitions whose features are gone, or have another type now.

    Raises
    ------
    ProjectError
        with their names.
    """
    types = old.plan.catalog().features
    gone = sorted(
        name
        for name in features_of(decode_definitions(old.plan.definitions))
        if name not in catalog.features or catalog.features[name].type != types[name].type
    )
    if gone:
        raise ProjectError(
            f"version {old.number} reads features that are gone or have another type now: {', '.join(gone)}",
            hint="bring them back in feature_repo/ first",
        )


def plan_content(plan: ReadPlan) -> tuple[Any, ...]:
    """Return what a plan says; two that say the same are one version."""
    return plan.definitions_version, plan.now, plan.entity, plan.join_key, plan.key_version, plan.connection, plan.views


def plan_hash(plan: ReadPlan | None) -> str | None:
    """Return a short hash of a plan, which tells plans apart."""
    return None if plan is None else hashlib.sha256(repr(plan_content(plan)).encode()).hexdigest()[:12]


def _folder(project: Project) -> Path:
    return project.state_dir / "versions"


def _read(path: Path) -> Version:
    try:
        content: Any = json.loads(path.read_bytes())
        if content["format"] != _FORMAT:
            raise ProjectError(
                f"{path} has format {content['format']}, and this version of feast-segments reads {_FORMAT}"
            )
        plan = ReadPlan.from_json(json.dumps(content["plan"]).encode(), str(path))
        return Version(content["number"], content["who"], content["applied_at"], content["hash"], plan)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ProjectError(f"{path} is damaged: {error}", hint="remove the file; that version is lost") from error


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError, ImportError):  # a container's user may have no name
        return "unknown"
