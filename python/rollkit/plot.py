"""Pictures of layouts, with matplotlib: how full bins are, how long rows are."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import ArrayLike

from rollkit import _check
from rollkit._extras import extra
from rollkit._frameworks import AnyArray
from rollkit._rows.layout import ABSENT, Layout

SHADES: Final = ("#bfe3dd", "#6fbfb8", "#2f8f9d", "#1f5f85", "#1b3358")
"""Short rows to long ones."""
_EMPTY, _INK, _MUTED = "#eceae6", "#22303c", "#6b7780"
_MOST_BINS: Final = 300
"""More than these are drawn as one outline: their rows would be thinner than a pixel."""


def utilisation(
    layout: Layout | ArrayLike, capacity: int | None = None, *, ax: Any = None, **options: Any
) -> Any:
    """Draw bins as columns, filled with their rows; darker ones are longer, grey is padding.

    Beyond 300 bins their rows are left out, and bins go from the fullest to the emptiest.

    Args:
        layout: a layout of two dimensions, or `[rows]` lengths to pack.
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
        ax.xaxis.get_major_locator().set_params(integer=True)
    key = "grey: padding" if bins > _MOST_BINS else "darker: longer rows   grey: padding"
    ax.set_title(key, loc="right", color=_MUTED, fontsize="small", pad=10)
    told = f"{layout.utilisation:.1%}".replace("%", " %")
    noun = "bin" if bins == 1 else "bins"
    return _dress(ax, f"{bins:,} {noun} of {width:,} tokens: {told} used")


def lengths(layout: Layout | ArrayLike, *, ax: Any = None) -> Any:
    """Draw how many rows there are of each length, and where the median is.

    Args:
        layout: a layout, or `[rows]` lengths.
        ax: the matplotlib axes to draw on; the current ones of pyplot by default.

    Returns:
        The axes.
    """
    found = layout.row_lengths if isinstance(layout, Layout) else _check.lengths("layout", layout)
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
    ax.xaxis.get_major_locator().set_params(integer=True, nbins=6)
    ax.set_ylabel("rows")
    ax.yaxis.get_major_locator().set_params(integer=True)
    return _dress(ax, f"{len(found):,} {noun}, {int(found.sum()):,} tokens")


def overview(layout: Layout) -> Any:
    """Draw a layout's bins and its row lengths side by side; returns a matplotlib `Figure`."""
    figure = extra("matplotlib.figure", "plot").Figure(figsize=(11, 4.2), dpi=160, layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(1.9, 1))
    utilisation(layout, ax=left)
    lengths(layout, ax=right)
    figure.get_layout_engine().set(w_pad=0.12, h_pad=0.1)
    return figure


def _layout(found: Layout | ArrayLike, capacity: int | None, options: dict[str, Any]) -> Layout:
    if isinstance(found, Layout):
        if capacity is not None or options:
            raise TypeError("capacity and options are for lengths; the layout is planned already")
        if len(found.shape) != 2:
            raise ValueError(f"layout must have two dimensions, got shape {found.shape}")
        return found
    if capacity is None:
        raise TypeError("utilisation of lengths needs a capacity")
    return Layout.pack(found, capacity, **options)


def _axes(ax: Any) -> Any:
    if ax is None:
        return extra("matplotlib.pyplot", "plot").gca()
    if not isinstance(ax, extra("matplotlib.axes", "plot").Axes):
        raise TypeError(f"ax must be matplotlib's axes or None, got {type(ax).__name__}")
    return ax


def _draw_rows(ax: Any, layout: Layout) -> None:
    bins, width = layout.shape
    gap = 0.0 if bins > 120 else 0.07
    placed = (layout.starts != ABSENT) & (layout.lengths > 0)
    starts, sizes = layout.starts[placed], layout.lengths[placed]
    if bins:
        ax.bar(range(bins), width, 1 - 2 * gap, color=_EMPTY, zorder=1)
    left = starts // max(width, 1) - 0.5 + gap
    bottom = starts % max(width, 1)
    x = np.stack([left, left, left + 1 - 2 * gap, left + 1 - 2 * gap], axis=1)
    y = np.stack([bottom, bottom + sizes, bottom + sizes, bottom], axis=1)
    rows = extra("matplotlib.collections", "plot").PolyCollection(
        np.stack([x, y], axis=2),
        facecolors=_shades(sizes, layout.row_lengths.max(initial=1)),
        edgecolors="white",
        linewidths=0.7 if len(starts) < 2000 else 0.2,
        zorder=2,
    )
    ax.add_collection(rows)


def _draw_outline(ax: Any, layout: Layout) -> None:
    bins, width = layout.shape
    placed = layout.starts != ABSENT
    lines = np.minimum(layout.starts[placed] // max(width, 1), bins - 1)
    filled = np.sort(np.bincount(lines, layout.lengths[placed], minlength=bins))[::-1]
    ax.fill_between([-0.5, bins - 0.5], width, color=_EMPTY, linewidth=0, zorder=1)
    ax.stairs(filled, np.arange(bins + 1) - 0.5, fill=True, color=SHADES[2], zorder=2)


def _shades(sizes: AnyArray, most: float) -> Any:
    colours = extra("matplotlib.colors", "plot").LinearSegmentedColormap.from_list("rollkit", SHADES)
    return colours(sizes / max(float(most), 1.0))


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
