"""Pictures with matplotlib: how full bins are, how long rows are, what rows share."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import ArrayLike

from rollkit import _check
from rollkit._check import Int64s
from rollkit._extras import extra
from rollkit._frameworks import AnyArray
from rollkit._rollouts.forest import Forest
from rollkit._rows.layout import ABSENT, Layout
from rollkit._rows.trees import NONE, TreeLayout

SHADES: Final = ("#bfe3dd", "#6fbfb8", "#2f8f9d", "#1f5f85", "#1b3358")
"""Short rows to long ones; of trees, what one row has to what many share."""
_EMPTY, _INK, _MUTED = "#eceae6", "#22303c", "#6b7780"
_MOST_BINS: Final = 300
"""More than these are drawn as one outline: their rows would be thinner than a pixel."""
_MOST_NAMES: Final = 24
"""More rows than these have no number beside them, nor their nodes one within."""


def utilisation(
    layout: Layout | TreeLayout | ArrayLike, capacity: int | None = None, *, ax: Any = None, **options: Any
) -> Any:
    """Draw bins as columns, filled with their rows; darker ones are longer, grey is padding.

    Of a `TreeLayout`, bins are filled with nodes, each once; darker ones are of more rows. Beyond 300 bins
    what fills them is left out, and they go from the fullest to the emptiest.

    Args:
        layout: a layout of two dimensions, a `TreeLayout`, or `[rows]` lengths to pack.
        capacity: tokens of a bin; for lengths.
        ax: the matplotlib axes to draw on; the current ones of pyplot by default.
        **options: for `Layout.pack`; for lengths.

    Returns:
        The axes.

    Example:
        >>> utilisation([3, 7, 2], capacity=8).get_title(loc="left")
        '2 bins of 8 tokens: 75.0 % used'
    """
    layout = _layout(layout, capacity, options)
    ax = _axes(ax)
    bins, width = layout.shape
    if bins > _MOST_BINS:
        _draw_outline(ax, layout)
    else:
        _draw_rows(ax, layout)
    ax.set_xlim(-0.6, max(bins, 1) - 0.4)
    ax.set_ylim(0, width)
    ax.set_xlabel("bin" if bins <= _MOST_BINS else "bins, fullest first")
    ax.set_ylabel("tokens")
    if bins <= 1:
        ax.set_xticks(range(bins))  # there is no bin −1
    else:
        _count(ax.xaxis)
    kind = "longer rows" if isinstance(layout, Layout) else "of more rows"
    key = "grey: padding" if bins > _MOST_BINS else f"darker: {kind}   grey: padding"
    ax.set_title(key, loc="right", color=_MUTED, fontsize="small", pad=10)
    told = f"{layout.utilisation:.1%}".replace("%", " %")
    noun = "bin" if bins == 1 else "bins"
    return _dress(ax, f"{bins:,} {noun} of {width:,} tokens: {told} used")


def lengths(layout: Layout | TreeLayout | ArrayLike, *, ax: Any = None) -> Any:
    """Draw how many rows there are of each length, and where the median is.

    Args:
        layout: a layout, or `[rows]` lengths.
        ax: the matplotlib axes to draw on; the current ones of pyplot by default.

    Returns:
        The axes.
    """
    laid = layout.row_lengths if isinstance(layout, Layout | TreeLayout) else None
    found = _check.lengths("layout", layout) if laid is None else laid
    ax = _axes(ax)
    noun = "row" if len(found) == 1 else "rows"
    if len(found):
        counts, edges = np.histogram(found, bins=min(24, max(5, round(len(found) ** 0.5))))
        shades = _shades((edges[1:] + edges[:-1]) / 2, found.max())
        ax.bar(
            edges[:-1], counts, np.diff(edges), align="edge", color=shades, edgecolor="white", linewidth=0.8
        )
        median = float(np.median(found))
        ax.set_ylim(0, counts.max() * 1.16)
        ax.axvline(median, color=_INK, linewidth=1, linestyle=(0, (4, 3)))
        ax.annotate(
            f"median {median:,.1f}".removesuffix(".0"),
            (median, 1),
            xycoords=("data", "axes fraction"),
            xytext=(5, -4),
            textcoords="offset points",
            va="top",
            color=_INK,
            fontsize="small",
        )
    ax.set_xlabel("tokens of a row")
    _count(ax.xaxis, 6)
    ax.set_ylabel("rows")
    _count(ax.yaxis)
    return _dress(ax, f"{len(found):,} {noun}, {int(found.sum()):,} tokens")


def forest(found: Forest | TreeLayout, *, ax: Any = None) -> Any:
    """Draw what rows share: each node from where it begins to where it ends, as high as it has rows.

    A row is what a line across meets. Rows go down as trees do, depth first; darker nodes are of more rows.
    All that is drawn are the tokens of rows, of which a model computes one line in each box. Of a
    `TreeLayout`, the rows are bin by bin, and a node is drawn in each bin that has it.

    Args:
        found: the forest, or its layout.
        ax: the matplotlib axes to draw on; the current ones of pyplot by default.

    Returns:
        The axes.

    Example:
        >>> forest(Forest.build([[5, 6, 7], [5, 6, 8, 9], [4]])).get_title(loc="left")
        '3 rows: 6 of 8 tokens'
    """
    if not isinstance(found, Forest | TreeLayout):
        raise TypeError(f"found must be a Forest or a TreeLayout, got {type(found).__name__}")
    ax = _axes(ax)
    rows, tops, counts, begins, ends = _nodes(found)
    widths, named = ends - begins, len(rows) <= _MOST_NAMES
    shades = _shades_of_counts(counts)
    _draw_boxes(ax, begins, tops, widths, counts, shades, min(0.7, 60 / max(len(rows), 1)))
    if named:
        _name_boxes(ax, begins, tops, widths, counts, shades)
    if isinstance(found, TreeLayout):
        _part_bins(ax, found.row_bins[rows])
    ax.set_xlim(0, max(ends.max(initial=0), 1))
    ax.set_ylim(max(len(rows), 1), 0)
    ax.set_xlabel("tokens of a row")
    ax.set_ylabel("row" if named else "rows")
    _count(ax.xaxis)
    _count(ax.yaxis, 6)
    ax.set_title("darker: of more rows", loc="right", color=_MUTED, fontsize="small", pad=10)
    tokens, unique = int((widths * counts).sum()), int(widths.sum())
    noun = "row" if len(rows) == 1 else "rows"
    _dress(ax, f"{len(rows):,} {noun}: {unique:,} of {tokens:,} tokens")
    if named:
        ax.set_yticks(np.arange(len(rows)) + 0.5, rows.tolist())
    return ax


def overview(layout: Layout | TreeLayout) -> Any:
    """Draw a layout's bins, and its row lengths or trees beside them; returns a matplotlib `Figure`."""
    trees = isinstance(layout, TreeLayout)
    figure = extra("matplotlib.figure", "plot").Figure(figsize=(11, 4.2), dpi=160, layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(1.55 if trees else 1.9, 1))
    utilisation(layout, ax=left)
    if isinstance(layout, TreeLayout):
        forest(layout, ax=right).set_title("", loc="right", pad=10)  # what darker means is said on the left
    else:
        lengths(layout, ax=right)
    figure.get_layout_engine().set(w_pad=0.12, h_pad=0.1)
    return figure


def _layout(
    found: Layout | TreeLayout | ArrayLike, capacity: int | None, options: dict[str, Any]
) -> Layout | TreeLayout:
    if isinstance(found, Layout | TreeLayout):
        if capacity is not None or options:
            raise TypeError("capacity and options are for lengths; the layout is planned already")
        if len(found.shape) != 2:
            raise ValueError(f"layout must have two dimensions, got shape {found.shape}")
        return found
    if capacity is None:
        raise TypeError("utilisation of lengths needs a capacity")
    return Layout.pack(found, capacity, **options)


def _nodes(found: Forest | TreeLayout) -> tuple[Int64s, Int64s, Int64s, Int64s, Int64s]:
    """Rows in the order of their leaves; and of each node the first of them, how many, and begin and end."""
    if isinstance(found, TreeLayout):
        begins = found.nodes.pieces_of_rows()[1]
        ends = begins + found.nodes.lengths
    else:
        begins, ends = found.begins, found.ends
    rows = np.argsort(found.leaf, kind="stable")[np.count_nonzero(found.leaf == NONE) :]
    last = list(range(len(begins)))  # the last node below each: what is below follows it
    for node, parent in reversed([*enumerate(found.parents.tolist())]):
        if parent != NONE:
            last[parent] = max(last[parent], last[node])
    leaves = found.leaf[rows]
    tops = np.searchsorted(leaves, np.arange(len(begins)))
    return rows, tops, np.searchsorted(leaves, last, "right") - tops, begins, ends


def _axes(ax: Any) -> Any:
    if ax is None:
        return extra("matplotlib.pyplot", "plot").gca()
    if not isinstance(ax, extra("matplotlib.axes", "plot").Axes):
        raise TypeError(f"ax must be matplotlib's axes or None, got {type(ax).__name__}")
    return ax


def _count(axis: Any, most: int | str = "auto") -> None:
    """Ticks at whole numbers, whatever was drawn on the axes before."""
    locator = extra("matplotlib.ticker", "plot").MaxNLocator
    axis.set_major_locator(locator(most, integer=True, steps=[1, 2, 2.5, 5, 10]))


def _draw_rows(ax: Any, layout: Layout | TreeLayout) -> None:
    bins, width = layout.shape
    gap = 0.0 if bins > 120 else 0.07
    written = layout.written
    placed = (written.starts != ABSENT) & (written.lengths > 0)
    starts, sizes = written.starts[placed], written.lengths[placed]
    if isinstance(layout, TreeLayout):
        shades = _shades_of_counts(layout.multiplicity().reshape(-1)[starts])
    else:
        shades = _shades(sizes, layout.row_lengths.max(initial=1))
    if bins:
        ax.bar(range(bins), width, 1 - 2 * gap, color=_EMPTY, zorder=1)
    left, bottom = starts // max(width, 1) - 0.5 + gap, starts % max(width, 1)
    line = 0.7 if len(starts) < (2000 if isinstance(layout, Layout) else 100) else 0.2
    _draw_boxes(ax, left, bottom, np.full(len(starts), 1 - 2 * gap), sizes, shades, line)


def _draw_boxes(
    ax: Any, x: AnyArray, y: AnyArray, widths: AnyArray, heights: AnyArray, shades: Any, line: float
) -> None:
    corners = [(x, y), (x, y + heights), (x + widths, y + heights), (x + widths, y)]
    boxes = extra("matplotlib.collections", "plot").PolyCollection(
        np.stack([np.stack(corner, axis=1) for corner in corners], axis=1),
        facecolors=shades,
        edgecolors="white",
        linewidths=line,
        zorder=2,
    )
    ax.add_collection(boxes)


def _name_boxes(ax: Any, x: Int64s, y: Int64s, widths: Int64s, heights: Int64s, shades: Any) -> None:
    """Write how many tokens a node has, where there is room."""
    room = 0.018 * (x + widths).max(initial=1)  # of a digit
    for left, top, width, height, shade in zip(x, y, widths, heights, shades, strict=True):
        if width > room * len(text := f"{width:,}"):
            ink = "white" if shade[1] < 0.6 else _INK
            at = left + width / 2, top + height / 2
            ax.text(*at, text, ha="center", va="center", color=ink, fontsize="small")


def _part_bins(ax: Any, bins: Int64s) -> None:
    """Draw a line between bins, and name them."""
    firsts = np.flatnonzero(np.diff(bins, prepend=-1)).tolist()
    for row in firsts[1:]:
        ax.axhline(row, color=_INK, linewidth=0.8 if len(firsts) <= _MOST_NAMES else 0.25, zorder=3)
    for row in firsts if 1 < len(firsts) <= _MOST_NAMES else []:
        at = {"xycoords": ("axes fraction", "data"), "textcoords": "offset points", "va": "top"}
        ax.annotate(f"bin {bins[row]}", (1, row), (5, -2), color=_MUTED, fontsize="small", **at)


def _draw_outline(ax: Any, layout: Layout | TreeLayout) -> None:
    bins, width = layout.shape
    written = layout.written
    placed = written.starts != ABSENT
    lines = np.minimum(written.starts[placed] // max(width, 1), bins - 1)
    filled = np.sort(np.bincount(lines, written.lengths[placed], minlength=bins))[::-1]
    ax.fill_between([-0.5, bins - 0.5], width, color=_EMPTY, linewidth=0, zorder=1)
    ax.stairs(filled, np.arange(bins + 1) - 0.5, fill=True, color=SHADES[2], zorder=2)


def _shades(sizes: AnyArray, most: float) -> Any:
    colours = extra("matplotlib.colors", "plot").LinearSegmentedColormap.from_list("rollkit", SHADES)
    return colours(sizes / max(float(most), 1.0))


def _shades_of_counts(counts: AnyArray) -> Any:
    """From one row to the most of any node; twice as many are a step of the same size."""
    return _shades(np.log2(counts), np.log2(counts.max(initial=2)))


def _dress(ax: Any, title: str) -> Any:
    ax.set_title(title, loc="left", color=_INK, fontsize="medium", fontweight="bold", pad=10)
    ax.spines[["top", "right", "left"]].set_visible(False)
    ax.spines["bottom"].set_color(_MUTED)
    ax.tick_params(colors=_MUTED, labelsize="small", length=0)
    ax.xaxis.label.set_color(_MUTED)
    ax.yaxis.label.set_color(_MUTED)
    thousands = extra("matplotlib.ticker", "plot").StrMethodFormatter("{x:,.0f}")
    ax.yaxis.set_major_formatter(thousands)
    ax.xaxis.set_major_formatter(thousands)
    ax.set_axisbelow(True)
    return ax
