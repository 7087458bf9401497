"""Draw the figures of a comparison by matplotlib: PDF and PNG for papers, SVG in the page's colors for the page."""

from __future__ import annotations

import io
import math
import re
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib.resources import as_file, files
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from ..attributes import ATTRIBUTES
from ..wholefile import make_folder, replacing
from .pictures import Box, cut, read_pixels, relative_box
from .result import FULL_REFERENCE, INPUT, REFERENCE, Comparison
from .significance import FEWEST, Matrix, resample_means
from .tables import ordered_measures

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Draw: TypeAlias = "Callable[[Axes], None]"

# Okabe and Ito's colors, told apart by color-blind readers and on light and dark pages.
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#8C6D31", "#7F7F7F")
INK, LINE = "#010203", "#c0c1c2"  # stand-ins in the page's SVG for its text and line colors
PANEL = 3.3  # inches wide
POINTS = 80  # pictures up to which each is drawn
LONGEST = 22  # letters of a method's name
SHOWN = 3  # pictures in the figure of strips
PAGE: dict[str, Any] = {
    "text.color": INK,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.facecolor": "none",
    "figure.facecolor": "none",
}


@contextmanager
def style(**more: Any) -> Iterator[Any]:
    """Yield matplotlib's Figure with this module's style, whatever the user's own is."""
    import matplotlib
    from matplotlib.figure import Figure

    with warnings.catch_warnings(), matplotlib.rc_context():
        matplotlib.rcdefaults()
        with as_file(files(__package__) / "template" / "figures.mplstyle") as path:
            settings: Any = {**matplotlib.rc_params_from_file(path, use_default_template=False), **more}
        matplotlib.rcParams.update(settings)
        warnings.filterwarnings("ignore", message="Glyph")  # of file names in scripts that the font lacks
        yield Figure


def plain(text: str) -> str:
    """Shorten a name, and keep matplotlib from reading it as mathematics."""
    text = "".join(character if character.isprintable() else " " for character in text)
    text = text if len(text) <= LONGEST else text[: LONGEST - 1] + "…"
    return text.replace("$", r"\$")


def color(index: int) -> str:
    """Return a method's color."""
    return COLORS[index % len(COLORS)]


def panels(comparison: Comparison) -> dict[str, dict[str, Draw]]:
    """Return the panels of each figure by title, each a function that draws it into axes."""
    measures = ordered_measures(comparison)
    found: dict[str, dict[str, Draw]] = {
        "ranking": {name: _bind(draw_ranking, comparison, name) for name in measures},
        "distributions": {name: _bind(draw_distribution, comparison, name) for name in measures},
    }
    if comparison.attributes:
        found["attributes"] = {"attributes": lambda axes: draw_attributes(axes, comparison)}
    if comparison.agreement:
        figures = [name for name in measures if comparison.measures[name].needs == FULL_REFERENCE]
        found["agreement"] = {name: _bind(draw_agreement, comparison, name) for name in figures}
    return found


def _bind(draw: Callable[[Axes, Comparison, str], None], comparison: Comparison, name: str) -> Draw:
    return lambda axes: draw(axes, comparison, name)


def panel_height(figure: str, comparison: Comparison) -> float:
    """Return the height of one panel in inches."""
    if figure == "attributes":
        return 0.9 + len(ATTRIBUTES) * max(0.34, 0.1 * len(comparison.methods))
    if figure == "agreement":
        metrics = sum(measure.needs != FULL_REFERENCE for measure in comparison.measures.values())
        return 0.75 + 0.24 * metrics
    return 0.75 + 0.24 * len(comparison.methods)


def draw_ranking(axes: Axes, comparison: Comparison, name: str) -> None:
    """Draw means with their 95 % intervals, the best method on top."""
    measure, found = comparison.measures[name], comparison.statistics[name]
    order = sorted(range(len(comparison.methods)), key=lambda index: int(found.rank[index]))
    for place, index in enumerate(order):
        if np.isfinite(found.interval[index]).all():
            axes.plot(found.interval[index], [place, place], color=color(index), linewidth=2, solid_capstyle="round")
        axes.plot(found.mean[index], place, "o", color=color(index), markersize=5)
    _name_rows(axes, [comparison.methods[index] for index in order])
    axes.set_title(f"{plain(name)} {measure.arrow}")


def draw_distribution(axes: Axes, comparison: Comparison, name: str) -> None:
    """Draw every picture's score, or 5 to 95 % of many; the box holds the middle half."""
    measure, scores = comparison.measures[name], comparison.scores[name]
    for index in range(len(comparison.methods)):
        values = scores[:, index]
        low, first, middle, third, high = np.percentile(values, [5, 25, 50, 75, 95])
        if len(values) <= POINTS:
            jitter = np.random.default_rng(0).uniform(-0.28, 0.28, len(values))
            axes.plot(values, index + jitter, "o", color=color(index), markersize=3, alpha=0.55, markeredgewidth=0)
        else:
            axes.plot([low, high], [index, index], color=color(index), linewidth=1)
        axes.barh(index, third - first, left=first, height=0.5, color=color(index), alpha=0.22)
        axes.plot([middle, middle], [index - 0.25, index + 0.25], color=color(index), linewidth=2)
    _name_rows(axes, comparison.methods)
    axes.set_title(f"{plain(name)} {measure.arrow}")


def draw_attributes(axes: Axes, comparison: Comparison) -> None:
    """Draw each method's mean of each attribute with its 95 % interval; input and reference are hollow."""
    count = len(comparison.methods)
    for index, method in enumerate(comparison.methods):
        values = comparison.attributes[method]  # (N, 6)
        offset = (index - (count - 1) / 2) * min(0.2, 0.7 / count)
        rows = np.arange(len(ATTRIBUTES)) + offset
        if len(values) >= FEWEST:
            low, high = np.percentile(resample_means(values, comparison.draws), [2.5, 97.5], axis=0)
            axes.hlines(rows, low, high, color=color(index), linewidth=1.5)
        axes.plot(values.mean(0), rows, "o", color=color(index), markersize=4.5, label=plain(method))
    for label, marker in ((INPUT, "v"), (REFERENCE, "s")):
        if label in comparison.attributes:
            means = comparison.attributes[label].mean(0)
            axes.plot(
                means, range(len(ATTRIBUTES)), marker, color="#888888", fillstyle="none", label=label, markersize=5
            )
    _name_rows(axes, [name.replace("_", " ") for name in ATTRIBUTES])
    axes.set_xlim(0.9, 5.1)
    axes.set_xticks(range(1, 6))
    axes.figure.legend(loc="outside upper left", ncols=3, handletextpad=0.2, columnspacing=1.2)


def draw_agreement(axes: Axes, comparison: Comparison, figure: str) -> None:
    """Draw the share of pairs of methods that each metric orders as a full-reference figure does, with intervals."""
    rows = [row for row in comparison.agreement if row.figure == figure]
    for place, row in enumerate(rows):
        if row.pairs_interval is not None:
            axes.plot(row.pairs_interval, [place, place], color=COLORS[0], linewidth=2, solid_capstyle="round")
        axes.plot(row.pairs, place, "o", color=COLORS[0], markersize=5)
    axes.axvline(0.5, color=INK, linewidth=0.8, linestyle=(0, (3, 3)))
    _name_rows(axes, [row.measure for row in rows])
    axes.set_xlim(-0.03, 1.03)
    axes.set_xticks([0, 0.25, 0.5, 0.75, 1], ["0", "25", "50", "75", "100 %"])
    axes.set_title(f"same order as {plain(figure)}")


def _name_rows(axes: Axes, names: Sequence[str]) -> None:
    """Label rows, the first on top."""
    axes.set_yticks(range(len(names)), [plain(name) for name in names])
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.locator_params(axis="x", nbins=5)


def svg(draw: Draw, height: float) -> str:
    """Return a panel as SVG for the page, with the page's text color and font and without ids."""
    with style(**PAGE) as figure_class:
        figure = figure_class(figsize=(PANEL, height))
        draw(figure.add_subplot())
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<!--.*?-->|<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r'<(g|svg) ([^>]*?)id="[^"]*"', r"<\1 \2", text)
    text = re.sub(r'<svg ([^>]*?)width="[^"]*"', r"<svg \1", text)
    text = re.sub(r'<svg ([^>]*?)height="[^"]*"', r"<svg \1", text)
    return text.replace(INK, "currentColor").replace(LINE, "var(--line)")


def write_figures(comparison: Comparison, folder: Path, crop: Box | None, show: Sequence[str] | None) -> list[str]:
    """Write every figure as PDF and PNG; return their names."""
    make_folder(folder)
    black = {key: "black" for key, value in PAGE.items() if value == INK}
    with style(**black, **{"grid.color": "#dddddd"}) as figure_class:
        figures = {
            name: _grid(figure_class, list(parts.values()), panel_height(name, comparison))
            for name, parts in panels(comparison).items()
        }
        figures["strips"] = draw_strips(figure_class, comparison, crop, show)
        for name, figure in figures.items():
            with replacing(folder / f"{name}.pdf") as new:
                figure.savefig(new, format="pdf", metadata={"CreationDate": None})
            with replacing(folder / f"{name}.png") as new:
                figure.savefig(new, format="png")
    return list(figures)


def _grid(figure_class: type[Figure], draws: Sequence[Draw], height: float) -> Figure:
    """Draw panels in rows of at most three."""
    columns = min(3, len(draws))
    rows = math.ceil(len(draws) / columns)
    figure = figure_class(figsize=(PANEL * columns, height * rows))
    for place, draw in enumerate(draws):
        draw(figure.add_subplot(rows, columns, place + 1))
    return figure


def draw_strips(
    figure_class: type[Figure], comparison: Comparison, crop: Box | None, show: Sequence[str] | None
) -> Figure:
    """Draw pictures in rows with their crops beneath: input, methods and reference side by side."""
    names = list(show) if show else [comparison.names[index] for index in most_different(comparison.spread)]
    for name in names:
        if name not in comparison.names:
            raise ValueError(f"no picture {name!r} to show; there are {', '.join(comparison.names[:8])}, ...")
    labels = comparison.labels
    rows = [{label: read_pixels(comparison.files[label][name]) for label in labels} for name in names]
    ratios = [pictures[comparison.methods[0]].shape[0] / pictures[comparison.methods[0]].shape[1] for pictures in rows]

    width = 1.45  # inches of one picture
    figure = figure_class(figsize=(width * len(labels), sum(2 * width * ratio for ratio in ratios) + 0.25))
    layout: Any = figure.get_layout_engine()
    layout.set(w_pad=0.015, h_pad=0.015, wspace=0, hspace=0)
    grid = figure.add_gridspec(
        2 * len(rows), len(labels), height_ratios=[r for ratio in ratios for r in (ratio, ratio)]
    )
    for row, (name, pictures) in enumerate(zip(names, rows, strict=True)):
        box = relative_box(pictures, comparison.methods, crop, name)
        for column, label in enumerate(labels):
            top = figure.add_subplot(grid[2 * row, column])
            _show(top, pictures[label])
            _outline(top, pictures[label].shape, box)
            if row == 0:
                top.set_title(plain(label), fontsize=8, loc="center", fontweight="normal")
            _show(figure.add_subplot(grid[2 * row + 1, column]), cut(pictures[label], box))
    return figure


def most_different(spread: Matrix) -> list[int]:
    """Return the indices of the ``SHOWN`` pictures on which methods differ most."""
    return [int(index) for index in np.argsort(-spread, kind="stable")[:SHOWN]]


def _show(axes: Axes, pixels: Any) -> None:
    axes.imshow(pixels, aspect="auto", interpolation="nearest")
    axes.set_axis_off()


def _outline(axes: Axes, shape: Sequence[int], box: Sequence[float]) -> None:
    """Draw the crop's border in white on black, visible on dark and light pictures."""
    from matplotlib.patches import Rectangle

    height, width = shape[:2]
    x, y, w, h = box
    for edge, line in (("black", 2.0), ("white", 1.0)):
        axes.add_patch(
            Rectangle((x * width, y * height), w * width, h * height, fill=False, edgecolor=edge, linewidth=line)
        )
