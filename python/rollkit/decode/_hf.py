"""A causal language model of transformers, step by step: what `generate` asks of a model."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

from rollkit._check import choice
from rollkit._extras import extra
from rollkit.decode._cached import Cached
from rollkit.decode.active import Plan
from rollkit.decode.allowed import AllowedSet
from rollkit.decode.cache import can_crop, compact, crop_padding, select
from rollkit.decode.head import PartialHead

Int64s = NDArray[np.int64]
MakeCache = str | Callable[[int], Any]

CACHES: Final = ("dynamic", "static")

PREFIX: Final = 16
"""Tokens that prompts must share for these to be read by themselves: one more call of the model."""

PROBE: Final = 3
"""Tokens that a model is checked with."""

INSTEAD: Final = "use the model's own generate with rollkit.compat.transformers.Sampler"

FACTORS: Final = {
    "logit_scale": operator.mul,
    "logits_scaling": operator.truediv,
    "lm_head_multiplier": operator.mul,
    "output_multiplier": operator.mul,
    "logits_mup_width_multiplier": operator.truediv,
}
"""What configurations call a factor of the logits, and how it is used."""

CAPS: Final = ("final_logit_softcapping", "logits_soft_cap", "output_logit_soft_cap", "softcap")
"""What configurations call the c of c · tanh(logits / c)."""

_CHECKED: WeakKeyDictionary[Any, Any] = WeakKeyDictionary()
"""Models that were checked, with the head they had then: an adapter puts another one there."""


class Model:
    """The decoder, its cache, and the head sliced once for each allowed set."""

    def __init__(self, model: Any) -> None:
        """Find the parts of a `PreTrainedModel`."""
        self._torch = extra("torch", "torch")
        head = model.get_output_embeddings() if hasattr(model, "get_output_embeddings") else None
        if head is None:
            raise TypeError(f"model must be a causal language model with a head, got {type(model).__name__}")
        if getattr(model.config, "is_encoder_decoder", False):
            raise TypeError(
                f"model must be a decoder alone, got {type(model).__name__}, which has an encoder"
            )
        self._model, self._head = model, head
        self._decoder = model.get_decoder()
        self._cached = Cached(self._decoder, so_that="rows cannot leave the batch", instead=INSTEAD)
        self._config = model.config.get_text_config()
        self._heads: dict[AllowedSet, PartialHead] = {}
        self._hidden: Any = None
        self._mask: Any = None
        self._pads = self._positions = np.empty(0, np.int64)
        self.vocab_size: int = getattr(head, "base_layer", head).weight.shape[0]

    @property
    def reads(self) -> int:
        """How many tokens have an embedding: the head may have more or fewer rows."""
        return int(self._model.get_input_embeddings().weight.shape[0])

    @property
    def eos(self) -> list[int]:
        """The tokens that end a sequence, by the model's own configuration."""
        found = getattr(getattr(self._model, "generation_config", None), "eos_token_id", None)
        if found is None:
            found = self._config.eos_token_id
        return [] if found is None else [found] if isinstance(found, int) else list(found)

    def read(self, rows: list[Int64s], conditional: int, budget: int, cache: MakeCache) -> None:
        """Read prompts, each different one once, and have hidden states for the first draw.

        Args:
            rows: the prompt of each row.
            conditional: how many of them are no unconditional prompts: they come first.
            budget: tokens that are fed after these, at most.
            cache: `"dynamic"`, `"static"`, or what makes a cache for so many columns.
        """
        found: dict[bytes, int] = {}
        which = np.array([found.setdefault(row.tobytes(), len(found)) for row in rows])
        unique = [np.frombuffer(row, np.int64) for row in found]
        # Prompts are numbered as they come, so that conditional ones are in front here too.
        parts = [
            part for part in np.split(np.arange(len(unique)), [which[:conditional].max() + 1]) if len(part)
        ]
        shared = _shared(unique, parts) if self._sees_all() else np.zeros(len(unique), np.int64)
        tokens, there = _padded([prompt[n:] for prompt, n in zip(unique, shared, strict=True)])
        self._shared = int(shared.max())
        self._width = self._shared + tokens.shape[1]
        self._cache = _empty(cache, self._config, self._width + budget)
        if self._shared:
            self._read_shared(unique, shared)
        before = np.arange(self._shared) >= self._shared - shared[:, None]
        after = np.ones((len(unique), budget), bool)
        self._mask = self._tensor(np.concatenate([before, there, after], 1).astype(np.int64))
        self._pads = (~before).sum(1) + (~there).sum(1)
        hidden = self._forward(tokens, self._seen(), _positions(there) + shared[:, None])
        self._expand(hidden, which, np.array([len(prompt) for prompt in unique]))

    def _read_shared(self, prompts: list[Int64s], shared: Int64s) -> None:
        """Read each beginning once, and give it to all prompts; one without takes any, and never sees it."""
        found: dict[bytes, int] = {}
        which = [
            found.setdefault(prompt[:n].tobytes(), len(found)) if n else 0
            for prompt, n in zip(prompts, shared, strict=True)
        ]
        tokens, there = _padded([np.frombuffer(row, np.int64) for row in found])
        mask = None if there.all() else self._tensor(there.astype(np.int64))
        self._forward(tokens, mask, _positions(there))
        select(self._cache, which)

    def logits(self, allowed: AllowedSet, rows: Int64s) -> Any:
        """Return compact logits `[rows, len(allowed)]` of some rows."""
        return self._compact(allowed, self._hidden[self._tensor(rows)])

    def check(self, allowed: AllowedSet, prompt: Int64s) -> None:
        """Compare with the model's own logits once: its code, not its configuration, says what they are.

        Raises:
            TypeError: the decoder does not go on from the cache it is given, or fails.
            ValueError: logits are not what they are taken for here.
        """
        if _CHECKED.get(self._model) is self._head:
            return
        tokens = np.resize(prompt, PROBE)
        try:
            with _without_dropout(self._model):
                last = self._after_padding(tokens)
                hidden, wanted = self._whole(tokens[None])
        except (AttributeError, ValueError) as error:
            raise TypeError(
                f"{type(self._model).__name__} cannot be read with padding and a cache ({error}); {INSTEAD}"
            ) from error
        if hidden is not None:
            off = _distance(self._compact(allowed, hidden[:, -1]), wanted, allowed)
            self._refuse(off > _rounding(hidden.dtype), "makes its logits otherwise than by its head")
        # Whether the past counts at all, so that rounding in many layers is no matter.
        off = _distance(self._compact(allowed, last), wanted, allowed)
        self._refuse(off > 0.25, "gives other logits where it goes on from its cache, with padding in front")
        _CHECKED[self._model] = self._head

    def _after_padding(self, tokens: Int64s) -> Any:
        """Return the last hidden state of a row after padding, read in two steps beside a row without."""
        rows, there = _padded([np.append(tokens[:1], tokens), tokens])
        mask, places = self._tensor(there.astype(np.int64)), _positions(there)
        self._cache = _dynamic(self._config)
        self._forward(rows[:, :-1], mask[:, :-1], places[:, :-1])
        return self._forward(rows[:, -1:], mask, places[:, -1:])[1:]

    def _whole(self, tokens: Int64s) -> tuple[Any, Any]:
        """Return last hidden states, `None` if the decoder is passed by, and the model's own last logits."""
        seen: list[Any] = []
        hook = self._decoder.register_forward_hook(lambda module, given, out: seen.append(out))
        try:
            logits = self._model(input_ids=self._tensor(tokens), use_cache=False).logits[:, -1]
        finally:
            hook.remove()
        return (getattr(seen[-1], "last_hidden_state", None) if seen else None), logits

    def _refuse(self, wrong: bool, what: str) -> None:
        if wrong:
            raise ValueError(
                f"{type(self._model).__name__} {what}, so that tokens would not be its own; {INSTEAD}"
            )

    def _compact(self, allowed: AllowedSet, hidden: Any) -> Any:
        head = self._heads.get(allowed)
        if head is None:
            head = self._heads[allowed] = PartialHead.from_module(self._head, allowed)
        logits, config = head(hidden), self._config
        inverse = str(config.model_type).startswith("hyperclovax")  # Granite's name, for what multiplies
        for name, apply in FACTORS.items():
            if (factor := getattr(config, name, None)) is not None:
                logits = (operator.mul if inverse else apply)(logits, factor)
        for name in CAPS:
            if cap := getattr(config, name, None):
                logits = self._torch.tanh(logits / cap) * cap
        return logits

    def keep(self, plan: Plan, *, crop: bool) -> None:
        """Go on with the rows of a plan."""
        if not plan.changes:
            return
        compact(self._cache, plan)
        self._hidden, self._mask = compact([self._hidden, self._mask], plan)
        self._pads, self._positions = self._pads[plan.keep], self._positions[plan.keep]
        common = int(self._pads.min(initial=self._width)) if crop and len(plan.keep) else 0
        # Padding that comes after a shared beginning is in the middle.
        if common and not self._shared and all(map(can_crop, self._cache.layers)):
            crop_padding(self._cache, common)
            self._mask, self._width = self._mask[:, common:], self._width - common
            self._pads = self._pads - common

    def feed(self, tokens: Int64s) -> None:
        """Read one token for each row."""
        self._width += 1
        self._hidden = self._forward(tokens[:, None], self._seen(), self._positions[:, None])
        self._positions = self._positions + 1

    def _sees_all(self) -> bool:
        """Whether every layer sees all columns: padding in the middle would use up a window or a state."""
        return all(type(layer).__name__ == "DynamicLayer" for layer in _dynamic(self._config).layers)

    def _seen(self) -> Any:
        return self._mask[:, : self._width] if self._pads.any() else None

    def _forward(self, tokens: Int64s, mask: Any, positions: Int64s) -> Any:
        out, _ = self._cached(
            self._cache,
            input_ids=self._tensor(tokens),
            attention_mask=mask,
            position_ids=self._tensor(positions),
        )
        return out.last_hidden_state[:, -1]

    def _expand(self, hidden: Any, which: Int64s, lengths: Int64s) -> None:
        """Give each row the state of its prompt."""
        if not np.array_equal(which, np.arange(len(lengths))):
            select(self._cache, which)
            hidden, self._mask = select([hidden, self._mask], which)
        self._hidden, self._pads, self._positions = hidden, self._pads[which], lengths[which]

    def _tensor(self, array: Int64s) -> Any:
        return self._torch.tensor(array, device=self._model.device)


def check_cache(make: Any) -> MakeCache:
    """Refuse what makes no cache; a cache itself has no place for it to be told how wide it must be."""
    if hasattr(make, "update"):
        name = make.__name__ if isinstance(make, type) else type(make).__name__
        raise TypeError(
            f"cache must be 'dynamic', 'static' or a function, got {name}; "
            f"pass a function that makes one: lambda columns: {name}(…)"
        )
    return make if callable(make) else choice("cache", make, CACHES)


@contextmanager
def _without_dropout(model: Any) -> Iterator[None]:
    """Switch modules that are training to evaluation, and back: two passes must be alike."""
    training = [module for module in model.modules() if module.training]
    for module in training:
        module.training = False
    try:
        yield
    finally:
        for module in training:
            module.training = True


def _distance(compact: Any, full: Any, allowed: AllowedSet) -> float:
    """Return how far logits are apart, as a share of the largest; NaN if one is NaN, as others find."""
    wanted = allowed.compact(full).float().to(compact.device)
    return float((compact.float() - wanted).abs().max() / wanted.abs().max())


def _rounding(dtype: Any) -> float:
    """Return what one product may be off by: 0.03 % in float32, 9 % in bfloat16."""
    return math.sqrt(extra("torch", "torch").finfo(dtype).eps)


def _dynamic(config: Any) -> Any:
    return extra("transformers", "transformers").DynamicCache(config=config)


def _empty(make: MakeCache, config: Any, columns: int) -> Any:
    """Make a cache, and refuse one whose rows cannot move or that is too short for the last step."""
    if make == "dynamic":
        return _dynamic(config)
    if make == "static":
        return extra("transformers", "transformers").StaticCache(config=config, max_cache_len=columns)
    cache: Any = make(columns) if callable(make) else None
    if not (hasattr(cache, "layers") and hasattr(cache, "update")):
        raise TypeError(f"cache must return a transformers Cache, got {type(cache).__name__}")
    if length := int(cache.get_seq_length()):
        raise ValueError(f"cache must return an empty cache, got one of {length} tokens; make it anew")
    for number, layer in enumerate(cache.layers):
        if hasattr(layer, "_quantize"):
            raise TypeError(
                f"layer {number} of cache is a {type(layer).__name__}, whose rows cannot be moved; "
                "pass a cache that is not quantised"
            )
        room = getattr(layer, "max_cache_len", columns)
        if room < columns and not layer.is_sliding:
            raise ValueError(
                f"layer {number} of cache has room for {room} tokens, prompts and responses need {columns}: "
                "make as many columns as the function is given"
            )
    return cache


def _shared(prompts: list[Int64s], parts: list[Int64s]) -> Int64s:
    """Say how many first tokens of each prompt to read once for its part: conditional ones, or others.

    Zeros, where that would save fewer tokens than another call of the model is worth, or make the cache
    wider by more than an eighth: beginnings are all as wide as the longest, and so are the ends.
    """
    shared = np.zeros(len(prompts), np.int64)
    for part in parts:
        shared[part] = _common([prompts[i] for i in part])
    lengths = np.array([len(prompt) for prompt in prompts])
    width, head, tail = lengths.max(), shared.max(), (lengths - shared).max()
    heads = len({prompt[:n].tobytes() for prompt, n in zip(prompts, shared, strict=True) if n})
    saved = len(prompts) * (width - tail) - heads * head
    return shared if saved >= PREFIX and head + tail <= 1.125 * width else np.zeros_like(shared)


def _common(prompts: list[Int64s]) -> int:
    """Return how many first tokens are the same; the last one of each prompt is read with the rest."""
    most = min(map(len, prompts)) - 1
    same = np.all([prompt[:most] == prompts[0][:most] for prompt in prompts], axis=0)
    count = most if same.all() else int(np.argmin(same))
    return count if count >= PREFIX else 0


def _padded(rows: list[Int64s]) -> tuple[Int64s, NDArray[np.bool_]]:
    """Return tokens with padding on the left, and where they are."""
    lengths = np.array([len(row) for row in rows])
    width = int(lengths.max())
    there = np.arange(width) >= width - lengths[:, None]
    tokens = np.zeros((len(rows), width), np.int64)
    tokens[there] = np.concatenate(rows)
    return tokens, there


def _positions(there: NDArray[np.bool_]) -> Int64s:
    found: Int64s = np.maximum(there.cumsum(1) - 1, 0)
    return found
