"""What a framework's module supplies: bytes in and out, rows moved, scans over tokens."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Protocol, cast

import numpy as np

from rollkit._errors import Unfit, refusal
from rollkit._frameworks import (
    FRAMEWORKS,
    AnyArray,
    as_array,
    framework_of,
    is_array,
    is_imported,
    memory_of,
)


class Ops(Protocol):
    """Array operations that algorithms of several frameworks, eager or traced, are written in.

    Results of scans are int32 unless they hold the values of an argument; their `rows` are `[R, N]`.
    """

    IN_PLACE: bool
    """Whether arrays are written to, and slices of them are views."""

    # Bytes in and out.

    def from_numpy(self, array: AnyArray, device: Any, options: Mapping[str, Any]) -> Any:
        """Return the framework's array; on the CPU over the same memory where it allows that."""
        ...

    def moved(self, array: Any, device: Any, options: Mapping[str, Any]) -> Any:
        """The framework's own array on `device`, with its gradient and trace; where it is if None."""
        ...

    def device_named(self, device: Any) -> Any:
        """What the framework calls a device; None if this names none of its devices."""
        ...

    def register_tree(
        self,
        kind: type,
        flat: Callable[[Any], tuple[Sequence[str], Sequence[Any], Any]],
        made: Callable[[Iterable[Any], Any], Any],
    ) -> None:
        """Let a class be a tree of arrays. `flat` gives their names, the arrays, and what is static."""
        ...

    def memory(self, array: Any) -> AnyArray:
        """The array's memory as NumPy's, without a copy.

        Raises:
            TypeError: it is not the host's, has no values yet, or a gradient goes through it.
        """
        ...

    def is_plain(self, array: Any) -> bool:
        """Whether Rust may move the array: the host's memory, with no gradient or trace to lose."""
        ...

    def check_dense(self, array: Any) -> None:
        """Refuse an array that is not one block of elements: sparse, nested.

        Raises:
            TypeError: it is not.
        """
        ...

    def bits(self, array: Any) -> AnyArray:
        """The memory of a plain array, as integers of its item size where NumPy has not its dtype."""
        ...

    def from_bits(self, array: AnyArray, dtype: Any) -> Any:
        """Return the framework's array of `dtype` over what `bits` gave: the inverse."""
        ...

    # Rows moved.

    def cat(self, arrays: Sequence[Any]) -> Any:
        """Join arrays along their first axis."""
        ...

    def gather(self, array: Any, index: Any) -> Any:
        """Rows of an array by number."""
        ...

    def scatter(self, count: int, fill: Any, values: Any, index: Any) -> Any:
        """`count` rows: those of `values` at `index` (no number twice), and `fill` (one row) elsewhere."""
        ...

    def scatter_sum(self, count: int, values: Any, index: Any) -> Any:
        """`count` rows: the sums of those of `values` at each number of `index`, 0 where there are none.

        Integers and bools are summed in 64 bits (in JAX what it has for that), floats of 16 bits in float32.
        """
        ...

    def cast(self, array: Any, dtype: Any) -> Any:
        """Cast, checked where there are values: integers fit (or `Unfit`), floats become no integers."""
        ...

    def dtype_of(self, array: Any) -> Any:
        """The NumPy dtype in which a number that fits the array can be checked."""
        ...

    # Where arrays are.

    def is_host(self, array: Any) -> bool:
        """Whether NumPy can read the array's memory now."""
        ...

    def is_traced(self, array: Any) -> bool:
        """Whether the array has no values, or none yet."""
        ...

    def to_host(self, array: Any) -> AnyArray:
        """Return the array's memory, or a copy of it from a device."""
        ...

    def from_host(self, array: AnyArray, like: Any) -> Any:
        """Return the framework's array, on the device of `like`."""
        ...

    def device(self, array: Any) -> Any:
        """Where indices of the array must be, as a key; None where they may be the host's."""
        ...

    def index(self, array: AnyArray, like: Any) -> Any:
        """Return integers as what `like` is indexed with, to be kept for its device."""
        ...

    def is_integer(self, array: Any) -> bool:
        """Whether the dtype is one of integers."""
        ...

    def run(self, function: Callable[..., Any], *arrays: Any, **static: Any) -> Any:
        """Call `function(ops, *arrays, **static)`, compiled where the framework compiles."""
        ...

    def arange(self, count: int, like: Any) -> Any:
        """0, 1, 2 and so on."""
        ...

    def zeros(self, shape: tuple[int, ...], like: Any) -> Any:
        """Zeros."""
        ...

    def signed(self, array: Any) -> Any:
        """Integers that subtract: int32 where all of the dtype fit, else `wide`."""
        ...

    def wide(self, array: Any) -> Any:
        """Cast to int64, or to what the framework has for it; what is beyond becomes the largest."""
        ...

    def int32(self, array: Any) -> Any:
        """Cast to int32."""
        ...

    def where(self, condition: Any, yes: Any, no: Any) -> Any:
        """Choose element by element."""
        ...

    def within(self, ids: Any, most: int) -> Any:
        """Ids from 1 to `most`, and 0 for all others; int32."""
        ...

    def shift(self, rows: Any) -> Any:
        """Each element becomes the one before it, the first 0."""
        ...

    def flip(self, rows: Any) -> Any:
        """Reverse the last axis."""
        ...

    def cumsum(self, rows: Any) -> Any:
        """Running sums along the last axis."""
        ...

    def carry_back(self, factors: Any, terms: Any) -> Any:
        """Each term, and its factor times what the term after it has become, along the last axis.

        A factor of 0 lets nothing through, NaN neither.
        """
        ...

    def latest(self, flags: Any) -> Any:
        """Where the last set flag is, at each element or before it; -1 where there is none; `[R, N]`."""
        ...

    def rank(self, flags: Any) -> Any:
        """How many flags are set, at each element or before it; `[R, N]`."""
        ...

    def nth(self, flags: Any, count: int) -> Any:
        """Where each row's first `count` flags that are set are, and the width where there are fewer."""
        ...

    def search(self, rows: Any, values: Any) -> Any:
        """For each row, which never falls, and value: how many elements are below it; `[R, M]`."""
        ...

    def count(self, size: int, index: Any) -> Any:
        """How often each of 0 to `size - 1` occurs in each row, where larger numbers may too; `[R, size]`."""
        ...

    def present(self, size: int, index: Any) -> Any:
        """Whether each of 0 to `size - 1` occurs in each row; `[R, size]`."""
        ...

    def table_min(self, size: int, index: Any, values: Any) -> Any:
        """The smallest value of each index, the dtype's largest where there is none; `[R, size]`."""
        ...

    def table_max(self, size: int, index: Any, values: Any) -> Any:
        """The largest value of each index, the dtype's smallest where there is none; `[R, size]`."""
        ...

    def look_up(self, table: Any, index: Any) -> Any:
        """The number that each row of a table has at each index of the row; `[R, N]`."""
        ...

    def picked(self, logits: Any, rows: Any, ids: Any, *, repeats: int, normalised: bool) -> Any:
        """`[E]` float32: the log-probability that row `rows[i]` of `[N, V]` logits gives `ids[i]`.

        No row is given twice but for the last `repeats`, which are among those before them. `normalised`
        ones are log-probabilities already.
        """
        ...

    def take(self, array: Any, order: Any, axis: int) -> Any:
        """Elements along an axis, by the host's numbers: a few, or int64s."""
        ...


def ops(framework: str) -> Ops:
    """Return the operations of a framework."""
    return cast(Ops, memory_of(framework))


def ops_of(array: Any) -> Ops:
    """Return the operations of an array's framework, NumPy's for what is no array."""
    return ops(framework_of(array) or "numpy")


def as_like(name: str, value: Any, like: Any, dtype: Any = None) -> Any:
    """A list as an array: of the framework and on the device of `like`, if that is one; arrays as they are.

    Args:
        name: what `value` is called.
        value: a list, or an array, or None.
        like: an array, or None for NumPy.
        dtype: what to cast a list to; None: as NumPy has it.

    Raises:
        TypeError: the list holds no numbers.
        ValueError: its rows have different lengths.
    """
    if value is None or is_array(value):
        return value
    try:
        found = np.asarray(value)
    except (ValueError, RecursionError):
        raise ValueError(f"{name} must be an array, got rows of different lengths") from None
    framework = framework_of(like)
    if framework is None:
        return found
    if found.dtype.kind not in "biuf":
        raise TypeError(f"{name} must hold numbers, got {found.dtype}")
    kernel = ops(framework)
    array = kernel.from_host(found, like)
    return array if dtype is None else kernel.cast(array, dtype)


def narrowed(name: str, array: Any, dtype: Any, *, rows: bool = True) -> Any:
    """An argument, cast as `Ops.cast` casts: checked where that waits for no device.

    Args:
        name: what the argument is called.
        array: of any framework; its first axis is of rows.
        dtype: what to cast to.
        rows: whether it is; else a vector has positions.

    Raises:
        OverflowError: a number does not fit; argument, row and position are named.
        TypeError: floats would become integers.
    """
    if array.dtype == dtype:
        return array
    try:
        return ops_of(array).cast(array, dtype)
    except Unfit as error:
        row: int | None = error.index
        position = error.position
        if array.ndim == 0 or (array.ndim == 1 and not rows):
            row, position = None, row if array.ndim else None
        text = f"{'' if array.ndim == 0 else ': '}{error}"
        raise refusal(OverflowError, text, column=name, label=name, row=row, position=position) from None


def single(name: str, logits: Any) -> Any:
    """Floats that are wider than float32 as float32, `narrowed`; others as they are."""
    return narrowed(name, logits, np.float32) if logits.dtype.itemsize > 4 else logits


def array_maker(
    target: Any, device: Any, options: Mapping[str, Any], found: str | None
) -> Callable[[Any], Any]:
    """Return a function from arrays of any framework to those of one, on a device.

    Args:
        target: a framework, or a device instead; None: `device` is given.
        device: None for the framework's default.
        options: the framework's own.
        found: the framework that arrays are of, with which they stay on a device.
    """
    if not (isinstance(target, str) and target in FRAMEWORKS):
        if target is not None and device is not None:
            raise _no_target(target)
        device = target if device is None else device
        target, device = _of_device(device, found)
    own = ops(target)

    def make(array: Any) -> Any:
        if framework_of(array) == target and not own.is_plain(array):
            return own.moved(array, device, options)  # by itself: a gradient or a trace goes along
        return own.from_numpy(as_array(array), device, options)

    return make


def _of_device(device: Any, found: str | None) -> tuple[str, Any]:
    """The framework whose arrays go to a device, and the device as it knows it."""
    staying = ["jax", "torch"] if found == "jax" else ["torch", "jax"]
    for framework in staying if device is not None else ():
        if framework == "torch" or is_imported(framework):
            known = ops(framework).device_named(device)
            if known is not None:
                return framework, known
    raise _no_target(device)


def _no_target(target: Any) -> ValueError:
    known = ", ".join(map(repr, FRAMEWORKS))
    return ValueError(f"target must be one of {known}, or a device ('cpu', 'cuda:0'), got {target!r}")
