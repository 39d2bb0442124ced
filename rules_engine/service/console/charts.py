"""Draw small charts as SVG. Colours and fonts are the style sheet's; every chart says in words what it shows.

>>> "3 in words" in sparkline([1, 2, 3], "3 in words")
True
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from rules_engine.clock import format_instant

_WIDTH, _HEIGHT = 640, 180
_LEFT, _RIGHT, _TOP, _BOTTOM = 56, 12, 12, 28

_LINE = Markup('<path class="line line-{}" d="{}"/>')
_DOT = Markup('<circle class="dot line-{}" cx="{:.1f}" cy="{:.1f}" r="3"><title>{}: {:,g}</title></circle>')
_BAR = Markup(
    '<rect class="bar bar-{}" x="{:.1f}" y="{:.1f}" width="{:.1f}" height="{:.1f}"><title>{}: {:,} {}</title></rect>'
)
_RULE = Markup('<line class="grid" x1="{}" x2="{}" y1="{:.1f}" y2="{:.1f}"/>')
_TICK = Markup('<text class="tick" x="{:.1f}" y="{:.1f}" text-anchor="{}">{}</text>')


@dataclass(frozen=True, slots=True)
class Scale:
    """Maps values between two bounds to coordinates."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        """Return the coordinate of a value.

        >>> Scale(0, 10, 100, 0)(5), Scale(3, 3, 0, 10)(3)
        (50.0, 5.0)
        """
        if self.high == self.low:
            return (self.start + self.end) / 2
        return self.start + (value - self.low) / (self.high - self.low) * (self.end - self.start)


def sparkline(values: Sequence[float], says: str) -> Markup:
    """Return a line as wide as a word, for a cell of a table.

    Parameters
    ----------
    values
        in their order; nothing is drawn of fewer than two.
    says
        what it shows, in words.
    """
    if len(values) < 2:
        return Markup("")
    across, down = Scale(0, len(values) - 1, 2, 94), Scale(min(values), max(values), 20, 4)
    points = [(across(place), down(value)) for place, value in enumerate(values)]
    last_x, last_y = points[-1]
    return Markup(
        '<svg class="spark" viewBox="0 0 98 24" role="img" aria-label="{}">'
        '<path class="line" d="{}"/><circle cx="{:g}" cy="{:.1f}" r="2.2"/></svg>'
    ).format(says, _path(points), last_x, last_y)


def line_chart(lines: Mapping[str, Sequence[tuple[int, float]]], says: str) -> Markup:
    """Return lines over time.

    Parameters
    ----------
    lines
        by what each line is, its points: an instant in microseconds, and a value of 0 or more.
    says
        what it shows, in words.

    >>> chart = line_chart({"size": [(0, 1.0), (86_400_000_000, 3.0)]}, "from 1 to 3")
    >>> chart.count("<path"), "1970-01-02" in chart
    (1, True)
    """
    points = [point for line in lines.values() for point in line]
    if not points:
        return Markup("")
    first, last = min(at for at, _ in points), max(at for at, _ in points)
    top = _round_up(max(value for _, value in points))
    across = Scale(first, last, _LEFT, _WIDTH - _RIGHT)
    down = Scale(0, top, _HEIGHT - _BOTTOM, _TOP)
    parts = [_grid(top, down), _dates(first, last)]
    for number, line in enumerate(lines.values()):
        places = [(across(at), down(value)) for at, value in line]
        parts.append(_LINE.format(number, _path(places)))
        if len(places) <= 60:
            parts += [
                _DOT.format(number, x, y, _day(at), value) for (x, y), (at, value) in zip(places, line, strict=True)
            ]
    return _figure(parts, says)


def bar_chart(bars: Sequence[tuple[int, Mapping[str, int]]], kinds: Sequence[str], says: str) -> Markup:
    """Return bars over time, each of parts that stand on one another.

    Parameters
    ----------
    bars
        the instant at which each begins, in microseconds, and by kind how many there are.
    kinds
        the kinds, from the bottom up.
    says
        what it shows, in words.
    """
    if not bars:
        return Markup("")
    top = _round_up(max(sum(parts.values()) for _, parts in bars))
    down = Scale(0, top, _HEIGHT - _BOTTOM, _TOP)
    room = (_WIDTH - _LEFT - _RIGHT) / len(bars)
    width = max(1.0, min(32.0, room * 0.7))
    shapes = [_grid(top, down), _dates(bars[0][0], bars[-1][0])]
    for place, (at, parts) in enumerate(bars):
        x, below = _LEFT + room * place + (room - width) / 2, 0
        for number, kind in enumerate(kinds):
            size = parts.get(kind, 0)
            if size:
                y = down(below + size)
                shapes.append(_BAR.format(number, x, y, width, down(below) - y, _day(at), size, kind))
                below += size
    return _figure(shapes, says)


def share_bar(part: float, says: str) -> Markup:
    """Return a bar that is filled by a share from 0 to 1.

    >>> 'width="50"' in share_bar(0.5, "half")
    True
    """
    width = max(0.0, min(1.0, part)) * 100
    return Markup(
        '<svg class="share" viewBox="0 0 100 8" preserveAspectRatio="none" role="img" aria-label="{}">'
        '<rect class="ground" width="100" height="8"/><rect class="filled" width="{:g}" height="8"/></svg>'
    ).format(says, width)


def _figure(parts: Sequence[Markup], says: str) -> Markup:
    head = Markup('<svg class="chart" viewBox="0 0 {} {}" role="img" aria-label="{}">').format(_WIDTH, _HEIGHT, says)
    return head + Markup("").join(parts) + Markup("</svg>")


def _path(points: Sequence[tuple[float, float]]) -> str:
    return "M" + "L".join(f"{x:.1f},{y:.1f}" for x, y in points)


def _grid(top: float, down: Scale) -> Markup:
    lines = []
    for value in (0, top / 2, top):
        y = down(value)
        lines.append(_RULE.format(_LEFT, _WIDTH - _RIGHT, y, y))
        if value == int(value):
            lines.append(_TICK.format(_LEFT - 8, y + 4, "end", f"{value:,g}"))
    return Markup("").join(lines)


def _dates(first: int, last: int) -> Markup:
    y = _HEIGHT - 8
    texts = [_TICK.format(_LEFT, y, "start", _day(first))]
    if last > first:
        texts.append(_TICK.format(_WIDTH - _RIGHT, y, "end", _day(last)))
    return Markup("").join(texts)


def _day(at: int) -> str:
    return format_instant(at).removesuffix("T00:00:00Z").partition(".")[0].replace("T", " ").removesuffix("Z")


def _round_up(value: float) -> float:
    """Return a round number that is not below a value, and 1 at least.

    >>> [_round_up(value) for value in (0, 7, 23, 1_300, 0.4)]
    [1, 8, 40, 2000, 1]
    """
    size = 1
    while True:
        for step in (1, 2, 4, 6, 8):
            if size * step >= value:
                return size * step
        size *= 10
