"""An original's functions and classes replaced by ours for a while: `patched`."""

from __future__ import annotations

import functools
import importlib
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any, Final

from rollkit._check import choice

# Where each framework defines the originals; not every version has those after the first.
_HOMES: Final = {
    "flash_attn": ("flash_attn.bert_padding",),
    "skyrl": (
        "skyrl.train.generators.utils",
        "skyrl.train.utils.trainer_utils",
        "skyrl.train.dataset.preprocess",
        "skyrl.backends.skyrl_train.utils.replay_utils",
        "skyrl.backends.skyrl_train.utils.routed_experts",
    ),
    "transformer_engine": ("transformer_engine.jax.attention",),
    "trl": ("trl.trainer.utils", "trl.trainer.sft_trainer", "trl.data_utils"),
    "verifiers": ("verifiers.v1.graph",),
    "verl": ("verl.workers.utils.padding",),
}
_NOT_THEIRS: Final = {"rearrange", "concat", "attribute_routed_experts"}
"""Functions of ours that replace no function of that name in the homes."""

_lock = threading.Lock()
_entered: dict[str, int] = {}
_originals: dict[str, list[tuple[Any, Any]]] = {}


@contextmanager
def patched(name: str) -> Iterator[tuple[str, ...]]:
    """Replace a framework's functions by those of `rollkit.compat` in all loaded modules, and put them back.

    For running an original's own tests, and for what a framework makes itself and takes from nobody, as TRL's
    `SFTTrainer` its collator; for all else change the import. What is replaced is every attribute of a
    module that is the original function itself; references elsewhere, in classes, closures and default
    arguments, stay. Modules loaded meanwhile get the originals too in the end, also after an error. Blocks
    may be nested, and be entered by several threads: the last one out puts the originals back.

    Args:
        name: a module of `rollkit.compat`: `"flash_attn"`, `"skyrl"`, `"transformer_engine"`, `"trl"`,
            `"verifiers"` or `"verl"`.

    Yields:
        The names of the functions that are replaced: those that the installed version has.

    Raises:
        ValueError: the name is another.
        ImportError: the originals cannot be imported, or have none of the functions.

    Example:
        >>> with patched("trl") as names:  # doctest: +SKIP
        ...     pytest.main(["tests/test_utils.py"])
    """
    choice("name", name, tuple(_HOMES))
    homes = _imported(name, *_HOMES[name])
    with _lock:
        if not _entered.get(name):
            _originals[name] = _pairs(name, homes)
            _swap({id(original): ours for original, ours in _originals[name]})
        _entered[name] = _entered.get(name, 0) + 1
        names = tuple(original.__name__ for original, _ in _originals[name])
    try:
        yield names
    finally:
        with _lock:
            _entered[name] -= 1
            if not _entered[name]:
                _swap({id(ours): original for original, ours in _originals.pop(name)})


def _imported(name: str, first: str, *others: str) -> list[Any]:
    try:
        found = [importlib.import_module(first)]
    except ImportError as error:
        raise ImportError(
            f"patched({name!r}) replaces functions of {first}, which cannot be imported: {error}", name=first
        ) from error
    for other in others:
        with suppress(ImportError):
            found.append(importlib.import_module(other))
    return found


def _pairs(name: str, homes: list[Any]) -> list[tuple[Any, Any]]:
    """The originals, each with a stand-in that calls ours and is no other object: so it can be taken back."""
    ours = vars(importlib.import_module(f"rollkit.compat.{name}"))
    found: dict[int, tuple[Any, Any]] = {}  # several homes may have one
    for home in homes:
        for function, original in vars(home).items():
            mine: Any = ours.get(function)
            if function in _NOT_THEIRS or not _is_ours(mine) or _is_ours(original) or not callable(original):
                continue
            found.setdefault(id(original), (original, _stand_in(mine)))
    if not found:
        listed = ", ".join(home.__name__ for home in homes)
        raise ImportError(
            f"patched({name!r}) found none of its functions in {listed}; see rollkit.compat.{name}"
        )
    return list(found.values())


def _is_ours(value: Any) -> bool:
    return callable(value) and str(getattr(value, "__module__", "")).startswith("rollkit.compat.")


def _stand_in(ours: Callable[..., Any]) -> Callable[..., Any]:
    if isinstance(ours, type):
        return _subclass(ours)

    @functools.wraps(ours)
    def call(*args: Any, **kwargs: Any) -> Any:
        return ours(*args, **kwargs)

    return call


def _subclass(ours: type) -> type:
    """A class for `isinstance`; pickled, its objects become those of ours, for it has no name itself."""

    def reduce(self: Any) -> tuple[Any, ...]:
        return object.__new__, (ours,), vars(self)

    names = {"__doc__": ours.__doc__, "__module__": ours.__module__, "__qualname__": ours.__qualname__}
    return type(ours.__name__, (ours,), {**names, "__wrapped__": ours, "__reduce__": reduce})


def _swap(instead: Mapping[int, Any]) -> None:
    """Put other objects where modules have those of these ids, which are alive."""
    for module in list(sys.modules.values()):
        names = getattr(module, "__dict__", None)
        if isinstance(names, dict):
            for key, value in list(names.items()):
                if id(value) in instead:
                    names[key] = instead[id(value)]
