"""Drawing for reports, with matplotlib: one look for all pictures, and the same bytes for the same data.

>>> with drawing(4, 3) as (figure, axes):
...     _ = axes.plot([1, 2, 3], [2, 3, 5])
...     svg = as_svg(figure)
>>> svg.startswith("<svg")
True
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator
from importlib.util import find_spec
from typing import Any

from rules_engine.errors import MissingExtraError

#: Colours that people with any colour vision can tell apart: M. Okabe and K. Ito, "Color Universal Design" (2008),
#: then darker ones for those who need more than seven.
COLOURS = (
    "#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#7A6A00",
    "#332288", "#882255", "#117733", "#AA4499", "#44AA99", "#999933", "#661100",
)  # fmt: skip
GREY = "#9aa4b0"
INK = "#1c2430"

_STYLE: Any = {
    "axes.edgecolor": "#c3cbd4",
    "axes.grid": True,
    "axes.labelcolor": INK,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlelocation": "left",
    "axes.titlesize": 12,
    "axes.titleweight": "bold",
    "axes.axisbelow": True,
    "figure.dpi": 100,
    "font.family": "sans-serif",
    "font.size": 10.5,
    "grid.color": "#e8ecf0",
    "legend.frameon": False,
    "svg.hashsalt": "segments",  # ids inside the file are the same each time
    "text.color": INK,
    "xtick.color": "#5a6675",
    "ytick.color": "#5a6675",
}


def colour(position: int) -> str:
    """Return the colour of the cluster or the curve at a position, from 0 on."""
    return COLOURS[position % len(COLOURS)]


def can_draw() -> bool:
    """Return whether matplotlib is installed."""
    return find_spec("matplotlib") is not None


@contextlib.contextmanager
def drawing(width: float = 6.0, height: float = 4.0, **subplots: Any) -> Iterator[tuple[Any, Any]]:
    """Return a figure and its axes, in our style as long as the block lasts: draw and save inside it.

    No window and no global state: the figure goes when nobody holds it any more.

    Parameters
    ----------
    width, height
        in inches.
    subplots
        as matplotlib's ``Figure.subplots`` takes them.

    Raises
    ------
    MissingExtraError
        if matplotlib is not installed.
    """
    if not can_draw():
        raise MissingExtraError("matplotlib", "plots", "a picture")
    import matplotlib as mpl
    from matplotlib.figure import Figure

    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(width, height), layout="constrained")
        yield figure, figure.subplots(**subplots)


def as_svg(figure: Any) -> str:
    """Return the figure as an SVG document; for lines, bars and text."""
    written = io.StringIO()
    figure.savefig(written, format="svg", metadata={"Date": None, "Creator": None})
    text = written.getvalue()
    return text[text.index("<svg") :]


def as_png(figure: Any) -> bytes:
    """Return the figure as a PNG file; for thousands of points."""
    written = io.BytesIO()
    figure.savefig(written, format="png", dpi=170, metadata={"Software": None})
    return written.getvalue()
