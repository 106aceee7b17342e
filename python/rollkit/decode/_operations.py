"""What decoding needs of a framework beyond `rollkit._arrays`: one module each, with the same names.

A framework that joins brings a module `_<framework>.py` with these. Where it also has a faster kernel for
some draws, `KERNELS` names the module that tells which.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, Final, Protocol, cast

from rollkit._frameworks import framework_of, implementation

if TYPE_CHECKING:
    from rollkit.decode._request import Request
    from rollkit.decode.allowed import AllowedSet

Drawn = tuple[Any, Any, Any, Any]
"""Token ids, log-probabilities or `None`, statuses, and a `Kept`, a mask where traced, or `None`."""


class Draws(Protocol):
    """A module that draws."""

    def draw(self, request: Request) -> Drawn:
        """`rollkit.decode.sample`."""
        ...


class Operations(Draws, Protocol):
    """The module of a framework. Arrays in it are the framework's own, unless a name says otherwise."""

    JOINS_NUMPY: bool
    """Whether one product may have factors of it and of NumPy."""

    def guide(self, cond: Any, uncond: Any, scale: Any) -> Any:
        """`rollkit.decode.cfg`; `scale` is a number or any array of one per row."""
        ...

    def uniforms(self, seeds: Any, positions: Any, ids: Any) -> Any:
        """`rollkit.decode.uniforms`; `seeds` and `positions` may be of other frameworks."""
        ...

    def replay(self, logits: Any, tokens: Any, rows: Any, columns: Any, temperature: Any) -> Any:
        """`rollkit.decode.replay_logprobs` over kept entries, which NumPy's `rows` and `columns` name."""
        ...

    def look_up(self, ids: Any, starts: Any, stops: Any, targets: Any) -> Any:
        """Map a number within run r of `starts` to `stops` onto `targets[r]`, -1 for one within none."""
        ...

    def csr(self, mask: Any, allowed: AllowedSet) -> tuple[Any, Any]:
        """Global ids and offsets of a mask over local ids, on its device."""
        ...

    def product(self, hidden: Any, weight: Any, bias: Any) -> Any:
        """`hidden @ weight.T + bias` in the wider dtype of hidden states and weight."""
        ...

    def detached(self, array: Any) -> Any:
        """The array, without a gradient to it."""
        ...

    def trainable(self) -> AbstractContextManager[Any]:
        """Make arrays that are kept such that they can be trained with later."""
        ...

    def state(self, array: Any) -> Any:
        """What changes when the array is written to or moved, as far as the framework can tell."""
        ...

    def register_head(self, head: type[Any], sliced: type[Any]) -> None:
        """Make heads, and what they are inside of jitted functions, trees of arrays, once."""
        ...


def operations(framework: str) -> Operations:
    """Return a framework's operations."""
    return cast(Operations, implementation(f"rollkit.decode._{framework}"))


def operations_of(array: Any) -> Operations:
    """Return the operations of an array's framework, NumPy's for what is no array."""
    return operations(framework_of(array) or "numpy")


KERNELS: Final = {"torch": "rollkit.decode._cuda"}


def drawer(request: Request) -> Draws:
    """Return the module that draws where Rust cannot: of a kernel if one can, else the framework's own."""
    choice = KERNELS.get(framework_of(request.cond) or "")
    kernel: Draws | None = implementation(choice).kernel_for(request) if choice else None
    return kernel or operations_of(request.cond)
