"""Files in chunks whose columns are what they are where files are read at once.

What a column is may be seen only at its end: a float among integers, one null among texts. So a file is read
twice. The first time finds a sample: a few rows that are of the same columns as all rows. The second time
gives chunks of these columns.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from rollkit._errors import TELLING, at, refusal
from rollkit._files.jsonl import Behind
from rollkit._files.read import Reading, check_columns, in_file, raw_chunks_of
from rollkit._files.source import JSONL, Source, changed, kind_of
from rollkit._files.watch import Watch, unwatched
from rollkit._rollouts.columns import Column, joined_entries
from rollkit._rollouts.fields import FIELDS
from rollkit._rollouts.rollouts import Rollouts
from rollkit._rows.ragged import Ragged

Sample = dict[str, Column]
"""Columns of a few rows, not as many in each, that are what those of all rows are."""


class Uniform:
    """A file in chunks of the columns that `read` gives of it.

    Args:
        source: the file, which can be read twice.
        rows: of a chunk.
        how: it is read.
        watch: shows progress.

    Attributes:
        source: the file.
        sample: of its rows.
        rows: how many there are.
    """

    def __init__(self, source: Source, rows: int, how: Reading, watch: Watch = unwatched) -> None:
        self.source, self.sample, self.rows = source, Sample(), 0
        self._of_chunk, self._how, self._begun = rows, how, source.state()
        self._behind = Behind() if kind_of(source.name)[0] in JSONL else None
        for raw, chunk in watch(self._read(), f"reading {source.name}", None):
            if self._behind is None:
                self._add(chunk)
            else:
                self._read_on(self._behind, raw, chunk)
        if self._behind is not None and not self.rows:
            how.check_found((), source)

    def _read_on(self, behind: Behind, raw: dict[str, Any], chunk: Rollouts) -> None:
        """Let the sample be of these rows of JSONL too, read behind lines that stand for those before."""
        self.rows += behind.count
        self.sample = {name: _sample(column) for name, column in chunk.items()}
        if raw:
            columns = {theirs: (found, chunk[self._how.named(theirs)]) for theirs, found in raw.items()}
            behind.text, behind.rows = _lines(columns)
        elif self.rows:
            behind.text, behind.rows = b"{}\n", 1

    def chunks(self) -> Iterator[Rollouts]:
        """Read the file again, in chunks of rows that are what the sample is.

        Raises:
            ValueError: the file is no longer what it was.
        """
        if self.source.state() != self._begun:
            raise changed(self.source)
        for raw, chunk in self._read():
            if self._behind is not None:
                if self._behind.count:
                    yield chunk[self._behind.rows :]
                continue
            found = {self._how.named(name): column for name, column in raw.items()}
            lists = {name for name, column in self.sample.items() if isinstance(column, list)}
            columns = {name: found[name] if name in lists else column for name, column in chunk.items()}
            yield conformed(Rollouts._trusted(columns), self.sample, self.source)

    def _read(self) -> Iterator[tuple[dict[str, Any], Rollouts]]:
        found = raw_chunks_of(self.source, self._of_chunk, self._how, self._behind)
        return found if self._behind is not None else ((raw, chunk) for raw, chunk in found if len(chunk))

    def _add(self, chunk: Rollouts) -> None:
        """Let the sample be of these rows too."""
        self.rows += len(chunk)
        try:
            for name, column in chunk.items():
                before = self.sample.get(name)
                self.sample[name] = _sample(column if before is None else _met(name, before, column))
        except TELLING as error:
            raise in_file(error, self.source, self.rows - len(chunk)) from None


def sample_of(files: Sequence[Uniform]) -> Sample:
    """The sample of all rows of several files, whose rows count through; refused as `read` refuses them."""
    first = files[0]
    for file in files:
        check_columns(file.source, file.sample.keys(), first.source, first.sample.keys())
    if len(files) == 1:
        return first.sample
    samples = [Rollouts._trusted(file.sample) for file in files]
    return dict(Rollouts.joined(samples, called=[str(file.source) for file in files]).columns)


def conformed(chunk: Rollouts, sample: Sample, source: Source) -> Rollouts:
    """The columns of a chunk as those of a sample."""
    return Rollouts._trusted({name: _conformed(chunk[name], found, source) for name, found in sample.items()})


def _conformed(column: Column, sample: Column, source: Source) -> Column:
    if isinstance(sample, list):
        return _entries(column)
    if isinstance(sample, Ragged) and isinstance(column, Ragged):
        if not sample.of_lists and not len(column.flat):
            return Ragged(np.empty((0, *sample.inner), sample.dtype), column.offsets - column.offsets[0])
        column = column.astype(sample.dtype)
        if column.inner == sample.inner:
            return column
    if isinstance(sample, np.ndarray) and isinstance(column, np.ndarray):
        return column.astype(sample.dtype, copy=False)
    raise changed(source)  # of a URL that is not told before


def _entries(column: Column) -> list[Any]:
    if isinstance(column, list):
        return column
    entries: list[Any] = column.to_list() if isinstance(column, Ragged) else column.tolist()
    return entries


# Samples.


def _met(name: str, sample: Column, column: Column) -> Column:
    """What both are, of one file whose columns have a type each."""
    if type(sample) is not type(column):  # lists of texts that are all empty, numbers that are all there
        if name in FIELDS and (isinstance(sample, Ragged) or isinstance(column, Ragged)):
            text = "has elements in some rows, and none in others; give all rows or leave the column out"
            raise refusal(ValueError, text, column=name)
        return [*_entries(sample), *_entries(column)]
    if isinstance(sample, Ragged) and isinstance(column, Ragged):
        _check_rectangle(name, sample, column)
        with at(column=name):
            return Ragged.joined([sample, column])
    joined: Column = joined_entries(name, [sample, column])
    return joined


def _check_rectangle(name: str, sample: Ragged, column: Ragged) -> None:
    """Refuse inner lists of another length than those before, as they are refused within a chunk."""
    if sample.inner == column.inner or not (len(sample.flat) and len(column.flat)):
        return
    got, wanted = next(pair for pair in zip(column.inner, sample.inner, strict=True) if pair[0] != pair[1])
    text = f" has an inner list of {got}, the first has {wanted}; inner dimensions must be rectangular"
    raise refusal(ValueError, text, column=name, row=int((column.lengths > 0).argmax()), position=0)


def _sample(column: Column) -> Column:
    """A few rows of a column that are what it is."""
    if isinstance(column, list):
        return _of_each_kind(column)
    if not isinstance(column, Ragged):
        largest = column.dtype == np.uint64 and column.ndim == 1  # in a list it is of a kind of its own
        return column.max(keepdims=True) if largest else column[:1].copy()
    filled = np.flatnonzero(column.lengths)[:1]
    if column.of_lists or not len(filled):
        return column.take(filled if len(filled) else [0])
    return Ragged(column.flat[:1].copy(), np.array([0, 1]))


def _of_each_kind(entries: list[Any]) -> list[Any]:
    """One entry of each kind that there is, as small as it may be."""
    return list(dict(map(_kind_and_entry, entries)).values())


_SMALL: dict[type, Any] = {str: "", bytes: b"", bool: False, int: 0, float: 0.0, dict: {}}


def _kind_and_entry(entry: Any) -> tuple[Any, Any]:
    kind = type(entry)
    if kind is list:
        return (dict, {}) if entry else (list, [])  # what is in them makes no difference to a list
    if kind is int and not -(2**63) <= entry < 2**63:
        return "large", entry
    if kind is str and not entry.isascii() and entry.encode(errors="ignore").decode() != entry:
        return "half", "\ud800"
    return kind, _SMALL.get(kind, entry)


def _lines(columns: Mapping[str, tuple[Any, Column]]) -> tuple[bytes, int]:
    """Lines that JSONL is read behind to be what these columns are, raw and of rollouts; and how many."""
    entries = {name: _values(raw, column) for name, (raw, column) in columns.items()}
    count = max(map(len, entries.values()))
    lines = ({name: found[min(i, len(found) - 1)] for name, found in entries.items()} for i in range(count))
    return "".join(f"{json.dumps(line)}\n" for line in lines).encode(), count


def _values(raw: Any, column: Column) -> list[Any]:
    """Values of which the parser makes what `raw` is, and `Rollouts` of that what `column` is."""
    if isinstance(raw, Ragged) and raw.of_lists:
        return [[[0]]]  # which the parser makes of integers alone
    if isinstance(raw, Ragged):
        return [_zeros(raw) if len(raw.flat) else []]
    if isinstance(raw, np.ndarray):
        return [raw.dtype.type(0).item()]
    if isinstance(column, list):
        return _of_each_kind(raw)
    # Of the first array that is not empty the parser made a list, and the others are not its matter.
    found: list[Any] = [[]] if [] in raw else []
    found += [entry for entry in raw if entry != []][:1]
    if isinstance(column, Ragged) and not column.of_lists and len(column.flat):
        found.append(_zeros(column))
    return found


def _zeros(rows: Ragged) -> list[Any]:
    zeros: list[Any] = np.zeros((1, *rows.inner), rows.dtype).tolist()
    return zeros
