"""Every package says where to begin, names say what they hold, and docstrings begin with a verb."""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from tests.docs_pages import ROOT

PACKAGE = ROOT / "rules_engine"
PACKAGES = sorted(path.parent for path in PACKAGE.rglob("__init__.py"))

#: A docstring begins with a verb; these begin a clause that has to be read twice.
_NO_VERBS = re.compile(r"(What|Whatever|Whether|How|Which|By|Where|While|Whose|Why)\b")

#: So many modules fit into a folder without folders inside.
_MODULES = 25

#: Names that do not say what they hold. Name the thing: `matches`, `path`, `start`, `entity`.
VAGUE_NAMES = frozenset(
    {"again", "asked", "beside", "everyone", "found", "given", "held", "judge", "known", "made", "one", "said", "since"}
    | {"told", "wanted"}
)

#: Names that are keys in stored files or in JSON output, which do not change.
_KEYS = {("deploy/stages.py", "since"), ("ml/propensity/assessment.py", "found"), ("stream/files/ingest.py", "known")}

_Documented = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def modules() -> Iterator[tuple[str, ast.Module]]:
    """Yield every module of the package with its path."""
    for path in sorted(PACKAGE.rglob("*.py")):
        yield path.relative_to(PACKAGE).as_posix(), tree(path)


def docstrings(module: ast.Module) -> Iterator[tuple[int, str]]:
    """Yield the docstrings of a module, its classes and its functions, with their lines."""
    for node in ast.walk(module):
        if isinstance(node, _Documented) and (text := ast.get_docstring(node)):
            yield getattr(node, "lineno", 1), text


def new_names(module: ast.Module) -> Iterator[tuple[int, str]]:
    """Yield the names that a module gives to variables, arguments, attributes, functions and classes."""
    for node in ast.walk(module):
        match node:
            case ast.Name(id=name, ctx=ast.Store()) | ast.Attribute(attr=name, ctx=ast.Store()) | ast.arg(arg=name):
                yield node.lineno, name
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
                yield node.lineno, name
            case ast.MatchAs(name=str(name)) | ast.MatchStar(name=str(name)) | ast.ExceptHandler(name=str(name)):
                yield node.lineno, name


def test_names_say_what_they_hold() -> None:
    vague = [
        f"rules_engine/{path}:{line}: {name}"
        for path, module in modules()
        for line, name in new_names(module)
        if name.strip("_") in VAGUE_NAMES and (path, name) not in _KEYS
    ]
    assert vague == [], "\n" + "\n".join(vague)


def test_docstrings_begin_with_a_verb() -> None:
    found = [
        f"rules_engine/{path}:{line}: {text.splitlines()[0]}"
        for path, module in modules()
        for line, text in docstrings(module)
        if _NO_VERBS.match(text)
    ]
    assert found == [], "\n" + "\n".join(found)


def test_a_public_class_has_its_name_to_itself() -> None:
    homes: dict[str, list[str]] = defaultdict(list)
    for path, module in modules():
        for node in module.body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                homes[node.name].append(path)
    assert {name: paths for name, paths in homes.items() if len(paths) > 1} == {}


@pytest.mark.parametrize("folder", PACKAGES, ids=lambda folder: folder.relative_to(ROOT).as_posix())
def test_a_package_says_what_is_in_it_and_where_to_begin(folder: Path) -> None:
    text = ast.get_docstring(tree(folder / "__init__.py")) or ""
    named = re.findall(r"``([\w/]+\.(?:py|md))``", text)
    assert len(text.split()) >= 8
    assert "Begin with" in text, "say which file to read first"
    assert named, "name the file to read first, e.g. ``engine.py``"
    roots = (folder, PACKAGE, ROOT)
    assert [name for name in named if not any((root / name).exists() for root in roots)] == []


@pytest.mark.parametrize("folder", PACKAGES, ids=lambda folder: folder.relative_to(ROOT).as_posix())
def test_a_large_package_has_folders(folder: Path) -> None:
    has_folders = any(path.parent.parent == folder for path in folder.glob("*/__init__.py"))
    assert has_folders or len(list(folder.glob("*.py"))) <= _MODULES
