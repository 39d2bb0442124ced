r"""Fill templates. Everything that is shown is escaped, and characters that cannot be seen are written out.

>>> environment().from_string("{{ name }}").render(name="<b>\x1b[31m")
'&lt;b&gt;\\x1b[31m'
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from rules_engine.clock import DAY, HOUR, MINUTE, SECOND, format_instant, to_micros
from rules_engine.diagnostics import printable
from rules_engine.service.console import charts
from rules_engine.triggers.causes import cause_text

_HERE = Path(__file__).parent

#: By name, the files that pages load, with their media type.
STATIC = {
    "console.css": "text/css; charset=utf-8",
    "console.js": "text/javascript; charset=utf-8",
    "icon.svg": "image/svg+xml",
}

#: The pages in the navigation: the address, and what it is called.
NAVIGATION = (
    ("/console", "Segments"),
    ("/console/people", "People"),
    ("/console/change", "Try a change"),
    ("/console/triggers", "Triggers"),
    ("/console/models", "Clusters and models"),
    ("/console/operation", "Operation"),
)

_UNITS = (("d", DAY), ("h", HOUR), ("m", MINUTE), ("s", SECOND))

#: More characters than that of one value are not shown.
_LONGEST = 400


def render(template: str, values: Mapping[str, Any]) -> str:
    """Return a template filled with values."""
    return environment().get_template(template).render(values)


@cache
def environment() -> Environment:
    """Return the templates, with the filters that they use."""
    templates = Environment(
        loader=FileSystemLoader(_HERE / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_shown,
    )
    templates.globals.update(navigation=NAVIGATION, static=_static_address, charts=charts, address=address)
    templates.filters.update(
        instant=instant,
        day=day,
        ago=ago,
        duration=duration,
        number=number,
        share=share,
        bytes=file_size,
        part=path_part,
        lines=text_lines,
        raw=raw_text,
        whole=whole_value,
        cause=cause_text,
        count=count,
    )
    return templates


def _shown(value: Any) -> Any:
    """Return a text as it is shown: on one line, with what cannot be seen written out, and not too long."""
    if isinstance(value, Markup) or not isinstance(value, str):
        return "" if value is None else value
    text = value if len(value) <= _LONGEST else f"{value[:_LONGEST]}\N{HORIZONTAL ELLIPSIS}"
    return printable(text)


@cache
def static_file(name: str) -> bytes:
    """Return a file that pages load."""
    return (_HERE / "static" / name).read_bytes()


def _static_address(name: str) -> str:
    """Return the address of such a file; it changes with the file, so browsers may keep it."""
    return f"/console/static/{name}?v={sha256(static_file(name)).hexdigest()[:12]}"


def address(path: str, *parts: str, **query: Any) -> str:
    """Return an address of the console.

    >>> address("people", "a/b c", at="2026-01-01T00:00:00Z", empty="")
    '/console/people/a%2Fb%20c?at=2026-01-01T00%3A00%3A00Z'
    """
    filled = {name: value for name, value in query.items() if value not in (None, "")}
    text = "/".join(["/console", *([path] if path else []), *map(path_part, parts)])
    return text + (f"?{urlencode(filled)}" if filled else "")


def path_part(text: str) -> str:
    """Return a text as one part of a path."""
    return quote(text, safe="", errors="replace")


def text_lines(text: str) -> Markup:
    r"""Return a text of several lines, with everything else that cannot be seen written out.

    >>> text_lines("a: <b>\n\tc\u202e")
    Markup('a: &lt;b&gt;\n\tc\\u202e')
    """
    lines = (printable(line.replace("\t", "\ue000")).replace("\\ue000", "\t") for line in text.split("\n"))
    return Markup("\n").join(escape(line) for line in lines)


def raw_text(text: str) -> Markup:
    """Return a text as it is, escaped: for a field in which it is edited, and must stay what it was."""
    return Markup("\n{}").format(text)  # a browser takes the first line break of a field for its own


def whole_value(text: str) -> Markup:
    """Return a text as it is, escaped: for the value of a field, which is sent back."""
    return escape(text)


def number(value: float | None, digits: int = 0) -> str:
    """Return a number with its thousands told apart; a dash if there is none.

    >>> number(1234567), number(0.1234, 2), number(None)
    ('1,234,567', '0.12', '–')
    """
    return "\N{EN DASH}" if value is None else f"{value:,.{digits}f}"


def share(value: float | None) -> str:
    """Return a share in percent.

    >>> share(0.1234), share(None)
    ('12.3%', '–')
    """
    return "\N{EN DASH}" if value is None else f"{value:.1%}"


def count(value: int, noun: str) -> str:
    """Return a number with its noun.

    >>> count(1, "user"), count(2_000, "user"), count(2, "entity")
    ('1 user', '2,000 users', '2 entities')
    """
    plural = noun if value == 1 else f"{noun[:-1]}ies" if noun.endswith("y") else f"{noun}s"
    return f"{value:,} {plural}"


def duration(micros: int | None) -> str:
    """Return a duration in its largest unit, and the next smaller one where that says something.

    >>> duration(93_784_000_000), duration(2_851_201_000_000), duration(1_500_000), duration(None)
    ('1d 2h', '33d', '1s', '–')
    """
    if micros is None:
        return "\N{EN DASH}"
    rest = abs(micros)
    for place, (unit, size) in enumerate(_UNITS):
        if rest >= size:
            whole, rest = divmod(rest, size)
            smaller, smaller_size = _UNITS[place + 1] if place + 1 < len(_UNITS) else ("", rest + 1)
            more = rest // smaller_size
            return f"{whole}{unit}" + (f" {more}{smaller}" if more else "")
    return "0s"


def file_size(size: float | None) -> str:
    """Return a number of bytes.

    >>> file_size(12), file_size(1_500_000), file_size(None)
    ('12 B', '1.5 MB', '–')
    """
    if size is None:
        return "\N{EN DASH}"
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000 or unit == "GB":
            break
        size /= 1000
    return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"


def instant(value: int | datetime | str | None) -> Markup:
    """Return an instant as an element: in UTC, which our script turns into the reader's zone.

    >>> instant(0)
    Markup('<time datetime="1970-01-01T00:00:00Z">1970-01-01 00:00:00 UTC</time>')
    """
    if value is None:
        return Markup("\N{EN DASH}")
    text = (
        value.replace("+00:00", "Z")
        if isinstance(value, str)
        else format_instant(value if isinstance(value, int) else to_micros(value))
    )
    if not text.endswith("Z"):
        return Markup("{}").format(text)
    shown = text.replace("T", " ").partition(".")[0].removesuffix("Z")
    return Markup('<time datetime="{}">{} UTC</time>').format(text, shown)


def day(value: int) -> Markup:
    """Return the day of an instant, with the instant at hand.

    >>> day(0)
    Markup('<time datetime="1970-01-01T00:00:00Z" title="1970-01-01T00:00:00Z">1970-01-01</time>')
    """
    text = format_instant(value)
    return Markup('<time datetime="{}" title="{}">{}</time>').format(text, text, text.partition("T")[0])


def ago(value: int | datetime, now: int) -> str:
    """Return how long before or after another instant an instant is.

    >>> ago(0, 3_600_000_000), ago(3_600_000_000, 0)
    ('1h ago', 'in 1h')
    """
    micros = now - (value if isinstance(value, int) else to_micros(value))
    return f"{duration(micros)} ago" if micros >= 0 else f"in {duration(-micros)}"
