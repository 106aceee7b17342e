"""Packed bins for grain: `PackedSource` by number, and `Pack` of a stream.

    bins = rollkit.Bins(rollouts, 8192, names="maxtext")
    dataset = grain.MapDataset.source(PackedSource(bins)).seed(0).shuffle()[rank::ranks].batch(8)

Order, shards and checkpoints are grain's: a position is all there is to save, and `ElasticIterator` goes on
with any number of hosts. See docs/loaders.md.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import islice
from typing import Any, Final

from rollkit import _check
from rollkit._errors import at, refusal
from rollkit._extras import extra
from rollkit._frameworks import as_array
from rollkit._loading.bins import Bins
from rollkit._loading.digest import key
from rollkit._loading.sampler import check_state
from rollkit._rows.layout import Layout
from rollkit._rows.place import place

__all__ = ["Pack", "PackedSource"]

grain = extra("grain", "grain")
_IterDataset: Any = grain.IterDataset
_DatasetIterator: Any = grain.DatasetIterator

_NAMES: Final = {
    "grain": ("{}_segment_ids", "{}_positions"),
    "maxtext": ("{}_segmentation", "{}_position"),
}
_STATE: Final = ("parent", "window", "bin")


class PackedSource:
    """Bins as a source of grain: `grain.MapDataset.source(PackedSource(bins))`.

    Args:
        bins: `rollkit.Bins`, of `names="maxtext"` or `"grain"` for those who expect these. Elements are what
            `bins[i]` is: a dict of `[capacity]` arrays, of memory of their own.

    Raises:
        TypeError: they are none.

    Example:
        >>> import grain
        >>> bins = Bins({"response_ids": [[1, 2, 3], [4, 5]]}, 5, names="maxtext")
        >>> grain.MapDataset.source(PackedSource(bins))[0]["targets"]
        array([2, 3, 0, 5, 0], dtype=int32)
    """

    def __init__(self, bins: Bins) -> None:
        if not isinstance(bins, Bins):
            raise TypeError(f"bins must be rollkit.Bins, got {type(bins).__name__}; Bins(rollouts, capacity)")
        self.bins = bins

    def __len__(self) -> int:
        return len(self.bins)

    def __getitem__(self, number: Any) -> dict[str, Any]:
        found: dict[str, Any] = self.bins[number]
        return found

    def _getitems(self, numbers: Sequence[int]) -> list[dict[str, Any]]:
        """Several bins in one call, which grain's `batch` makes of it."""
        return self.bins.__getitems__(numbers)

    def __repr__(self) -> str:
        """What grain compares when a checkpoint is read: the same for the same data alone."""
        return f"PackedSource(plan={self.bins.plan!r}, bins={len(self)}, capacity={self.bins.capacity})"


class Pack(_IterDataset):  # type: ignore[misc]
    """Packs elements of a grain dataset into bins: what `FirstFitPackIterDataset` makes, fuller and sooner.

    `buffer` elements are read, planned together, longest first, and come out as bins in random order; then
    the next. What has a length and fits in memory is better packed as a whole: `PackedSource`.

    Args:
        parent: a `grain.IterDataset` (or `MapDataset`) of dicts of arrays.
        features: the names of the arrays that are packed, all as long as each other in each element. Others
            are left out.
        capacity: elements of a bin.
        buffer: elements of the dataset that are planned together. With many to a bin, and some hundred of
            bins, these are more than 99 % full.
        names: `"grain"`: each feature `x` with `x_segment_ids` and `x_positions`; or `"maxtext"`: with
            `x_segmentation` and `x_position`.
        seed: of the order of bins.
        fills: what padding holds, by feature; 0 by default.

    Raises:
        TypeError: `parent` is no dataset of grain, or `features` are no names.
        ValueError: an option is out of range. When iterated: an element lacks a feature, its features differ
            in length, or are longer than `capacity`; the element is named, counted from the first.

    Example:
        >>> import grain, numpy as np
        >>> rows = grain.MapDataset.source([{"inputs": np.arange(1, n + 1)} for n in (2, 3, 1)])
        >>> for bin in Pack(rows.to_iter_dataset(), features=["inputs"], capacity=6):
        ...     print(bin["inputs"], bin["inputs_segment_ids"])
        [1 2 1 2 3 1] [1 1 2 2 2 3]
    """

    def __init__(
        self,
        parent: Any,
        *,
        features: Sequence[str],
        capacity: int,
        buffer: int = 1024,
        names: str = "grain",
        seed: int = 0,
        fills: Mapping[str, Any] | None = None,
    ) -> None:
        if isinstance(parent, grain.MapDataset):
            parent = parent.to_iter_dataset()
        if not isinstance(parent, grain.IterDataset):
            raise TypeError(f"parent must be a dataset of grain, got {type(parent).__name__}")
        super().__init__(parent)
        features = _check.items("features", features)
        if not features:
            raise ValueError("features is empty; a bin has at least one")
        for name in features:
            if not isinstance(name, str):
                raise TypeError(f"features must be names, got {type(name).__name__}")
        self._features = tuple(dict.fromkeys(features))
        self._capacity = _check.positive("capacity", capacity)
        self._buffer = _check.positive("buffer", buffer)
        self._names = _check.choice("names", names, tuple(_NAMES))
        self._seed = _check.positive("seed", seed, least=0)
        self._fills = dict(_check.mapping("fills", fills))
        for name in self._fills:
            if name not in self._features:
                known = ", ".join(map(repr, self._features))
                raise ValueError(f"fills has {name!r}, which is no feature; there are {known}")

    def __iter__(self) -> Any:
        return _PackIterator(iter(self._parent), self)

    def _planned(self, number: int, elements: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """The bins of elements that are planned together: arrays `[bins, capacity]`."""
        first = number * self._buffer
        columns = {
            name: [_feature(first + i, x, name) for i, x in enumerate(elements)] for name in self._features
        }
        lengths = [len(row) for row in columns[self._features[0]]]
        for name, rows in columns.items():
            for i, row in enumerate(rows):
                if len(row) != lengths[i]:
                    text = f" has {len(row)} elements, {self._features[0]!r} has {lengths[i]}"
                    raise refusal(ValueError, text, row=first + i, column=name, label=f"feature {name!r}")
        with at(first_row=first):
            layout = Layout.pack(lengths, self._capacity, order="shuffled", seed=key(self._seed, number))
        made: dict[str, Any] = {}
        segment_ids, positions = layout.segment_ids(), layout.positions()
        for name, rows in columns.items():
            segments, places = (text.format(name) for text in _NAMES[self._names])
            with at(column=name, label=f"feature {name!r}", first_row=first):
                made[name] = place(rows, layout, self._fills.get(name, 0))
            made |= {segments: segment_ids, places: positions}
        return made

    def __str__(self) -> str:
        return f"Pack(features={list(self._features)}, capacity={self._capacity}, buffer={self._buffer})"


class _PackIterator(_DatasetIterator):  # type: ignore[misc]
    """Bins of one window after the other; the state is where the window began, and which bin comes next."""

    def __init__(self, parent: Any, pack: Pack) -> None:
        super().__init__(parent)
        self._pack = pack
        self._go_to(parent.get_state(), 0, 0)

    def _go_to(self, parent: Any, window: int, bin: int) -> None:
        self._before, self._window, self._bin = parent, window, bin
        self._made: dict[str, Any] | None = None  # the bins of this window, once they are asked for

    def __next__(self) -> dict[str, Any]:
        while self._made is None:
            elements = list(islice(self._parent, self._pack._buffer))
            if not elements:
                raise StopIteration
            self._made = self._pack._planned(self._window, elements)
            self._count = len(next(iter(self._made.values())))
            if self._bin > self._count:
                raise ValueError(
                    f"state['bin'] is {self._bin}, this window has {self._count} bins: it was saved for "
                    "other data, or another capacity or buffer"
                )
            self._end_of_window()
        found = {name: array[self._bin] for name, array in self._made.items()}
        self._bin += 1
        self._end_of_window()
        return found

    def _end_of_window(self) -> None:
        """Go to the next window after the last bin, so that a state there reads no window for nothing."""
        if self._bin >= self._count:
            self._go_to(self._parent.get_state(), self._window + 1, 0)

    def get_state(self) -> dict[str, Any]:
        return {"parent": self._before, "window": self._window, "bin": self._bin}

    def set_state(self, state: Mapping[str, Any]) -> None:
        check_state(state, _STATE, "get_state")
        self._parent.set_state(state["parent"])
        window, bin = (_check.positive(f"state[{name!r}]", state[name], least=0) for name in _STATE[1:])
        self._go_to(state["parent"], window, bin)


def _feature(row: int, element: Any, name: str) -> Any:
    """A feature of an element, as an array."""
    if not isinstance(element, Mapping) or name not in element:
        got = ", ".join(map(repr, element)) if isinstance(element, Mapping) else type(element).__name__
        raise refusal(ValueError, f" has no feature {name!r}; it has {got}", row=row, before="parent: ")
    found = as_array(element[name])
    if not hasattr(found, "__len__") or getattr(found, "ndim", 1) == 0:
        raise refusal(
            TypeError,
            f" is {type(found).__name__}, expected an array",
            row=row,
            column=name,
            label=f"feature {name!r}",
        )
    return found
