"""The output head sliced to the allowed tokens: `PartialHead`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from rollkit._arrays.ops import narrowed, ops, ops_of
from rollkit._check import integer
from rollkit._frameworks import Framework, framework_of, is_array, kind_of, same_framework
from rollkit.decode._operations import operations, operations_of
from rollkit.decode._peft import LoRA as LoRA
from rollkit.decode._peft import adapters_of
from rollkit.decode.allowed import AllowedSet


class _Rows:
    """The allowed rows of one array, sliced once; again when the array was written to or replaced.

    One range of rows is a view in torch and NumPy, and always up to date. So is the covering window of
    a set with few holes, whose columns too many are dropped from the logits.
    """

    __slots__ = ("_made_of", "_rows", "allowed", "source", "window")

    def __init__(self, source: Any, allowed: AllowedSet, window: range | None) -> None:
        self.source, self.allowed, self.window = source, allowed, window
        self._made_of: Any = (None, None)
        self._rows: Any = None

    def get(self) -> Any:
        state = self.state()
        if self._rows is None or state != self._made_of[0]:
            # The source is kept, so that a new one cannot be where it was.
            self._rows, self._made_of = self._slice(), (state, self.source)
        return self._rows

    def drop(self) -> None:
        self._rows = None

    def state(self) -> Any:
        return operations_of(self.source).state(self.source)

    def _slice(self) -> Any:
        kernel = operations_of(self.source)
        source = kernel.detached(self.source)
        with kernel.trainable():
            if self.window is not None:
                return source[self.window.start : self.window.stop]
            return source[self.allowed.index_on(source)]


class PartialHead:
    """`lm_head` on the allowed tokens only: `[..., hidden]` to compact logits `[..., len(allowed)]`.

    Rows are sliced once, not in every step: as a view if the set is one range, or one range but for
    `waste`; else gathered. In torch a slice is made again when the weight was written to in place (an
    optimiser step, `load_state_dict`) or moved, and one of a module when its weight is another one.
    Writes through `.data`, to tensors made in inference mode and to NumPy arrays go unseen where the
    slice is a copy, so call `refresh` after those. JAX arrays never change: call `refresh(weight)` with
    the new one. In JAX a head is a pytree: pass it to a jitted function as an argument, so that its rows
    are no constants.

    Hidden states and weight meet in the wider of their dtypes, which is that of the logits. Adapters get
    the hidden states in their own dtype, and what they add is rounded to that of the logits, as in PEFT.

    For decoding: no gradient flows to the weight.

    Args:
        weight: `[vocab, hidden]` of torch, JAX or NumPy; of a tied model, the embedding's weight.
        allowed: the columns wanted.
        bias: `[vocab]`, or `None`.
        vocab_axis: 0, or 1 for a `[hidden, vocab]` kernel, as Flax has.
        scale: of a quantised weight, `[vocab]`, `[vocab, 1]` or `[vocab, groups]` (`hidden` is split
            evenly): a row is `weight * scale`. The slice is multiplied out once, to `scale`'s dtype.
        lora: a `LoRA`, or several, added to the logits.
        waste: the share of columns that may be computed in vain to make do with a view.

    Raises:
        TypeError: arrays of several frameworks, or an integer weight without `scale`.
        ValueError: shapes do not fit, or `weight` has not `allowed.vocab_size` rows.

    Example:
        >>> weight = np.arange(12, dtype=np.float32).reshape(6, 2)
        >>> head = PartialHead(weight, AllowedSet([1, 4], 6))
        >>> head(np.float32([[1, 0]]))
        array([[2., 8.]], dtype=float32)
        >>> PartialHead(weight, AllowedSet(range(2, 5), 6)).is_view
        True
    """

    def __init__(
        self,
        weight: Any,
        allowed: AllowedSet,
        bias: Any = None,
        *,
        vocab_axis: int = 0,
        scale: Any = None,
        lora: LoRA | list[LoRA] | None = None,
        waste: float = 0.125,
    ) -> None:
        """See the class."""
        if not isinstance(allowed, AllowedSet):
            raise TypeError(f"allowed must be an AllowedSet, got {type(allowed).__name__}")
        self.allowed = allowed
        self._loras = _loras_of(lora)
        self._vocab_axis = vocab_axis
        self._module: Any = None
        self._framework: Framework = same_framework(
            weight=weight,
            bias=bias,
            scale=scale,
            **{f"lora[{i}].a": one.a for i, one in enumerate(self._loras)},
            **{f"lora[{i}].b": one.b for i, one in enumerate(self._loras)},
        )
        if integer("vocab_axis", vocab_axis) not in (0, 1):
            raise ValueError(f"vocab_axis must be 0 or 1, got {vocab_axis}")
        if not len(allowed):
            raise ValueError("allowed is empty; a head needs at least one token")
        self._window = allowed.span or (allowed.window(waste) if scale is None else None)
        self._columns: Any = None
        if self._window is not None and not allowed.span:
            self._columns = allowed.ids - self._window.start
        if kind_of(_check_array("weight", weight)) != "float" and scale is None:
            raise TypeError(
                f"weight is {weight.dtype} without scale; pass scale=…, or floating-point numbers"
            )
        weight = weight.T if vocab_axis else weight
        self._weight = self._rows("weight", weight, 2)
        self._bias = None if bias is None else self._rows("bias", bias, 1)
        self._scale = None if scale is None else self._rows("scale", scale, None)
        self._b = [self._rows("lora.b", one.b, 2) for one in self._loras]
        for i, one in enumerate(self._loras):
            wanted = (one.b.shape[1], weight.shape[1])
            if tuple(one.a.shape) != wanted:
                raise ValueError(
                    f"lora[{i}].a must be [rank, hidden] = {wanted}, got shape {tuple(one.a.shape)}"
                )
        self._wide: dict[Any, Any] = {}
        operations(self._framework).register_head(PartialHead, SlicedHead)

    @classmethod
    def from_module(cls, module: Any, allowed: AllowedSet, *, waste: float = 0.125) -> PartialHead:
        """Slice a torch module: a `Linear`, an `Embedding` (tied), or PEFT's LoRA around one.

        The head follows the module: a weight put in place of another, adapters switched on or off.

        Args:
            module: has `weight` and maybe `bias`; or `base_layer` with those, and adapters of LoRA,
                which are added if they are active and neither merged nor disabled.
            allowed: the columns wanted.
            waste: as for the class.

        Raises:
            TypeError: the module has no floating-point `weight`, or is wrapped by what is no LoRA.
            ValueError: an adapter is DoRA or another variant, or has a bias of its own.
        """
        base = getattr(module, "base_layer", module)
        weight = getattr(base, "weight", None)
        if weight is None or not weight.dtype.is_floating_point:
            raise TypeError(
                f"{type(base).__name__} has no floating-point weight; "
                "pass PartialHead(weight, allowed, scale=…)"
            )
        head = cls(weight, allowed, getattr(base, "bias", None), lora=adapters_of(module), waste=waste)
        head._module = module
        return head

    @property
    def is_view(self) -> bool:
        """Whether the slice shares the weight's memory (not for JAX, nor for quantised weights)."""
        return self._window is not None and ops(self._framework).IN_PLACE and self._scale is None

    @property
    def weight(self) -> Any:
        """The rows in use, `[rows, hidden]`: those of the window where there is one."""
        rows = self._weight.get()
        return rows if self._scale is None else self._multiplied_out(rows, self._scale.get())

    def refresh(self, weight: Any = None) -> None:
        """Slice again on the next call.

        Args:
            weight: the new weight, in the old one's shape; `None`: the same array, written to.
        """
        if weight is not None:
            weight = weight.T if self._vocab_axis else weight
            same_framework(weight=self._weight.source, new=weight)
            self._check_shape(weight)
            self._weight.source = weight
        for rows in (self._weight, self._bias, self._scale, *self._b):
            if rows is not None:
                rows.drop()
        self._wide.clear()

    def __call__(self, hidden: Any) -> Any:
        """Return compact logits.

        Args:
            hidden: `[..., hidden]`, on the weight's device.

        Returns:
            `[..., len(allowed)]`, in the wider dtype of `hidden` and the weight.
        """
        self._follow()
        width = self._weight.source.shape[1]
        framework = framework_of(hidden) or self._framework
        both = operations(framework), operations(self._framework)
        if framework != self._framework and not all(one.JOINS_NUMPY for one in both):
            same_framework(weight=self._weight.source, hidden=hidden)
        if not hasattr(hidden, "shape") or tuple(hidden.shape[-1:]) != (width,):
            shape = np.shape(hidden) if not hasattr(hidden, "shape") else tuple(hidden.shape)
            raise ValueError(
                f"hidden must be an array [..., {width}], as wide as the weight, got shape {shape}"
            )
        bias = None if self._bias is None else self._bias.get()
        detached = operations(self._framework).detached
        loras = [(detached(one.a), b.get(), one.scaling) for one, b in zip(self._loras, self._b, strict=True)]
        logits = _logits(hidden, self.weight, bias, loras)
        return logits if self._columns is None else logits[..., self._columns_on(logits)]

    def _follow(self) -> None:
        """Take what the module has now."""
        if self._module is None:
            return
        base = getattr(self._module, "base_layer", self._module)
        weight, loras = base.weight, adapters_of(self._module)
        if weight is not self._weight.source:
            self._check_shape(weight)
            self._weight.source = weight
        if self._bias is not None:
            self._bias.source = base.bias
        if len(loras) != len(self._b):
            self._b = [self._rows("lora.b", one.b, 2) for one in loras]
        for rows, one in zip(self._b, loras, strict=True):
            rows.source = one.b
        self._loras = loras

    def _check_shape(self, weight: Any) -> None:
        if not is_array(weight):
            raise TypeError(f"weight must be an array, got {type(weight).__name__}")
        if weight.shape != self._weight.source.shape:
            raise ValueError(
                f"weight must have shape {tuple(self._weight.source.shape)}, got {tuple(weight.shape)}"
            )

    def __repr__(self) -> str:
        """Show how the head is sliced."""
        how = "view" if self.is_view else "copy"
        return f"PartialHead({self.allowed!r}, {how} of {tuple(self._weight.source.shape)})"

    def _rows(self, name: str, array: Any, ndim: int | None) -> _Rows:
        _check_array(name, array)
        if (ndim is not None and array.ndim != ndim) or array.shape[0] != self.allowed.vocab_size:
            wanted = "[vocab, …]" if ndim != 1 else "[vocab]"
            raise ValueError(
                f"{name} must be {wanted} with vocab = {self.allowed.vocab_size}, the vocab_size of allowed, "
                f"got shape {tuple(array.shape)}"
            )
        return _Rows(array, self.allowed, self._window)

    def _columns_on(self, logits: Any) -> Any:
        kernel = ops_of(logits)
        device = kernel.device(logits)
        if device not in self._wide:
            self._wide[device] = kernel.index(self._columns, logits)
        return self._wide[device]

    def _multiplied_out(self, rows: Any, scale: Any) -> Any:
        """Return a quantised slice as numbers, made once for each state of both arrays."""
        key = id(rows), id(scale)
        if self._wide.get("of") != key or self._weight.state() != self._wide["state"]:
            groups = 1 if scale.ndim == 1 else scale.shape[1]
            if rows.shape[1] % groups:
                raise ValueError(f"scale has {groups} groups, which do not divide hidden = {rows.shape[1]}")
            with operations_of(rows).trainable():
                split = narrowed("weight", rows, scale.dtype).reshape(len(rows), groups, -1)
                product = split * scale.reshape(len(rows), groups, 1)
            self._wide |= {
                "of": key,
                "state": self._weight.state(),
                "rows": product.reshape(rows.shape),
            }
        return self._wide["rows"]


def _loras_of(lora: Any) -> list[LoRA]:
    found = [lora] if isinstance(lora, LoRA) else [] if lora is None else lora
    if not isinstance(found, list | tuple) or not all(isinstance(one, LoRA) for one in found):
        raise TypeError(f"lora must be a LoRA or a list of them, got {type(lora).__name__}; pass LoRA(a, b)")
    return list(found)


def _check_array(name: str, array: Any) -> Any:
    if not is_array(array):
        raise TypeError(f"{name} must be an array of torch, JAX or NumPy, got {type(array).__name__}")
    return array


def _logits(hidden: Any, weight: Any, bias: Any, loras: Any) -> Any:
    """Return `[..., rows]` logits of sliced rows, in one dtype for all frameworks, traced or not."""
    logits = operations_of(hidden).product(hidden, weight, bias)
    dtype = logits.dtype
    for a, b, scaling in loras:
        logits = logits + (narrowed("hidden", hidden, a.dtype) @ a.T) @ b.T * scaling
    return narrowed("logits", logits, dtype)


@dataclass(frozen=True, slots=True)
class SlicedHead:
    """A `PartialHead` inside a jitted function: its slices, without what they were made of."""

    weight: Any
    bias: Any
    loras: tuple[tuple[Any, Any], ...]
    allowed: AllowedSet
    columns: tuple[int, ...] | None
    scalings: tuple[float, ...]

    @classmethod
    def of(cls, head: PartialHead) -> SlicedHead:
        """Take the slices of a head."""
        return cls(
            head.weight,
            None if head._bias is None else head._bias.get(),
            tuple((one.a, b.get()) for one, b in zip(head._loras, head._b, strict=True)),
            head.allowed,
            None if head._columns is None else tuple(head._columns.tolist()),
            tuple(one.scaling for one in head._loras),
        )

    def flatten(self) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
        """Return the arrays, and what is no array, as JAX's pytrees want them."""
        return (self.weight, self.bias, self.loras), (self.allowed, self.columns, self.scalings)

    @classmethod
    def unflatten(cls, rest: tuple[Any, ...], arrays: tuple[Any, ...]) -> SlicedHead:
        """Undo `flatten`."""
        return cls(*arrays, *rest)

    def __call__(self, hidden: Any) -> Any:
        """Return compact logits, as `PartialHead` does."""
        loras = [(a, b, scaling) for (a, b), scaling in zip(self.loras, self.scalings, strict=True)]
        logits = _logits(hidden, self.weight, self.bias, loras)
        return logits if self.columns is None else logits[..., np.array(self.columns)]
