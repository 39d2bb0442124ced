"""docs/architecture.md names packages, files and functions: all of them exist, and no package is left out."""

from __future__ import annotations

import ast
import re

import pytest

from scripts.draw_imports import PACKAGE, PICTURE, draw, layers
from tests.docs_pages import ROOT

PAGE = (ROOT / "docs/architecture.md").read_text(encoding="utf-8")
_CODE = re.compile(r"`([^`]+)`")


def table_rows(text: str) -> list[list[str]]:
    """Return the cells of every row of every table of a text."""
    return [line.strip("|").split(" | ") for line in text.splitlines() if line.startswith("| ")]


def steps() -> list[tuple[list[str], list[str]]]:
    """Return files and names of every step of the walks."""
    walks = PAGE[PAGE.index("\n## Walks") : PAGE.index("\n## Where the meaning")]
    rows = [row for row in table_rows(walks) if row[0].strip() not in ("step", "---")]
    return [(_CODE.findall(files), _CODE.findall(names)) for _, files, names in rows]


def names_in(file: str) -> set[str]:
    """Return what a module defines at its top level, and ``Class.member`` for the members of its classes."""
    found: set[str] = set()
    for node in ast.parse((PACKAGE / file).read_text(encoding="utf-8")).body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            found.add(node.name)
        if isinstance(node, ast.ClassDef):
            found |= {f"{node.name}.{part.name}" for part in node.body if isinstance(part, ast.FunctionDef)}
        targets = [node.target] if isinstance(node, ast.AnnAssign) else getattr(node, "targets", [])
        found |= {target.id for target in targets if isinstance(target, ast.Name)}
    return found


@pytest.mark.parametrize(("files", "names"), steps(), ids=",".join)
def test_every_step_of_a_walk_names_a_file_and_what_it_defines(files: list[str], names: list[str]) -> None:
    assert files
    assert names
    defined = set().union(*(names_in(file) for file in files))
    assert [name for name in names if name not in defined] == []


def test_there_are_five_walks() -> None:
    assert len(re.findall(r"^### ", PAGE, re.MULTILINE)) == 5
    assert len(steps()) > 40


def test_every_other_file_that_is_named_exists() -> None:
    paths = {code for code in _CODE.findall(PAGE) if re.fullmatch(r"[\w/]+\.(py|svg)|tests/[\w/]+", code)}
    missing = {path for path in paths if not (ROOT / path).exists() and not (PACKAGE / path).exists()}
    assert missing == set()
    assert len(paths) > 30


def test_the_map_has_every_package_in_the_order_of_the_layers() -> None:
    section = PAGE[PAGE.index("\n## The map") : PAGE.index("\n## Walks")]
    mapped = [_CODE.findall(row[0]) for row in table_rows(section)]
    assert [name for found in mapped for name in found] == [name for name in layers() if name != "__main__"]


def test_the_picture_of_the_imports_is_up_to_date() -> None:
    assert (ROOT / PICTURE).read_text(encoding="utf-8") == draw(), f"run `python scripts/draw_imports.py > {PICTURE}`"
