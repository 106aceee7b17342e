"""Pictures: what is drawn is what the layout says."""

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rollkit import Layout, plot

pytest.importorskip("matplotlib")


@pytest.fixture
def ax() -> Any:
    from matplotlib.figure import Figure

    return Figure().subplots()


def test_every_row_is_drawn_where_it_is(ax: Any) -> None:
    layout = Layout.pack([6, 9, 3, 0, 8], 8, oversize="drop")
    assert plot.utilisation(layout, ax=ax) is ax
    (rows,) = ax.collections
    drawn = {
        (round(path.vertices[:, 0].mean()), path.vertices[:, 1].min(), np.ptp(path.vertices[:, 1]))
        for path in rows.get_paths()
    }
    placed = layout.lengths > 0
    starts, lengths = layout.starts[placed], layout.lengths[placed]
    assert drawn == set(zip(starts // 8, starts % 8, lengths, strict=True))
    assert ax.get_title(loc="left") == "3 bins of 8 tokens: 70.8 % used"
    assert ax.get_ylim() == (0, 8)


def test_many_bins_are_an_outline(ax: Any) -> None:
    lengths = np.arange(1, 1001)
    plot.utilisation(lengths, capacity=1000, ax=ax, algorithm="next_fit")
    (outline,) = ax.patches
    heights = outline.get_data().values
    assert (np.diff(heights) <= 0).all()
    assert heights.sum() == lengths.sum()


@pytest.mark.parametrize("found", [[], [0], [5], [5, 5, 5], list(range(100))])
def test_lengths(ax: Any, found: list[int]) -> None:
    plot.lengths(found, ax=ax)
    assert sum(bar.get_height() for bar in ax.patches) == len(found)
    assert f"{sum(found):,} tokens" in ax.get_title(loc="left")


@pytest.mark.parametrize("lengths", [[], [0], [8], [3, 5, 8, 0]])
def test_overview_of_edge_cases(tmp_path: Path, lengths: list[int]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        plot.overview(Layout.pack(lengths, 8)).savefig(tmp_path / "bins.png")
    assert (tmp_path / "bins.png").stat().st_size > 1000


@pytest.mark.parametrize(
    ("arguments", "error", "said"),
    [
        (([1],), TypeError, "needs a capacity"),
        ((Layout.pack([1], 4), 8), TypeError, "planned already"),
        ((Layout.concat([1]),), ValueError, "two dimensions"),
    ],
)
def test_wrong_inputs(arguments: Any, error: type[Exception], said: str) -> None:
    with pytest.raises(error, match=said):
        plot.utilisation(*arguments)
