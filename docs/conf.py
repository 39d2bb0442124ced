"""Settings of the documentation site, which `make docs` builds with Sphinx from the Markdown files of the repository.

The source folder is the repository, so that links between README.md, CONTRIBUTING.md and the pages of docs/ lead to the
same place on the site as in the repository. Nothing in the Markdown is written for Sphinx: the navigation is that of
docs/README.md.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from importlib.metadata import version as installed_version
from pathlib import Path

from sphinx.application import Sphinx

HERE = Path(__file__).resolve().parent

project = "feast-segments"
author = "the authors of feast-segments"
release = version = installed_version("feast-segments")

extensions = ["myst_parser"]
root_doc = "README"
include_patterns = ["*.md", "docs/*.md", "docs/adr/*.md", "tests/conformance/*.md"]
exclude_patterns = [".*", "build", "benchmarks", "feature_repo", "rules_engine", "scripts", "segments"]

myst_heading_anchors = 4
nitpicky = True
suppress_warnings = ["misc.highlighting_failure"]  # output and faulty definitions are shown as they are

html_theme = "furo"
html_title = f"feast-segments {release}"
html_extra_path = ["site"]  # index.html, which leads to README.html
html_copy_source = False

_LINK = re.compile(r"\]\(([^)#]+)\.md\)")


def navigation() -> Iterator[tuple[str, list[str]]]:
    """Yield the groups of the navigation: the sections of docs/README.md, each with the pages that it links to."""
    _, *sections = (HERE / "README.md").read_text(encoding="utf-8").split("\n## ")
    for section in sections:
        caption, _, text = section.partition("\n")
        pages = ((HERE / page).resolve().relative_to(HERE.parent).as_posix() for page in _LINK.findall(text))
        yield caption, list(dict.fromkeys(pages))


def _add_navigation(_: Sphinx, page: str, text: list[str]) -> None:
    """Append the navigation to the first page, as hidden tables of contents."""
    if page == root_doc:
        for caption, pages in [("Documentation", ["docs/README"]), *navigation()]:
            text[0] += "\n```{toctree}\n:hidden:\n" + f":caption: {caption}\n\n" + "\n".join(pages) + "\n```\n"


def setup(app: Sphinx) -> None:
    """Connect the hook above; Sphinx calls this."""
    app.connect("source-read", _add_navigation)
