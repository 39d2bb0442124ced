"""A report as one self-contained HTML file: text, tables and pictures inside, no script and nothing to load.

>>> page = Page("Clusters of customers", facts={"users": "1,200"})
>>> section = page.section("Sizes", "How many users each cluster has.")
>>> section.add(PageTable(["cluster", "users"], [["<regulars>", "700"]], right=["users"]))
>>> html = page.html()
>>> "&lt;regulars&gt;" in html, "<script" in html
(True, False)
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from rules_engine.files import write_atomically

_TEMPLATE = Path(__file__).with_name("page.html.jinja")


@dataclass(frozen=True, slots=True)
class Picture:
    """A picture with what it shows in words, for whoever cannot see it, and how to read it.

    Attributes
    ----------
    data
        an SVG document as text, or the bytes of a PNG file.
    alt
        what is to be seen, in a sentence.
    caption
        how to read it; shown below.
    wide
        whether it takes the page's whole width; two others stand side by side.
    """

    data: str | bytes
    alt: str
    caption: str = ""
    wide: bool = False

    @property
    def source(self) -> str:
        """Return the picture as an address that holds the picture itself.

        >>> Picture(b"x", "nothing").source
        'data:image/png;base64,eA=='
        """
        is_text = isinstance(self.data, str)
        raw = self.data.encode() if isinstance(self.data, str) else self.data
        kind = "svg+xml" if is_text else "png"
        return f"data:image/{kind};base64,{base64.b64encode(raw).decode()}"


@dataclass(frozen=True, slots=True)
class PageTable:
    """Rows under headers. ``right`` names the headers of columns of numbers."""

    headers: Sequence[str]
    rows: Sequence[Sequence[str]]
    right: Sequence[str] = ()
    caption: str = ""


@dataclass(frozen=True, slots=True)
class Note:
    """A remark that stands out: a warning, or what to look at first."""

    text: str
    is_warning: bool = False


Block = Picture | PageTable | Note


@dataclass(frozen=True, slots=True)
class Section:
    """A part of a report: a heading, a sentence on what it says, and what is in it."""

    title: str
    lead: str = ""
    blocks: list[Block] = field(default_factory=list)

    def add(self, *blocks: Block) -> None:
        """Put something at the end."""
        self.blocks.extend(blocks)


@dataclass(frozen=True, slots=True)
class Page:
    """A whole report.

    Attributes
    ----------
    title
        what it is about.
    lead
        what it says, in a sentence or two.
    facts
        what stands at the top in large figures, by what it is.
    footer
        where it comes from: version, instant, libraries.
    """

    title: str
    lead: str = ""
    facts: Mapping[str, str] = field(default_factory=dict)
    footer: str = ""
    sections: list[Section] = field(default_factory=list)

    def section(self, title: str, lead: str = "") -> Section:
        """Add a section, and give it to be filled."""
        added = Section(title, lead)
        self.sections.append(added)
        return added

    def html(self) -> str:
        """Return the report as HTML. All text in it is escaped."""
        import jinja2

        environment = jinja2.Environment(
            autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
        )
        template = environment.from_string(_TEMPLATE.read_text(encoding="utf-8"))
        return template.render(page=self, kinds={Picture: "picture", PageTable: "table", Note: "note"})

    def write(self, path: Path) -> None:
        """Write the report to a file, in one step."""
        write_atomically(path, self.html().encode())
