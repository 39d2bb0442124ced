"""Settings of the documentation site, which `make docs` builds with Sphinx from the Markdown files of the repository.

The source folder is the repository, so that links between README.md, CONTRIBUTING.md and the pages of docs/ lead to the
same place on the site as in the repository. Nothing in the Markdown is written for Sphinx: the navigation stands here.
"""

from __future__ import annotations

from importlib.metadata import version as installed_version

from sphinx.application import Sphinx

project = "feast-segments"
author = "the authors of feast-segments"
release = version = installed_version("feast-segments")

extensions = ["myst_parser"]
root_doc = "README"
include_patterns = ["*.md", "docs/*.md", "docs/adr/*.md"]
exclude_patterns = [".*", "build", "benchmarks", "feature_repo", "rules_engine", "scripts", "segments", "tests"]

myst_heading_anchors = 4
nitpicky = True
suppress_warnings = ["misc.highlighting_failure"]  # output and faulty definitions are shown as they are

html_theme = "furo"
html_title = f"feast-segments {release}"
html_extra_path = ["site"]  # index.html, which leads to README.html
html_copy_source = False

#: The navigation: the caption of each group, and its pages.
NAVIGATION = {
    "Begin": ["docs/README", "docs/installation", "docs/limits"],
    "Rules": ["docs/language", "docs/operators", "docs/recipes", "docs/tests"],
    "Data": ["docs/events", "docs/training", "docs/clusters", "docs/models"],
    "Use": ["docs/python", "docs/cli", "docs/batch", "docs/triggers"],
    "Run": ["docs/performance", "docs/scale", "CHANGELOG"],
    "Change the code": ["CONTRIBUTING", "docs/architecture"],
    "Decisions": ["docs/adr/*"],
}


def _add_navigation(_: Sphinx, page: str, text: list[str]) -> None:
    """Append the navigation to the first page, as hidden tables of contents."""
    if page == root_doc:
        for caption, pages in NAVIGATION.items():
            text[0] += "\n```{toctree}\n:hidden:\n:glob:\n" + f":caption: {caption}\n\n" + "\n".join(pages) + "\n```\n"


def setup(app: Sphinx) -> None:
    """Connect the hook above; Sphinx calls this."""
    app.connect("source-read", _add_navigation)
