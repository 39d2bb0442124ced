"""Draw the imports between the packages of rules_engine: `python scripts/draw_imports.py > docs/imports.svg`.

An arrow from A to B says that A imports B. Where A also reaches B through other packages the arrow is left out, so that
the picture shows the order of the packages and not every import.
"""

from __future__ import annotations

import ast
import sys
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "rules_engine"
PICTURE = "docs/imports.svg"

WIDTH, HEIGHT = 132, 34  # of a box
COLUMN, ROW = 210, 62  # from one box to the next
MARGIN = 24

Graph = Mapping[str, set[str]]


def layers() -> list[str]:
    """Return the packages from the top to the bottom, as the import contract in pyproject.toml lists them."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    contracts = settings["tool"]["importlinter"]["contracts"]
    found: list[str] = next(contract["layers"] for contract in contracts if contract["type"] == "layers")
    return found


def modules_imported(path: Path) -> Iterator[str]:
    """Yield the dotted names that a file imports, inside functions too."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module:
            yield from (f"{node.module}.{name.name}" for name in node.names)
        elif isinstance(node, ast.Import):
            yield from (name.name for name in node.names)


def imports() -> Graph:
    """Return by package the other packages that its modules import."""
    packages = [name for name in layers() if name != "__main__"]
    graph: dict[str, set[str]] = {name: set() for name in packages}
    for path in sorted(PACKAGE.rglob("*.py")):
        importer = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
        for module in modules_imported(path):
            root, _, rest = module.partition(".")
            imported = rest.partition(".")[0]
            if root == PACKAGE.name and importer in graph and imported in graph and imported != importer:
                graph[importer].add(imported)
    return graph


def reduced(graph: Graph) -> Graph:
    """Return the graph without the imports that follow from others."""
    below: dict[str, set[str]] = {}
    for name in reversed(list(graph)):
        below[name] = graph[name].union(*(below[other] for other in graph[name]))
    return {
        name: {one for one in found if not any(one in below[other] for other in found)} for name, found in graph.items()
    }


def ranks(graph: Graph) -> dict[str, int]:
    """Return the row of each package, counted from the bottom: one above the highest that it imports."""
    found: dict[str, int] = {}
    for name in reversed(list(graph)):
        found[name] = 1 + max((found[other] for other in graph[name]), default=-1)
    return found


def columns(graph: Graph, rows: Mapping[str, int]) -> dict[str, int]:
    """Return the column of each package: the longest chain in the middle, the others where no box is in their way."""
    place: dict[str, int] = {}
    link: str | None = max(graph, key=lambda name: rows[name])
    while link is not None:
        place[link] = 0
        link = next((other for other in sorted(graph[link]) if rows[other] == rows[link] - 1), None)
    taken: dict[int, set[int]] = {}
    for name in sorted(graph.keys() - place, key=lambda name: (-rows[name], name)):
        importers = [rows[other] for other in graph if name in graph[other]]
        span = set(range(rows[name], max(importers, default=rows[name] + 1)))
        column = next(column for column in (1, -1, 2, -2, 3, -3) if not span & taken.get(column, set()))
        taken.setdefault(column, set()).update(span)
        place[name] = column
    return place


def draw() -> str:
    """Return the picture as SVG."""
    graph = reduced(imports())
    rows = ranks(graph)
    place = columns(graph, rows)
    left, top = min(place.values()), max(rows.values())
    spot = {
        name: (MARGIN + (place[name] - left) * COLUMN + WIDTH // 2, MARGIN + (top - rows[name]) * ROW) for name in graph
    }
    width = MARGIN * 2 + (max(place.values()) - left) * COLUMN + WIDTH
    height = MARGIN * 2 + top * ROW + HEIGHT
    arrows = [_arrow(spot[name], spot[other]) for name in graph for other in sorted(graph[name])]
    boxes = [_box(name, *spot[name]) for name in graph]
    head = '<marker id="head" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="8" markerHeight="8" orient="auto">'
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}">',
        f"<title>The imports between the packages of {PACKAGE.name}</title>",
        '<rect width="100%" height="100%" fill="white"/>',
        f'<defs>{head}<path d="M0 0L8 4L0 8z" fill="#5b6b7b"/></marker></defs>',
        '<g fill="none" stroke="#5b6b7b" stroke-width="1.4" marker-end="url(#head)">',
        *arrows,
        "</g>",
        '<g font-family="sans-serif" font-size="15" text-anchor="middle">',
        *boxes,
        "</g>",
        "</svg>",
    ]
    return "\n".join(lines) + "\n"


def _box(name: str, x: int, y: int) -> str:
    return (
        f'<rect x="{x - WIDTH // 2}" y="{y}" width="{WIDTH}" height="{HEIGHT}" rx="6" fill="#eef4fb" stroke="#7f9ab5"/>'
        f'<text x="{x}" y="{y + 22}">{name}</text>'
    )


def _arrow(start: tuple[int, int], end: tuple[int, int]) -> str:
    """Return an arrow from the lower edge of one box to the upper edge of another."""
    side = (end[0] > start[0]) - (end[0] < start[0])
    x0, y0 = start[0] + side * WIDTH * 3 // 8, start[1] + HEIGHT
    x1, y1 = end[0], end[1] - 1
    if y1 - y0 < ROW:
        return f'<path d="M{x0} {y0}L{x1} {y1}"/>'
    turn = y0 + ROW // 3
    return f'<path d="M{x0} {y0}C{x0} {turn} {x1} {y0} {x1} {turn + ROW // 6}L{x1} {y1}"/>'


if __name__ == "__main__":
    sys.stdout.write(draw())
