"""For transformers: its `DataCollatorWithFlattening`, and logits processors for `generate`.

The collator is a drop-in. The processors bring allowed tokens, guidance and keyed draws: they go into
`logits_processor=[…]` and need nothing else changed. Ended rows stay in the batch and the whole head is
computed, as `generate` does; `rollkit.decode.generate` does neither. Tried with transformers 4.57 and 5.24.
"""

from __future__ import annotations

from typing import Any, Final

from rollkit._arrays.ops import narrowed
from rollkit._extras import extra
from rollkit._frameworks import is_array
from rollkit.compat._flattening import DataCollatorWithFlattening as DataCollatorWithFlattening
from rollkit.decode._arguments import check_allowed, check_sampling, own_seeds
from rollkit.decode._cached import Cached
from rollkit.decode.allowed import AllowedSet
from rollkit.decode.generate import SAMPLING
from rollkit.decode.guidance import cfg
from rollkit.decode.sample import Status, sample

Tensor = Any
"""A `torch.Tensor`."""

SO_THAT: Final = "guidance would lose what the unconditional branch has read"
INSTEAD: Final = "pass a model that goes on from its cache, or cfg_scale=1"


class AllowedLogits:
    """A logits processor that guides, on the allowed tokens only, and masks all others with −∞.

    Replaces `guidance_scale=…` together with `prefix_allowed_tokens_fn=…`, whose masks meet in a
    difference of −∞. Tokens, temperature and filters are then `generate`'s. One object for each call of
    `generate`, or several calls one after another; not for beams. A call goes on from the one before if
    it has the same tokens and one more: make a new object for prompts that are the last call's output and
    a token, as nothing tells these apart.

    Args:
        allowed: what may be drawn.
        cfg_scale: guidance `u + s (c − u)`; needs `model`.
        model: the model that `generate` runs, for the unconditional branch.
        unconditional_ids: `[rows, width]` its prompts; `None`: the last token of each prompt.
        unconditional_attention_mask: `[rows, width]`, 0 for padding on the left; `None`: all ones.

    Raises:
        ValueError: `cfg_scale` is not 1 and there is no `model`.
        TypeError: `model` takes no cache, or does not go on from the one it returned.

    Example:
        >>> import torch
        >>> process = AllowedLogits(AllowedSet([1, 3], 4))
        >>> process(torch.tensor([[0]]), torch.tensor([[5.0, 1.0, 5.0, 2.0]]))
        tensor([[-inf, 1., -inf, 2.]])
    """

    supports_continuous_batching = False

    def __init__(
        self,
        allowed: AllowedSet,
        *,
        cfg_scale: float = 1.0,
        model: Any = None,
        unconditional_ids: Tensor = None,
        unconditional_attention_mask: Tensor = None,
    ) -> None:
        """See the class."""
        check_allowed(allowed)
        check_sampling({"cfg_scale": cfg_scale})
        if cfg_scale != 1 and not callable(model):
            raise ValueError(f"cfg_scale is {cfg_scale} without model; pass the model that generates")
        _check_prompt(unconditional_ids, unconditional_attention_mask)
        self.allowed, self.cfg_scale = allowed, cfg_scale
        self._model: Any = None if cfg_scale == 1 else Cached(model, so_that=SO_THAT, instead=INSTEAD)
        self._prompt = unconditional_ids, unconditional_attention_mask
        self._seen: Tensor = None
        self._cache: Any = None
        self._mask: Tensor = None
        self._began = 0

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Return `[rows, vocab]` logits, −∞ where not allowed."""
        guided = self._compact(input_ids, scores)
        return self._spread(guided, scores)

    def _compact(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Return guided compact logits."""
        first = self._starts(input_ids)
        compact = self.allowed.compact(scores)
        if self.cfg_scale == 1:
            return compact
        uncond = self.allowed.compact(self._unconditional(input_ids, first))
        return cfg(compact, narrowed("unconditional logits", uncond, compact.dtype), self.cfg_scale)

    def _spread(self, compact: Tensor, scores: Tensor) -> Tensor:
        out = extra("torch", "torch").full_like(scores, float("-inf"))
        out[:, self.allowed.index_on(scores)] = narrowed("guided logits", compact, scores.dtype)
        return out

    def _starts(self, input_ids: Tensor) -> bool:
        """Whether this is the first call of a `generate`: not what was seen before and one token."""
        torch, before = extra("torch", "torch"), self._seen
        goes_on = before is not None and torch.equal(input_ids[:, :-1], before)
        self._seen = input_ids
        if not goes_on:
            self._began, self._cache = input_ids.shape[1], None
        return not goes_on

    def _unconditional(self, input_ids: Tensor, first: bool) -> Tensor:
        torch = extra("torch", "torch")
        if first:
            tokens, mask = self._prompt
            tokens = input_ids[:, -1:] if tokens is None else tokens.to(input_ids.device)
            if len(tokens) != len(input_ids):
                raise ValueError(
                    f"unconditional_ids must have {len(input_ids)} rows, as input_ids, got {len(tokens)}"
                )
            self._mask = torch.ones_like(tokens) if mask is None else mask.to(input_ids.device)
            positions = (self._mask.cumsum(-1) - 1).clamp(min=0)
        else:
            tokens = input_ids[:, -1:]
            self._mask = torch.nn.functional.pad(self._mask, (0, 1), value=1)
            positions = self._mask.sum(-1, keepdim=True) - 1
        out, self._cache = self._model(
            self._cache, input_ids=tokens, attention_mask=self._mask, position_ids=positions
        )
        return out.logits[:, -1]


def _check_prompt(tokens: Any, mask: Any) -> None:
    for name, found in (("unconditional_ids", tokens), ("unconditional_attention_mask", mask)):
        if found is not None and not (is_array(found) and found.ndim == 2):
            what = tuple(found.shape) if is_array(found) else type(found).__name__
            raise TypeError(f"{name} must be a tensor [rows, width], got {what}")
    if mask is not None and (tokens is None or mask.shape != tokens.shape):
        shape = None if tokens is None else tuple(tokens.shape)
        raise ValueError(
            "unconditional_attention_mask must have the shape of unconditional_ids, "
            f"{shape}, got {tuple(mask.shape)}"
        )


class Sampler(AllowedLogits):
    """A logits processor that draws: all tokens but the drawn one get −∞, so that `generate` takes it.

    Tokens are those of `rollkit.decode.generate` with the same seeds, as far as logits are the same:
    noise is keyed by (seed, position, token), where `torch.multinomial` draws from one stream for all
    rows. Put it last, and leave `temperature`, `top_k`, `top_p` of `generate` at their neutral values
    (`do_sample=False` does).

    Args:
        allowed: what may be drawn.
        seeds: `[rows]` ints, or one from which each row gets its own, as in `generate`.
        cfg_scale: as for `AllowedLogits`, with `model` and the unconditional prompts.
        model: see `AllowedLogits`.
        unconditional_ids: see `AllowedLogits`.
        unconditional_attention_mask: see `AllowedLogits`.
        **sampling: `temperature`, `top_k`, `top_p`, `min_p`, `order`: see `rollkit.decode.sample`.

    Raises:
        TypeError: a keyword is none of these.
        ValueError: one of them is out of range.
        FloatingPointError: a row's logits are NaN or all masked.

    Example:
        >>> import torch
        >>> draw = Sampler(AllowedSet([1, 3], 4), seeds=[7], temperature=0)
        >>> draw(torch.tensor([[0]]), torch.tensor([[5.0, 1.0, 5.0, 2.0]]))
        tensor([[-inf, -inf, -inf, 0.]])
    """

    def __init__(
        self,
        allowed: AllowedSet,
        *,
        seeds: Any = 0,
        cfg_scale: float = 1.0,
        model: Any = None,
        unconditional_ids: Tensor = None,
        unconditional_attention_mask: Tensor = None,
        **sampling: Any,
    ) -> None:
        """See the class."""
        super().__init__(
            allowed,
            cfg_scale=cfg_scale,
            model=model,
            unconditional_ids=unconditional_ids,
            unconditional_attention_mask=unconditional_attention_mask,
        )
        known = SAMPLING[1:]  # guidance comes before
        for name in sampling:
            if name not in known:
                raise TypeError(f"Sampler has no argument {name!r}; sampling has {', '.join(known)}")
        check_sampling(sampling)
        self._seeds, self._sampling = seeds, sampling

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Return `[rows, vocab]`: 0 for the drawn token, −∞ for all others."""
        torch = extra("torch", "torch")
        logits = self._compact(input_ids, scores)
        found = sample(
            logits,
            allowed=self.allowed,
            seeds=own_seeds(self._seeds, len(logits)),
            positions=input_ids.shape[1] - self._began,
            logprobs=None,
            **self._sampling,
        )
        bad = found.status != 0
        if bool(bad.any()):
            row = int(bad.int().argmax())
            raise FloatingPointError(
                f"logits of row {row} are {Status(int(found.status[row])).name.lower()} "
                f"at token {input_ids.shape[1] - self._began}"
            )
        out = torch.full_like(scores, float("-inf"))
        return out.scatter_(1, found.token_ids.reshape(-1, 1).long(), 0.0)
