# SPDX-License-Identifier: Apache-2.0
"""Figures as files: SVG for a page, which takes the page's colours, and PNG for a paper. The same bytes every time."""

import io
import re
import warnings
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

PALETTE = (
    *("#4c8edb", "#e5893a", "#45a868", "#d65f5f", "#9472cc", "#a37b5c", "#d877b8", "#3db3bd", "#b3a62f", "#7d8896"),
)
"""Colours that differ from their neighbours, and from both a white and a black page."""
PNG_DPI = 200


@dataclass(frozen=True, kw_only=True)
class Ink:
    """Colours of lines and text. strong: text and axes. faint: grid lines. page: behind everything."""

    strong: str
    faint: str
    page: str


PAPER = Ink(strong="#15191e", faint="#d4d9df", page="#ffffff")
_PAGE = Ink(strong="#010203", faint="#040506", page="none")
"""Colours that stand for those of the page, which only the reader's browser knows."""
_OF_THE_PAGE = {_PAGE.strong: "currentColor", _PAGE.faint: "var(--line)"}

Draw = Callable[[Ink], Figure]


def svg(draw: Draw, name: str) -> str:
    """A figure as an `<svg>` element for a page that sets `color` and `--line`. name: makes its ids its own."""
    buffer = io.StringIO()
    with _settings():
        draw(_PAGE).savefig(
            buffer,
            format="svg",
            transparent=True,
            metadata={"Creator": None, "Date": None, "Format": None, "Type": None},
        )
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    for stand_in, colour in _OF_THE_PAGE.items():
        text = text.replace(stand_in, colour)
    # Ids are unique within a figure; several of them share the page.
    text = re.sub(r'(?<= id=")', f"{name}-", text)
    return re.sub(r'(?<=href="#)|(?<=url\(#)', f"{name}-", text)


def png(draw: Draw) -> bytes:
    """A figure as a PNG file, on white."""
    buffer = io.BytesIO()
    with _settings():
        draw(PAPER).savefig(buffer, format="png", dpi=PNG_DPI, facecolor=PAPER.page, metadata={"Software": None})
    return buffer.getvalue()


def plain_axes(figure: Figure, ink: Ink) -> Axes:
    """Axes with only what is needed: two lines and a faint grid behind the data."""
    axes = figure.add_subplot()
    style_axes(axes, ink)
    return axes


def style_axes(axes: Axes, ink: Ink) -> None:
    """The look of all axes."""
    axes.set_facecolor("none")
    axes.set_axisbelow(True)
    axes.grid(True, color=ink.faint, linewidth=0.6)
    for side, line in axes.spines.items():
        line.set_visible(side in ("left", "bottom"))
        line.set_color(ink.strong)
        line.set_linewidth(0.7)
    axes.tick_params(which="both", colors=ink.strong, length=3, width=0.6, labelsize=8)
    axes.xaxis.label.set_color(ink.strong)
    axes.yaxis.label.set_color(ink.strong)


def thousands(value: float, _: object = None) -> str:
    """An axis label: 1,234,567 as 1.23M."""
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:.3g}{unit}"
    return f"{value:.3g}"


@contextmanager
def _settings() -> Generator[None]:
    """Names are text and not formulas; glyphs that the font lacks show as boxes; ids depend on the content only."""
    settings: dict[Any, Any] = {
        "font.family": "DejaVu Sans",
        "font.size": 8.5,
        "text.parse_math": False,
        "axes.unicode_minus": False,
        "svg.fonttype": "none",
        "svg.hashsalt": "loomwork",
        "figure.constrained_layout.use": True,
    }
    with mpl.rc_context(settings), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from", category=UserWarning)
        yield
