"""A rank's part of a plan, from the chunks that have its rows: `execute`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import deepcopy
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import DTypeLike

from rollkit import _check
from rollkit._batch.batch import Batch, spare_of
from rollkit._batch.fill import MADE, PACKED, Filling, asked
from rollkit._check import Int64s
from rollkit._errors import TELLING, refusal, retold, row_of
from rollkit._frameworks import AnyArray
from rollkit._rollouts.columns import joined_entries, take_column
from rollkit._rollouts.names import Names, check_names, renamed
from rollkit._rollouts.other_masks import warn_of_other_masks
from rollkit._rollouts.sources import Sources
from rollkit._rows.layout import Layout
from rollkit._rows.parts import Parts, end_to_end
from rollkit._rows.ragged import Ragged, trusted
from rollkit.ray._chunk import refs_of
from rollkit.ray._fetch import Part, Wanted, fetched
from rollkit.ray._plan import RankPlan

_PLAIN: Final = (str, bytes, int, float, bool, type(None), np.generic)
"""Entries of lists that are no views of a chunk."""


class _Options(NamedTuple):
    columns: list[str] | None
    pad_id: int
    fills: Mapping[str, Any] | None
    dtypes: Mapping[str, DTypeLike]
    levels: Mapping[str, str] | None
    validate: bool


def execute(
    plan: RankPlan,
    refs: Any,
    *,
    columns: Sequence[str] | None = None,
    pad_id: int = 0,
    fills: Mapping[str, Any] | None = None,
    dtypes: Mapping[str, DTypeLike] | None = None,
    levels: Mapping[str, str] | None = None,
    names: Names = "rollkit",
    validate: bool = False,
    out: Batch | None = None,
    fetch: int = 2,
    pick: bool | None = None,
) -> Batch:
    """Place the rows of one rank: `[bins, capacity]`, bin `t` the micro-batch `t` of the plan.

    Only the chunks that have rows of this rank are fetched, each once, `fetch` of them ahead of the one that
    is placed; it is read where Ray has it on this node, and let go before the next. So a rank has memory for
    its batch, and Ray's store for `fetch + 1` chunks. Of a chunk on another node that has few of its rows, a
    task there sends those alone (`pick`). A batch depends on the plan and the chunks alone: a rank that died,
    or a chunk that is made again, gives the same bytes.

    Args:
        plan: of this rank, or of some of its bins (`plan[a:b]`).
        refs: one for each chunk of the plan, or a dict of those of `plan.chunks` by number: an `ObjectRef`, a
            `Chunk`, or rollouts (as `rollkit.pack` takes them).
        columns: the names of the columns to take; all by default.
        pad_id: as in `rollkit.pack`.
        fills: likewise.
        dtypes: likewise.
        levels: likewise.
        names: likewise.
        validate: likewise.
        out: a batch whose memory is filled again, where it is large enough. After an error its arrays hold
            what was placed before.
        fetch: how many chunks are under way while one is placed.
        pick: whether a task at the chunk's node copies this rank's rows (of `columns`), so that those alone
            come here. None: of chunks that are on other nodes, where less than half of the rows are this
            rank's; others come whole. False: all come whole. True: all are picked from, on this node too.

    Returns:
        What `rollkit.pack(chunks, rows=plan.rows, layout=plan.layout)` gives.

    Raises:
        ChunkLost: a chunk cannot be had; it is named.
        ValueError: a chunk has other rows than the plan says, other columns than the first, or no such ones.
        TypeError: a column has another dtype than in the first chunk; and as `rollkit.pack`, which names
            column and row, here with the chunk in front.

    Example:
        >>> from rollkit.ray import plan
        >>> chunks = [{"response_ids": [[1, 2, 3], [4]]}, {"response_ids": [[5, 6], [7, 8]]}]
        >>> plans = plan([[3, 1], [2, 2]], capacity=4, ranks=2)
        >>> [execute(part, chunks)["input_ids"].tolist() for part in plans]
        [[[1, 2, 3, 4]], [[5, 6, 7, 8]]]
    """
    given: object = plan
    if not isinstance(given, RankPlan):
        raise TypeError(
            f"plan must be a RankPlan, got {type(given).__name__}; rollkit.ray.plan makes one a rank"
        )
    if not len(plan.chunks):
        raise ValueError("the plan is of no chunks, and no chunk says what columns there are")
    check_names(names)
    spare = spare_of(out)
    chosen = None if columns is None else [str(name) for name in _check.items("columns", columns)]
    dtypes, validate = asked(dtypes, names), _check.flag("validate", validate)
    options = _Options(chosen, pad_id, fills, dtypes, levels, validate)
    ahead = _check.positive("fetch", fetch, least=0)
    pick = None if pick is None else _check.flag("pick", pick)
    made = _Making(plan, options, spare)
    refs = refs_of(refs, plan.chunks.tolist(), plan.num_chunks)
    for wanted, part in fetched(refs, _wanted(plan, options), ahead, pick):
        made.add(wanted, part)
        del part  # which would stay in the store while the next one is waited for
    return made.batch(names)


def _wanted(plan: RankPlan, options: _Options) -> list[Wanted]:
    """The rows of each chunk."""
    order, bounds = plan.by_chunk
    rows = np.split(plan.rows[order], bounds[1:-1])
    chunks = zip(plan.chunks.tolist(), plan.sizes.tolist(), plan.firsts.tolist(), rows, strict=True)
    return [
        Wanted(number, size, of - first, options.columns, options.levels)
        for number, size, first, of in chunks
    ]


class _Making:
    """A batch that is written chunk by chunk, into arrays that hold padding before."""

    def __init__(self, plan: RankPlan, options: _Options, spare: Mapping[str, AnyArray]) -> None:
        self._plan, self._options, self._spare = plan, options, spare
        self._order, self._bounds = plan.by_chunk
        self._seen: list[int] = []
        self._names: frozenset[str] = frozenset()
        self._kinds: dict[str, tuple[str, int]] = {}
        self._levels: dict[str, tuple[str, int]] = {}
        self._fillings: list[Filling] = []  # that of the first chunk, which says what arrays there are
        self._arrays: dict[str, Any] = {}
        self._memory: dict[str, AnyArray] = {}
        self._lists: dict[str, list[Ragged]] = {}  # placed at the end: where each goes depends on all others
        self._rows: dict[str, list[Any]] = {}
        self._lengths: list[tuple[Int64s, Int64s]] = []  # of prompts and responses

    def add(self, wanted: Wanted, part: Part) -> None:
        """Write the rows of the next chunk."""
        number, index = wanted.number, len(self._seen)
        places = self._order[self._bounds[index] : self._bounds[index + 1]]
        self._check_alike(number, part)
        self._seen.append(number)
        try:
            self._write(part, places)
        except TELLING as error:
            row = row_of(error)
            row = None if row is None else int(wanted.rows[row])
            raise retold(error, path=f"chunk {number}", row=row) from None

    def _check_alike(self, number: int, part: Part) -> None:
        """Refuse other columns than the chunks before have, and others' dtypes."""
        if self._seen and part.kinds.keys() != self._names:
            odd = ", ".join(map(repr, sorted(part.kinds.keys() ^ self._names)))
            raise ValueError(f"chunk {number} and chunk {self._seen[0]} differ in columns: {odd}")
        self._names = frozenset(part.kinds)
        for name, kind in part.kinds.items():
            if kind is None:
                continue
            first, chunk = self._kinds.setdefault(name, (kind, number))
            if kind != first:
                text = f"got {kind}, chunk {chunk} has {first}; make all chunks alike"
                raise refusal(TypeError, text, column=name, path=f"chunk {number}")

    def _check_levels(self, sources: Sources) -> None:
        """Refuse a column that has an element for other tokens than in the chunks before.

        Where no row has a prompt, one per response token and one per sequence token are the same.
        """
        if not sources.prompt_lengths.any():
            return
        for name in sources.tokens:
            level, number = sources.level(name), self._seen[-1]
            first, chunk = self._levels.setdefault(name, (level, number))
            if level != first:
                text = f"got an element per {level} token, chunk {chunk} has one per {first} token"
                raise refusal(ValueError, f"{text}; make all chunks alike", column=name)

    def _write(self, part: Part, places: Int64s) -> None:
        options, plan = self._options, self._plan
        sources = Sources.of(part.rollouts, options.levels, part.rows)
        lengths = plan.lengths[places]
        if (odd := sources.lengths != lengths).any():
            row = int(odd.argmax())
            got, wanted = sources.lengths[row], lengths[row]
            text = f" has {got} tokens (prompt and response), the plan has {wanted} for it"
            raise refusal(ValueError, text, row=row)
        if options.validate:
            sources.check_values()
        if not self._fillings:
            warn_of_other_masks(sources.names)
        filling = Filling.of(sources, options.pad_id, options.fills, options.dtypes, PACKED)
        self._check_levels(sources)
        self._fillings = self._fillings or [filling.without_rows()]
        filled = filling.filled()
        self._begin(filled)
        layout = Layout._trusted(plan.layout.shape, plan.layout.starts[places], lengths, lengths)
        filled.write(layout, self._memory, padded=True)
        self._lengths.append((sources.prompt_lengths, sources.responses.lengths))
        for name, parts in filling.of_lists().items():
            self._lists.setdefault(name, []).append(trusted(*end_to_end(parts)))
        for name, column in sources.rows.items():
            self._rows.setdefault(name, []).append(_own(column))

    def _begin(self, filling: Filling) -> None:
        """Make the arrays that are not there yet."""
        arrays, memory = filling.without(self._memory).padding(self._plan.layout, self._spare)
        self._arrays |= arrays
        self._memory |= memory

    def batch(self, names: Names) -> Batch:
        """The batch, once all chunks are in it."""
        (first,), layout = self._fillings, self._plan.layout
        self._begin(first)
        back = np.argsort(self._order)
        prompts, responses = (np.concatenate(found) for found in zip(*self._lengths, strict=True))
        lists = {name: Parts.join([rows.parts() for rows in found]) for name, found in self._lists.items()}
        if lists:
            levels = {name: level for name, (level, _) in self._levels.items()}
            self._arrays |= first.with_lists(lists, levels, prompts, responses, back).write(layout)[0]
        prompts = prompts[back]
        made = Filling.derived(
            {name: np.dtype(MADE[name]) for name in PACKED}, prompts, responses[back], None
        )
        arrays, memory = made.write(layout, self._spare)
        arrays |= self._arrays
        arrays = {name: arrays[name] for name in first.names}
        rows = {name: take_column(joined_entries(name, found), back) for name, found in self._rows.items()}
        arrays = arrays if names == "rollkit" else renamed(arrays, layout, names)
        return Batch(arrays, layout, prompts, rows, self._memory | memory)


def _own(column: Any) -> Any:
    """Entries that hold no view of a chunk, which would stay in the store with it."""
    if not isinstance(column, list):
        return column
    return [entry if isinstance(entry, _PLAIN) else deepcopy(entry) for entry in column]
