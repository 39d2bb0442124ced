"""Load the definitions of a Feast repository: every entity, source, view and service in its Python files.

Feast's own loader changes the working directory and prints; this one leaves the process as it was. Files may import
each other by name, as under ``feast apply``, and ``.feastignore`` counts.
"""

from __future__ import annotations

import contextlib
import importlib
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

from rules_engine.errors import ProjectError, pass_interrupt
from rules_engine.features.feast_import import import_feast, quiet


def load_objects(folder: Path, project: str) -> Any:
    """Return the definitions in a folder, as Feast's ``RepoContents``.

    Raises
    ------
    ProjectError
        if a file cannot be imported, two definitions of a kind have one name, or a definition is not valid.
    """
    import_feast()
    from feast.repo_operations import get_repo_files

    folder = folder.resolve()
    with quiet():
        files = get_repo_files(folder)
        with _importable(folder, [_module_name(folder, file) for file in files]):
            modules = [_import(folder, file) for file in files]
        contents = _collect(modules, project)
        _check(contents)
    return contents


def _module_name(folder: Path, file: Path) -> str:
    return ".".join(file.relative_to(folder).with_suffix("").parts)


@contextlib.contextmanager
def _importable(folder: Path, names: list[str]) -> Iterator[None]:
    """Let the files import each other by name, for as long as they are loaded, and leave no trace of them."""
    shadowed = {name: sys.modules.pop(name) for name in names if name in sys.modules}
    before, bytecode = set(sys.modules), sys.dont_write_bytecode
    sys.path.insert(0, str(folder))
    sys.dont_write_bytecode = True
    importlib.invalidate_caches()
    try:
        yield
    finally:
        sys.path.remove(str(folder))
        sys.dont_write_bytecode = bytecode
        for name in set(sys.modules) - before:
            if _lies_in(sys.modules[name], folder):
                del sys.modules[name]
        sys.modules.update(shadowed)


def _lies_in(module: ModuleType, folder: Path) -> bool:
    places = [getattr(module, "__file__", None), *getattr(module, "__path__", ())]
    return any(place and Path(place).is_relative_to(folder) for place in places)


def _import(folder: Path, file: Path) -> ModuleType:
    try:
        return importlib.import_module(_module_name(folder, file))
    except Exception as error:  # a user's file may raise anything
        pass_interrupt(error)
        frames = [
            frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename.startswith(str(folder))
        ]
        place = f"{frames[-1].filename}:{frames[-1].lineno}" if frames else str(file)
        if isinstance(error, SyntaxError) and error.filename:
            place = f"{error.filename}:{error.lineno}"
        raise ProjectError(
            f"{place}: {type(error).__name__}: {error}",
            hint="this file is part of the Feast repository and must import; list it in .feastignore if it is not",
        ) from error


def _collect(modules: list[ModuleType], project: str) -> Any:
    from feast import Project
    from feast.feature_view import DUMMY_ENTITY
    from feast.repo_contents import RepoContents

    definitions: dict[int, Any] = {}
    for module in modules:
        for value in vars(module).values():
            for definition in (value, *_sources(value)):
                definitions.setdefault(id(definition), definition)
    kinds = _kinds()
    lists: dict[str, list[Any]] = {name: [] for name in kinds}
    for definition in definitions.values():
        kind = next((name for name, classes in kinds.items() if isinstance(definition, classes)), None)
        if kind is not None:
            lists[kind].append(definition)
    lists["entities"].append(DUMMY_ENTITY)  # Feast's, for views without an entity
    lists["projects"] = lists["projects"] or [Project(name=project, description="")]
    return RepoContents(**lists)


def _kinds() -> dict[str, tuple[type, ...]]:
    """Return Feast's kinds of definition; the first that fits counts, so subclasses come first."""
    import feast
    from feast.data_source import DataSource
    from feast.labeling.label_view import LabelView
    from feast.permissions.permission import Permission

    return {
        "stream_feature_views": (feast.StreamFeatureView,),
        "on_demand_feature_views": (feast.OnDemandFeatureView,),
        "label_views": (LabelView,),
        "feature_views": (feast.FeatureView,),
        "feature_services": (feast.FeatureService,),
        "entities": (feast.Entity,),
        "data_sources": (DataSource,),
        "permissions": (Permission,),
        "projects": (feast.Project,),
    }


def _sources(definition: Any) -> list[Any]:
    """Return the sources inside a definition; a view's source needs no name of its own in the file."""
    from feast.data_source import DataSource

    inner = (getattr(definition, name, None) for name in ("batch_source", "stream_source", "source"))
    direct = [source for source in inner if isinstance(source, DataSource)]
    return direct + [deeper for source in direct for deeper in _sources(source)]


def _check(contents: Any) -> None:
    """Refuse two definitions of one name, and definitions that Feast could not write down."""
    kinds = {name: getattr(contents, name) for name in _kinds()}
    views = [view for name, listed in kinds.items() if name.endswith("views") for view in listed]
    for kind, definitions in {**kinds, "feature views of any kind": views}.items():
        names = [definition.name for definition in definitions]
        for name in sorted({name for name in names if names.count(name) > 1}):
            raise ProjectError(
                f"the Feast repository has two {kind.replace('_', ' ')} named `{name}`", hint="rename one of them"
            )
    for kind, definitions in kinds.items():
        for definition in definitions:
            try:
                definition.to_proto()
            except Exception as error:  # protobuf and Feast raise what they like
                pass_interrupt(error)
                raise ProjectError(
                    f"the definition of `{definition.name}` ({kind.replace('_', ' ')}) is not valid: {error}",
                    hint="check the types of its arguments in feature_repo/",
                ) from error
