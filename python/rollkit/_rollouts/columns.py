"""What a column is: how what users have becomes one, and what it has an element for."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence, Set
from itertools import chain
from typing import Any, Final, Literal, get_args

import numpy as np

from rollkit import _check, _native
from rollkit._arrays.ops import ops_of
from rollkit._check import Int64s, same_ints
from rollkit._errors import at, refusal, warn
from rollkit._frameworks import AnyArray, as_array, framework_of, is_array, kind_of
from rollkit._rollouts.arrow import A_TABLE, column_from_arrow
from rollkit._rollouts.fields import FIELDS, Field
from rollkit._rows.arrow import is_arrow
from rollkit._rows.dtypes import common, numpy_dtype
from rollkit._rows.parts import Parts
from rollkit._rows.ragged import Ragged, as_lists, rows_of_jagged, same_values, trusted

Column = Ragged | AnyArray | list[Any]
"""A column: `Ragged` per token, an array `[rows, …]` per row, or a list of objects."""

Level = Literal["prompt", "response", "sequence", "row"]
"""What a column has an element for: each token of the prompt, of the response or of both, or the row."""

LEVELS: Final = get_args(Level)
LISTS: Final = "[]"
"""What `levels` says behind a level where each element is a list."""
_OF_PROMPTS: Final = "prompt_"
_UINT8 = np.dtype(np.uint8)


def level_of(
    name: str,
    lengths: Int64s | None,
    prompt: Int64s,
    response: Int64s,
    levels: Mapping[str, str] | None = None,
) -> Level:
    """What a column has an element for, by its name, or else by the lengths of all rows.

    `levels` says, or else a known name, or else the name's beginning: `prompt_…` is per prompt token. Of
    other names, rows as long as the responses are per response token, and rows as long as prompt and
    response per sequence token. A column per prompt token needs one of the names, since in some rows
    prompts and responses are of one length: the same column would be one thing here and another there.

    Args:
        name: of the column.
        lengths: `[rows]`, the elements of each row; None if there is one entry per row.
        prompt: `[rows]`, the tokens of each prompt.
        response: `[rows]`, the tokens of each response.
        levels: what the user says, by column.

    Raises:
        ValueError: the rows are not of those lengths; column and row are named.
    """
    said = None if levels is None else levels.get(name)
    if said == "row":
        return "row"
    level = said or _named_level(name)
    if lengths is None or level == "row":
        return _row_level(name, lengths, said)
    if len(lengths) != len(response):
        text = f"column {name!r} has {len(lengths)} rows, there are {len(response)}"
        raise refusal(ValueError, text, column=name, label="")
    if said is None and name in FIELDS and FIELDS[name].short:
        _check_short(name, lengths, prompt + response)
        return "sequence"
    if level in (None, "response") and same_ints(lengths, response):
        return "response"
    if level in (None, "sequence") and same_ints(lengths, prompt + response):
        return "sequence"
    if level == "prompt" and same_ints(lengths, prompt):
        return "prompt"
    raise _no_level(name, lengths, prompt, response, level, said)


def check_levels(levels: Mapping[str, str] | None, columns: Mapping[str, Any]) -> dict[str, str]:
    """What the user says of columns, without the brackets of lists.

    Raises:
        TypeError: no dict.
        ValueError: of a column that there is not, or no level.
    """
    for name, level in _check.mapping("levels", levels).items():
        if name not in columns:
            raise ValueError(
                f"levels has {name!r}, which is no column; there are {', '.join(map(repr, columns))}"
            )
        check_level(name, level)
    return {name: level.removesuffix(LISTS) for name, level in (levels or {}).items()}


def check_uncut(name: str, lengths: Int64s, cut: Any) -> None:
    """Refuse to cut a row that has entries of a column that no token tells the place of."""
    if (odd := cut & (lengths > 0)).any():
        text = f" would be cut, and has {lengths[odd][0]} entries that may be of any of its tokens"
        raise refusal(ValueError, text, column=name, row=int(odd.argmax()))


def check_level(name: str, level: str) -> None:
    """Refuse what `levels` may not say of a column."""
    _check.choice(f"levels[{name!r}]", level, (*LEVELS, *(level + LISTS for level in LEVELS)))


def _named_level(name: str) -> str | None:
    if name in FIELDS:
        return FIELDS[name].level
    return "prompt" if name.startswith(_OF_PROMPTS) else None


def _row_level(name: str, lengths: Int64s | None, said: str | None) -> Level:
    """`level_of` where there is an entry per row, or should be."""
    if lengths is not None:
        raise refusal(ValueError, "expected one entry per row, got rows of elements", column=name)
    if said is not None:
        text = f"levels has it per {said} token, got one entry per row"
        raise refusal(ValueError, text, column=name)
    if name in FIELDS and "row" not in FIELDS[name].per:
        raise refusal(ValueError, "expected an element per token, got one per row", column=name)
    return "row"


def _check_short(name: str, lengths: Int64s, tokens: Int64s) -> None:
    """Refuse rows that are no beginning of their tokens."""
    odd = (lengths > tokens) | ((lengths == 0) & (tokens > 1))
    if odd.any():
        row = int(odd.argmax())
        raise refusal(
            ValueError,
            f" has {lengths[row]} elements for {tokens[row]} tokens; expected one per token of prompt and "
            "response, the last ones may be missing",
            column=name,
            row=row,
        )


def _no_level(
    name: str, lengths: Int64s, prompt: Int64s, response: Int64s, level: str | None, said: str | None
) -> ValueError:
    if level is None and np.array_equal(lengths, prompt):
        text = f'its rows are as long as the prompts; if that is meant, pass levels={{{name!r}: "prompt"}}'
        return refusal(ValueError, text, column=name)
    wanted = {"prompt": prompt, "sequence": prompt + response}.get(level or "", response)
    row = int((lengths != wanted).argmax())
    text = f" has {lengths[row]} elements; its prompt has {prompt[row]} tokens, its response {response[row]}"
    if said is not None:
        text += f"; levels has it per {said} token"
    elif level is not None and name not in FIELDS:
        text += f'; by its name it is per {level} token; levels={{{name!r}: "response"}} says otherwise'
    elif name not in FIELDS:
        text += "; to carry rows that are no tokens along, wrap each in a dict"
    return refusal(ValueError, text, column=name, row=row)


def check_unlaid(rollouts: object) -> None:
    """Refuse a batch, which is a mapping too: its lines are bins, and no rows."""
    if isinstance(rollouts, Mapping) and hasattr(rollouts, "unpack"):  # a Batch, which is of a floor above
        raise TypeError(
            f"expected rollouts, got a {type(rollouts).__name__}: its lines are laid out, and no rows; "
            "batch.unpack(name) and batch.rows have those"
        )


def warn_of_indexes(columns: Mapping[str, Any]) -> None:
    """Warn of Series of pandas whose indexes differ: here their places alone say what goes together."""
    found = [(name, column.index) for name, column in columns.items() if hasattr(column, "iloc")]
    odd = next((name for name, index in found[1:] if not index.equals(found[0][1])), None)
    if odd is not None:
        warn(
            f"columns {found[0][0]!r} and {odd!r} have other indexes, and are joined by place, not by index; "
            "align them, or drop the indexes: .reset_index(drop=True)"
        )


def token_columns(output: Mapping[str, Any]) -> dict[str, Any]:
    """The columns of a `GeneratorOutput`-shaped dict, as they are; None and what is per batch stay out.

    Raises:
        ValueError: there are no token ids, or a column has another number of rows than they have.
    """
    if not isinstance(output, Mapping):
        raise TypeError(f"output must be a dict of columns, got {type(output).__name__}")
    check_unlaid(output)
    warn_of_indexes(output)
    columns = {name: rows for name, found in output.items() if (rows := _rows_of(name, found)) is not None}
    main = next((name for name in ("response_ids", "input_ids") if name in columns), None)
    if main is None:
        raise ValueError(
            f"no 'response_ids' (nor 'input_ids') among {', '.join(map(repr, output)) or 'no keys'}"
        )
    for name, rows in columns.items():
        if name not in FIELDS and len(rows) != len(columns[main]):
            raise uneven(name, len(rows), main, len(columns[main]))
    return columns


def uneven(name: str, count: int, main: str, wanted: int) -> ValueError:
    """The error of a column that has another number of rows than the token ids have."""
    return refusal(
        ValueError, f"column {name!r} has {count} rows, {main!r} has {wanted}", column=name, label=""
    )


def _refuse_masked(name: str, found: Any) -> None:
    """Refuse NumPy's masked arrays, whose mask nothing here looks at."""
    if isinstance(found, np.ndarray) and hasattr(found, "mask"):  # without an import of numpy.ma
        text = "a masked array; fill it (.filled), or give its rows as lists (.compressed)"
        raise refusal(TypeError, text, column=name)


def _rows_of(name: str, found: Any) -> Any:
    """What has one entry per rollout, as it is; None for what is one value of the whole batch."""
    if isinstance(found, Ragged | list | tuple):
        return found
    if getattr(found, "is_nested", False):
        return rows_of_jagged(found)
    if is_array(found):
        _refuse_masked(name, found)
        return found if name in FIELDS or getattr(found, "ndim", 1) != 0 else None
    if is_arrow(found):
        return column_from_arrow(name, found)
    if hasattr(found, "with_format"):  # a `datasets.Dataset`, as in a `DatasetDict`
        raise refusal(TypeError, A_TABLE, column=name)
    if isinstance(found, str | bytes | Mapping) or not isinstance(found, Iterable):
        return None
    if isinstance(found, Set):
        text = "a set has no order of rows; give a list"
        raise refusal(TypeError, text, column=name)
    return list(found)


def as_column(name: str, found: Any) -> Column:
    """Turn what a user has for a column into a column; known names get their dtype.

    Raises:
        TypeError, OverflowError, ValueError: with the column's name in front.
    """
    field = FIELDS.get(name)
    _refuse_masked(name, found)
    if not isinstance(found, Ragged) and getattr(found, "is_nested", False):
        found = rows_of_jagged(found)
    if is_arrow(found) and not isinstance(found, Ragged):
        found = column_from_arrow(name, found)
    with at(column=name):
        rows = found = as_array(found)
        if not isinstance(found, Ragged | np.ndarray | list | tuple):
            raise TypeError(f"expected a Ragged, an array or a list, got {type(found).__name__}")
        if isinstance(found, np.ndarray):
            found = _from_array(found, field)
        elif not isinstance(found, Ragged):
            found = _from_list(found, field)
        if field is not None and field.lists and isinstance(found, Ragged):
            found = as_lists(found)
        if field is not None and field.whole and isinstance(found, Ragged):
            check_whole(found.dtype, found.lengths, rows)
        column: Column = found
        return column


def is_rows(column: Any) -> bool:
    """Whether a column, raw or not, has an element per token (and not an entry per row).

    Any row of elements tells, wherever it is. An array `[rows, …]` has an entry per row, unless its name
    says otherwise (`Field`).
    """
    if isinstance(column, Ragged | Parts):
        return True
    if isinstance(column, np.ndarray):
        return column.dtype == object and is_rows(column.tolist())
    return any(map(_is_row, column))


def _is_row(found: Any) -> bool:
    if isinstance(found, list | tuple):
        return True
    return not isinstance(found, _SCALARS) and is_array(found) and bool(found.ndim)


_NUMBERS: Final = (int, float, np.number, type(None))
_SCALARS: Final = (str, int, float, type(None), Mapping)


def holds_numbers(column: Any) -> bool:
    """Whether a list of rows has a number in any row: then its rows are elements, and no objects."""
    if isinstance(column, np.ndarray) and column.dtype == object:
        column = column.tolist()
    if isinstance(column, list | tuple):
        return any(map(holds_numbers, column))
    return isinstance(column, int | float | np.number | Ragged | Parts) or is_array(column)


def check_whole(dtype: Any, lengths: Int64s, rows: Iterable[Any] = ()) -> None:
    """Refuse floats where there are elements; `rows`, as they came, tell which is the first."""
    if lengths.any() and numpy_dtype(dtype).kind not in "iub":
        odd = (i for i, row in enumerate(rows) if is_array(row) and len(row) and kind_of(row) == "float")
        row = next(odd, int((lengths > 0).argmax()))
        text = f": expected integers, got {numpy_dtype(dtype)}; round them first"
        raise refusal(TypeError, text, row=row)


def _from_array(found: AnyArray, field: Field | None) -> Column:
    if found.dtype == object:
        return _from_list(found.tolist(), field)
    if found.ndim == 0:
        raise TypeError("expected a row per rollout, got a 0-D array")
    if found.ndim > 1 and field is not None and field.per != "row":
        return Ragged.from_rows(found, field.dtype)
    if found.ndim == 1 and field is not None and found.dtype.kind == "V":
        return found.astype(np.float32)  # bfloat16, which NumPy does not count with
    return found


def _from_list(found: Sequence[Any], field: Field | None) -> Column:
    dtype = None if field is None else field.dtype
    if field is not None and field.is_per_token:
        _refuse_none(found)
        return Ragged.from_rows(found, dtype, lists=field.lists)
    if found and all(isinstance(row, Ragged) for row in found):
        return Ragged.from_rows(found, dtype, lists=True)  # of a column of lists, such as `to_rows` gives
    if is_rows(found):
        if field is not None:
            _refuse_none(found)
            return Ragged.from_rows(found, dtype)
        try:
            return Ragged.from_rows(found)
        except (TypeError, ValueError):
            return list(found)  # lists of strings, of dicts, ragged nests: objects
    return _scalars(found, field)


def _scalars(found: Sequence[Any], field: Field | None) -> Column:
    """One entry per row: an array if they are numbers. Kept wide, there are few of them."""
    if field is not None and any(map(is_array, found)):
        found = _check.entries("the column", found)  # a tensor for each reward, as scorers give them
    array = np.array(found) if all(isinstance(x, int | float | np.generic) for x in found) else None
    if found and array is not None and array.dtype.kind in "biuf" and not _is_rounded(array, found):
        return array
    if field is not None and field.per == "token or row" and _are_numbers_or_none(found):
        return list(found)  # unscored: `validate` and `advantages` say so, and a batch refuses them
    if field is not None and found:
        row = next((i for i, x in enumerate(found) if np.array(x).dtype.kind not in "biuf"), 0)
        if isinstance(found[row], int):
            row = next((i for i, x in enumerate(found) if not -(2**63) <= x < 2**63), row)
            raise refusal(OverflowError, f": {found[row]} does not fit 64 bits", row=row)
        raise refusal(TypeError, f": {found[row]!r} is no number", row=row)
    return list(found)


def _are_numbers_or_none(found: Sequence[Any]) -> bool:
    return None in found and all(x is None or isinstance(x, _NUMBERS) for x in found)


def _is_rounded(array: AnyArray, found: Sequence[Any]) -> bool:
    """Whether NumPy has made floats of integers that no integer dtype of its holds together."""
    return array.dtype.kind == "f" and all(isinstance(x, int | np.integer) for x in found)


def _refuse_none(found: Sequence[Any]) -> None:
    missing = [i for i, row in enumerate(found) if row is None]
    if not missing:
        return
    if len(missing) == len(found):
        raise ValueError("all rows are None; leave the column out")
    text = " is None, others are not; give all rows or leave the column out"
    raise refusal(ValueError, text, row=missing[0])


def joined_entries(name: str, columns: Sequence[Any]) -> Any:
    """Columns of one entry per row, joined: an array if all are numbers, else a list."""
    filled = [column for column in columns if len(column)] or columns[:1]
    if all(isinstance(column, Ragged) for column in filled):
        with at(column=name):
            return Ragged.joined(filled)
    if all(isinstance(column, np.ndarray) for column in filled):
        with at(column=name):
            dtype = common(column.dtype for column in filled)
        return np.concatenate([column.astype(dtype, copy=False) for column in filled])
    if any(isinstance(column, np.ndarray) for column in filled):  # numbers, and those of the others may lack
        for column in filled:
            if isinstance(column, list) and not all(isinstance(x, _NUMBERS) for x in column):
                text = f"column {name!r} is list in some parts and ndarray in others"
                raise refusal(TypeError, text, column=name, label="")
    entries = (column.tolist() if isinstance(column, np.ndarray) else column for column in filled)
    return list(chain.from_iterable(entries))


def take_column(column: Any, rows: Int64s) -> Any:
    """The rows of a column, raw or not, of these numbers: in that order, copied."""
    if isinstance(column, Ragged):
        return column.take(rows)
    return [column[i] for i in rows.tolist()] if isinstance(column, list | tuple) else column[rows]


def same_column(a: Column, b: Column) -> bool:
    """Whether two columns are equal, in dtype too; NaN equals NaN."""
    if isinstance(a, Ragged):
        return a.equals(b)
    if isinstance(a, list) or not isinstance(b, np.ndarray):
        return isinstance(b, list) and len(a) == len(b) and all(map(_same_entry, a, b))
    return a.dtype == b.dtype and a.shape == b.shape and same_values(a, b)


def _same_entry(a: Any, b: Any) -> bool:
    """Whether two entries are equal, arrays in dtype too, also within dicts and lists."""
    if is_array(a) or is_array(b):
        if framework_of(a) != framework_of(b):
            return False
        return same_column(*(ops_of(entry).to_host(entry) for entry in (a, b)))
    if isinstance(a, Mapping) and isinstance(b, Mapping):
        return a.keys() == b.keys() and all(_same_entry(value, b[name]) for name, value in a.items())
    if isinstance(a, list | tuple) and type(a) is type(b):
        return len(a) == len(b) and all(map(_same_entry, a, b))
    return bool(a == b)


def mask_column(loss_masks: Any) -> Ragged:
    """Masks as a column: bytes where they fit, which is a quarter of the memory of the next best."""
    if isinstance(loss_masks, Ragged):
        masks = loss_masks
    else:
        rows = as_array(loss_masks)
        rows = rows if isinstance(rows, np.ndarray | list | tuple) else _check.items("loss_masks", rows)
        with at(column="loss_masks", label="loss_masks"):
            masks = _list_masks(rows) if _all_lists(rows) else Ragged.from_rows(rows)
    if not (masks.of_lists or isinstance(masks.values, np.ndarray)):
        raise TypeError("loss_masks must be on the host, and have values; take them there first (.cpu())")
    if masks.inner:
        raise TypeError(f"loss_masks must have one element per token, got elements of shape {masks.inner}")
    if masks.dtype.kind == "V":  # bfloat16
        return masks.astype(np.float32)
    return masks


def turns_of(masks: Ragged) -> tuple[Int64s, Int64s, Int64s]:
    """Lengths of turns, their offsets by row, and the non-zero elements of each row."""
    return _native.turns(np.ascontiguousarray(masks.values), masks.offsets)


def _all_lists(rows: Any) -> bool:
    return isinstance(rows, list | tuple) and all(type(row) is list for row in rows)


def _list_masks(rows: Any) -> Ragged:
    try:
        return trusted(*_native.from_lists(rows, _UINT8))
    except (TypeError, OverflowError):
        return Ragged.from_rows(rows)  # weights, not flags


def row_lengths(rows: Any, name: str = "response_ids") -> Int64s:
    """The lengths of rows, without a look into them."""
    if isinstance(rows, Ragged):
        return rows.lengths
    try:
        return np.fromiter(map(len, rows), np.int64, len(rows))
    except TypeError:
        row = next((i for i, found in enumerate(rows) if not hasattr(found, "__len__")), None)
        if row is None:
            raise
        text = f" is {rows[row]!r}, expected a row of elements"
        raise refusal(TypeError, text, column=name, row=row) from None
