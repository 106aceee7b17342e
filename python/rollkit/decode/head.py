"""The output head sliced to the allowed tokens: `PartialHead`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from rollkit.decode._framework import Framework, framework_of, same_framework
from rollkit.decode.allowed import AllowedSet


class LoRA(NamedTuple):
    """A low-rank addition to a head: `hidden @ a.T @ b.T * scaling`."""

    a: Any
    """`[rank, hidden]`."""
    b: Any
    """`[vocab, rank]`; sliced with the head."""
    scaling: float = 1.0


class _Rows:
    """The allowed rows of one array, sliced once; again when the array was written to or replaced.

    One range of rows is a view in torch and NumPy, and always up to date. So is the covering window of
    a set with few holes, whose columns too many are dropped from the logits.
    """

    __slots__ = ("_made_of", "_rows", "allowed", "source", "window")

    def __init__(self, source: Any, allowed: AllowedSet, window: range | None) -> None:
        self.source, self.allowed, self.window = source, allowed, window
        self._made_of: Any = None
        self._rows: Any = None

    def get(self) -> Any:
        made_of = self._state()
        if self._rows is None or made_of != self._made_of:
            self._rows, self._made_of = self._slice(), made_of
        return self._rows

    def drop(self) -> None:
        self._rows = None

    def _state(self) -> Any:
        if framework_of(self.source) == "torch":
            return self.source.data_ptr(), self.source._version, self.source.device, self.source.dtype
        return id(self.source)

    def _slice(self) -> Any:
        source = self.source.detach() if framework_of(self.source) == "torch" else self.source
        if self.window is not None:
            return source[self.window.start : self.window.stop]
        return source[self.allowed.index_on(source)]


class PartialHead:
    """`lm_head` on the allowed tokens only: `[..., hidden]` to compact logits `[..., len(allowed)]`.

    Rows are sliced once, not in every step: as a view if the set is one range, or one range but for
    `waste`; else gathered. In torch a slice is made again when the weight was written to in place (an
    optimiser step, `load_state_dict`) or moved; writes through `.data` go unseen, so call `refresh`
    after those. JAX arrays never change: call `refresh(weight)` with the new one. In JAX a head is a
    pytree: pass it to a jitted function as an argument, so that its rows are no constants.

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
        TypeError: arrays of several frameworks.
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
        self.allowed = allowed
        self._loras = [lora] if isinstance(lora, LoRA) else list(lora or ())
        self._vocab_axis = vocab_axis
        self._framework: Framework = same_framework(
            weight=weight,
            bias=bias,
            scale=scale,
            **{f"lora[{i}].b": one.b for i, one in enumerate(self._loras)},
        )
        if vocab_axis not in (0, 1):
            raise ValueError(f"vocab_axis must be 0 or 1, got {vocab_axis}")
        if not len(allowed):
            raise ValueError("allowed is empty; a head needs at least one token")
        self._window = allowed.span or (allowed.window(waste) if scale is None else None)
        self._columns = None if self._window is None or allowed.span else allowed.ids - self._window.start
        weight = weight.T if vocab_axis else weight
        self._weight = self._rows("weight", weight, 2)
        self._bias = None if bias is None else self._rows("bias", bias, 1)
        self._scale = None if scale is None else self._rows("scale", scale, None)
        self._b = [self._rows("lora.b", one.b, 2) for one in self._loras]
        self._wide: dict[Any, Any] = {}
        if self._framework == "jax":
            from rollkit.decode import _jax

            _jax.register_head(PartialHead, SlicedHead)

    @classmethod
    def from_module(cls, module: Any, allowed: AllowedSet, *, waste: float = 0.125) -> PartialHead:
        """Slice a torch module: a `Linear`, an `Embedding` (tied), or PEFT's LoRA around one.

        Args:
            module: has `weight` and maybe `bias`; or `base_layer` with those, `lora_A`, `lora_B` and
                `scaling`, whose active adapters are added unless they are merged.
            allowed: the columns wanted.
            waste: as for the class.

        Raises:
            TypeError: the module has no floating-point `weight`.
        """
        base = getattr(module, "base_layer", module)
        weight = getattr(base, "weight", None)
        if weight is None or not weight.dtype.is_floating_point:
            raise TypeError(
                f"{type(base).__name__} has no floating-point weight; "
                "pass PartialHead(weight, allowed, scale=…)"
            )
        lora = []
        if base is not module and not getattr(module, "merged", False):
            for name in module.active_adapters:
                if name in module.lora_A:
                    a, b = module.lora_A[name].weight, module.lora_B[name].weight
                    lora.append(LoRA(a, b, module.scaling[name]))
        return cls(weight, allowed, getattr(base, "bias", None), lora=lora, waste=waste)

    @property
    def is_view(self) -> bool:
        """Whether the slice shares the weight's memory (not for JAX, nor for quantised weights)."""
        return self._window is not None and self._framework != "jax" and self._scale is None

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
            if weight.shape != self._weight.source.shape:
                raise ValueError(
                    f"weight must have shape {tuple(self._weight.source.shape)}, got {tuple(weight.shape)}"
                )
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
            `[..., len(allowed)]`, in the dtype of the product.
        """
        weight = self.weight
        if self._scale is not None:
            weight = weight.to(hidden.dtype) if self._framework == "torch" else weight.astype(hidden.dtype)
        logits = hidden @ weight.T
        if self._bias is not None:
            logits = logits + self._bias.get()
        for one, b in zip(self._loras, self._b, strict=True):
            logits = logits + (hidden @ one.a.T) @ b.get().T * one.scaling
        return logits if self._columns is None else logits[..., self._columns_on(logits)]

    def __repr__(self) -> str:
        """Show how the head is sliced."""
        how = "view" if self.is_view else "copy"
        return f"PartialHead({self.allowed!r}, {how} of {tuple(self._weight.source.shape)})"

    def _rows(self, name: str, array: Any, ndim: int | None) -> _Rows:
        if (ndim is not None and array.ndim != ndim) or array.shape[0] != self.allowed.vocab_size:
            wanted = "[vocab, …]" if ndim != 1 else "[vocab]"
            raise ValueError(
                f"{name} must be {wanted} with vocab = {self.allowed.vocab_size}, the vocab_size of allowed, "
                f"got shape {tuple(array.shape)}"
            )
        return _Rows(array, self.allowed, self._window)

    def _columns_on(self, logits: Any) -> Any:
        if self._framework != "torch":
            return self._columns
        import torch  # noqa: TID251 - `logits` is a tensor, so it is imported

        if logits.device not in self._wide:
            self._wide[logits.device] = torch.tensor(self._columns, device=logits.device).long()
        return self._wide[logits.device]

    def _multiplied_out(self, rows: Any, scale: Any) -> Any:
        """Return a quantised slice as numbers, made once for each state of both arrays."""
        key = id(rows), id(scale)
        if self._wide.get("of") != key or self._weight._state() != self._wide["state"]:
            wide = rows.to(scale.dtype) if self._framework == "torch" else rows.astype(scale.dtype)
            groups = 1 if scale.ndim == 1 else scale.shape[1]
            if wide.shape[1] % groups:
                raise ValueError(f"scale has {groups} groups, which do not divide hidden = {wide.shape[1]}")
            product = wide.reshape(len(rows), groups, -1) * scale.reshape(len(rows), groups, 1)
            self._wide |= {
                "of": key,
                "state": self._weight._state(),
                "rows": product.reshape(wide.shape),
            }
        return self._wide["rows"]


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
        logits = hidden @ self.weight.T.astype(hidden.dtype)
        if self.bias is not None:
            logits = logits + self.bias
        for (a, b), scaling in zip(self.loras, self.scalings, strict=True):
            logits = logits + (hidden @ a.T) @ b.T * scaling
        return logits if self.columns is None else logits[..., np.array(self.columns)]
