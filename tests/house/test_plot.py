"""Pictures: what is drawn is what the layout says."""

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rollkit import Forest, Layout, TreeLayout, plot

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


def boxes(ax: Any) -> set[tuple[float, float, float, float]]:
    """Left, bottom, width and height of all that is drawn as boxes."""
    (found,) = ax.collections
    corners = [path.vertices for path in found.get_paths()]
    return {(*corner.min(0).tolist(), *np.ptp(corner, axis=0).tolist()) for corner in corners}


ROWS = [[5, 6, 7], [4], [5, 6, 8, 9], [], [5, 6], [5, 6, 7]]


def test_every_node_is_drawn_as_long_as_it_is_and_as_high_as_it_has_rows(ax: Any) -> None:
    assert plot.forest(Forest.build(ROWS), ax=ax) is ax
    assert boxes(ax) == {(0, 0, 2, 4), (2, 1, 1, 2), (2, 3, 2, 1), (0, 4, 1, 1)}
    assert [label.get_text() for label in ax.get_yticklabels()] == ["4", "0", "5", "2", "1"]
    assert ax.get_title(loc="left") == "5 rows: 6 of 13 tokens"
    (dark, *light) = np.unique(ax.collections[0].get_facecolors()[:, :3].sum(1))
    assert len(light) == 2, "of four rows, of two, of one"
    assert dark == ax.collections[0].get_facecolors()[0, :3].sum()


def test_bins_of_trees_are_apart(ax: Any) -> None:
    layout = Forest.build(ROWS).pack(4)
    assert layout.shape[0] == 2
    plot.forest(layout, ax=ax)
    assert sum(width * height for *_, width, height in boxes(ax)) == 13
    assert [text.get_text() for text in ax.texts if "bin" in text.get_text()] == ["bin 0", "bin 1"]
    assert len(ax.lines) == 1
    found = layout.row_bins[[int(label.get_text()) for label in ax.get_yticklabels()]]
    assert (np.diff(found) >= 0).all()


def test_bins_are_filled_with_nodes(ax: Any) -> None:
    layout = Forest.build(ROWS).pack(8)
    plot.utilisation(layout, ax=ax)
    assert {(bottom, height) for _, bottom, _, height in boxes(ax)} == {(0, 2), (2, 1), (3, 2), (5, 1)}
    assert ax.get_title(loc="left") == "1 bin of 8 tokens: 75.0 % used"


def test_lengths_of_trees_are_those_of_rows(ax: Any) -> None:
    plot.lengths(Forest.build(ROWS).pack(8), ax=ax)
    assert ax.get_title(loc="left") == "6 rows, 13 tokens"


@pytest.mark.parametrize("rows", [[], [[]], [[1]], [[1, 2]] * 3, [[i, 1] for i in range(400)], ROWS])
@pytest.mark.parametrize("capacity", [4, 400])
def test_forests_of_edge_cases(tmp_path: Path, rows: list[list[int]], capacity: int) -> None:
    layout = Forest.build(rows).pack(capacity)
    assert isinstance(layout, TreeLayout)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        plot.overview(layout).savefig(tmp_path / "bins.png")
    assert (tmp_path / "bins.png").stat().st_size > 1000


def test_one_picture_over_another(ax: Any) -> None:
    """Axes that had ticks of their own get others."""
    for _ in range(2):
        plot.forest(Forest.build(ROWS), ax=ax)
        plot.lengths([1, 2, 3], ax=ax)
        plot.utilisation([1], capacity=4, ax=ax)
        plot.utilisation([4, 4, 4], capacity=4, ax=ax)
        plot.forest(Forest.build([[i] for i in range(99)]), ax=ax)


def test_what_is_no_forest_is_refused() -> None:
    with pytest.raises(TypeError, match="found must be a Forest or a TreeLayout, got Layout"):
        plot.forest(Layout.pack([1], 4))  # type: ignore[arg-type]


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
