"""Reports: one file, nothing to load, nothing that runs, the same bytes for the same data."""

from __future__ import annotations

import base64
import re
from html.parser import HTMLParser
from pathlib import Path

from rules_engine.ml.report.page import Note, Page, PageTable, Picture
from rules_engine.ml.report.pictures import as_png, as_svg, colour, drawing

HOSTILE = "<script>alert('x')</script> & \"co\""


def _picture() -> tuple[str, bytes]:
    with drawing(3, 2) as (figure, axes):
        axes.plot([0, 1, 2], [1, 4, 2], color=colour(0))
        axes.set_title("A line")
        return as_svg(figure), as_png(figure)


def _page() -> Page:
    svg, png = _picture()
    page = Page(HOSTILE, HOSTILE, {HOSTILE: HOSTILE}, HOSTILE)
    page.section(HOSTILE, HOSTILE).add(
        Picture(svg, HOSTILE, HOSTILE), Picture(png, HOSTILE, wide=True), Note(HOSTILE, is_warning=True)
    )
    page.section("Numbers").add(PageTable([HOSTILE, "users"], [[HOSTILE, "1"]], right=["users"], caption=HOSTILE))
    return page


class _Reader(HTMLParser):
    """What a browser would load or run, and what it would show."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.sources: list[str] = []
        self.alts: list[str | None] = []
        self.shown: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.sources += [value or "" for name, value in attrs if name in ("src", "href")]
        self.alts += [value for name, value in attrs if name == "alt"]

    def handle_data(self, data: str) -> None:
        self.shown.append(data.strip())


def test_a_report_loads_nothing_runs_nothing_and_shows_names_as_they_are() -> None:
    html = _page().html()
    reader = _Reader()
    reader.feed(html)
    assert "script" not in reader.tags
    assert not re.search(r"url\(|@import|https?://", html)
    assert [source.split(",")[0] for source in reader.sources] == [
        "data:image/svg+xml;base64",
        "data:image/png;base64",
    ]
    assert reader.alts == [HOSTILE, HOSTILE]
    assert reader.shown.count(HOSTILE) == 13, "two titles, lead, fact, section, captions, note, header, cell, footer"


def test_the_pictures_are_the_ones_that_were_drawn_and_the_same_each_time() -> None:
    svg, png = _picture()
    assert _picture() == (svg, png)
    assert base64.b64decode(Picture(svg, "").source.partition(",")[2]).decode() == svg
    assert png.startswith(b"\x89PNG")


def test_a_report_is_written_whole(tmp_path: Path) -> None:
    page = _page()
    page.write(tmp_path / "reports" / "v1.html")
    assert (tmp_path / "reports" / "v1.html").read_text(encoding="utf-8") == page.html()
