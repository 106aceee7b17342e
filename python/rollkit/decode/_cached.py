"""A transformers model called with a cache: what its forward calls it, and that the same one comes back."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from typing import Any, Final

from rollkit.decode.cache import is_empty

NAMES: Final = ("cache", "past_key_values")
"""What forwards call the cache they take and outputs the one they return, newest first."""

RECOMPUTES: Final = ("is_activation_checkpointing", "is_gradient_checkpointing")
"""What models call whether they have gradient checkpointing, newest first: older ones warn."""

CACHE_OFF: Final = "call model.eval(), or switch gradient checkpointing off"


class Cached:
    """A model that goes on from the cache it is given; another one is refused by name.

    A forward with `**kwargs` takes any name without a word, and may then read its tokens as if nothing came
    before them: so the cache that comes back must be the one that was passed.
    """

    def __init__(self, model: Any, *, so_that: str, instead: str) -> None:
        """Find what the model calls its cache.

        Args:
            model: a module, or a function.
            so_that: what cannot be done without, for the message.
            instead: what to do then.

        Raises:
            TypeError: it takes none.
        """
        self._model, self._so_that, self._instead = model, so_that, instead
        name = cache_name(model)
        if name is None:
            raise self._refusal(f"takes no {' or '.join(NAMES)}")
        self._name = name

    def __call__(self, cache: Any, *, input_ids: Any, attention_mask: Any, **inputs: Any) -> tuple[Any, Any]:
        """Return the output, and the cache: the one that was passed, or with `None` the model's own.

        Args:
            cache: what came back of the call before, one of the caller's making, or `None`.
            input_ids: `[rows, tokens]`, after those that were read already.
            attention_mask: `[rows, read and new tokens]`, or `None`.
            **inputs: what else the model takes.

        Raises:
            TypeError: no cache came back, another one, or one that nothing was written to.
        """
        if attention_mask is not None and not _has_columns(cache):
            attention_mask = attention_mask[:, -input_ids.shape[1] :]
        out = self._model(
            input_ids=input_ids,
            attention_mask=attention_mask,
            use_cache=True,
            **{self._name: cache},
            **inputs,
        )
        came = _cache_of(out)
        if came is None:
            raise self._refusal("returns no cache")
        if cache is not None and came is not cache:
            raise self._refusal(f"does not go on from the {self._name} it is given")
        if is_empty(came):
            raise self._refusal("returns an empty cache")
        return out, came

    def _refusal(self, what: str) -> TypeError:
        model = self._model
        name = getattr(model, "__name__", type(model).__name__)
        fix = CACHE_OFF if _recomputes(model) else self._instead
        return TypeError(f"{name} {what}, so that {self._so_that}; {fix}")


def cache_name(model: Any) -> str | None:
    """Return what a model calls the cache it takes; `None` if it takes none."""
    for forward in _forwards(model):
        parameters = inspect.signature(forward).parameters  # as declared: seen through decorators
        for name in NAMES:
            if name in parameters:
                return name
    return None


def _forwards(model: Any) -> Iterator[Callable[..., Any]]:
    """Yield a model's forward, and those it may pass keywords on to: its base classes', its modules'."""
    own = getattr(model, "forward", model)
    yield own
    if not any(one.kind is one.VAR_KEYWORD for one in inspect.signature(own).parameters.values()):
        return
    for kind in type(model).__mro__:
        if "forward" in vars(kind):
            yield vars(kind)["forward"]
    for module in model.modules() if hasattr(model, "modules") else ():
        yield module.forward


def _recomputes(model: Any) -> bool:
    """Whether a model in training has gradient checkpointing, for which it may switch its cache off."""
    kind = type(model)
    name = next((name for name in RECOMPUTES if hasattr(kind, name)), None)
    return name is not None and bool(getattr(model, name)) and model.training


def _has_columns(cache: Any) -> bool:
    """Whether a mask is of what a cache holds, too: not where all layers keep states (Mamba)."""
    layers = getattr(cache, "layers", None)
    return not layers or any(hasattr(layer, "get_seq_length") for layer in layers)


def _cache_of(out: Any) -> Any:
    """Return the cache of an output, by any name: an old model's own code fills transformers' new output."""
    found = (getattr(out, name, None) for name in NAMES)
    return next((cache for cache in found if cache is not None), None)
