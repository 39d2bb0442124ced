"""Links lead somewhere; the index has every page, and decisions in their order under their own titles."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

import pytest

from tests.docs_pages import ROOT

PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "tests/conformance").rglob("*.md")])
INDEX = (ROOT / "docs/README.md").read_text(encoding="utf-8")
_DECISION = re.compile(r"^(\d+)\. \[(.+)\]\((adr/(\d{4})-[\w-]+\.md)\)$", re.MULTILINE)


@cache
def anchors(page: Path) -> set[str]:
    """Return the anchors of a page's headings, as the usual renderers make them."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
        if "://" not in target:
            path, _, anchor = target.partition("#")
            file = (page.parent / path).resolve() if path else page
            assert file.exists(), target
            assert not anchor or anchor in anchors(file), target


def test_decisions_are_listed_in_order_with_their_titles() -> None:
    listed = _DECISION.findall(INDEX)
    numbers = [int(number) for number, *_ in listed]
    assert numbers == list(range(1, len(numbers) + 1))
    for number, title, path, prefix in listed:
        heading = (ROOT / "docs" / path).read_text(encoding="utf-8").partition("\n")[0]
        assert (heading, int(prefix)) == (f"# {number}. {title}", int(number)), path


def test_every_page_is_in_the_index() -> None:
    pages = {page.relative_to(ROOT / "docs").as_posix() for page in (ROOT / "docs").rglob("*.md")} - {"README.md"}
    assert {page for page in pages if f"]({page})" not in INDEX} == set()
    assert len(_DECISION.findall(INDEX)) == len(list((ROOT / "docs/adr").glob("*.md")))


def test_pages_speak_of_what_is_and_not_of_targets() -> None:
    speaks = re.compile(r"\(asked\b|\b(?:was|is) asked:|\bissue \d")
    assert {page.name for page in PAGES if speaks.search(page.read_text(encoding="utf-8"))} == set()
