"""Decoding with a transformers model in a batch that shrinks: `generate`."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from rollkit._check import choice, flag, mapping, positive
from rollkit._extras import extra
from rollkit._frameworks import as_array
from rollkit._rollouts.rollouts import Rollouts
from rollkit._rows.ragged import Ragged
from rollkit.decode._arguments import (
    cancelled,
    check_allowed,
    check_callbacks,
    check_sampling,
    limits_of,
    own_seeds,
    prompts_of,
    unconditional,
)
from rollkit.decode._hf import MakeCache, Model, check_cache
from rollkit.decode.active import ActiveBatch
from rollkit.decode.allowed import AllowedSet
from rollkit.decode.sample import Status, sample

Int64s = NDArray[np.int64]

SAMPLING: Final = ("cfg_scale", "temperature", "top_k", "top_p", "min_p", "order")
BAD: Final = {int(Status.MASKED): "masked", int(Status.NAN): "nan"}


@dataclass(frozen=True, slots=True)
class Phase:
    """A part of each response with its own vocabulary: text first, then codes, say.

    Attributes:
        allowed: what may be drawn. Its `eos` ends the sequence; draw one of `until` to go on to the
            next phase instead.
        until: tokens that end the phase; they must be allowed.
        max_tokens: the phase ends after so many tokens; `None`: no limit.
        sampling: `cfg_scale`, `temperature`, `top_k`, `top_p`, `min_p`, `order`, where they differ
            from `generate`'s.
    """

    allowed: AllowedSet
    until: tuple[int, ...] = ()
    max_tokens: int | None = None
    sampling: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_allowed(self.allowed)
        for name in mapping("sampling", self.sampling):
            choice("sampling", name, SAMPLING)
        check_sampling(self.sampling)
        if not isinstance(self.until, Iterable):
            raise TypeError(f"until must be a tuple of tokens, got {type(self.until).__name__}")
        object.__setattr__(self, "until", tuple(self.until))  # a generator could be read only once
        for token in self.until:
            if token not in self.allowed:
                raise ValueError(f"until has token {token}, which is not allowed; add it to allowed")
        if self.max_tokens is not None:
            positive("max_tokens", self.max_tokens)


@dataclass(frozen=True, slots=True)
class Progress:
    """How far `generate` is: steps, sequences ended and going on, tokens so far, seconds."""

    step: int
    finished: int
    active: int
    emitted: int
    seconds: float


def generate(
    model: Any,
    prompts: Sequence[Any] | Ragged,
    *,
    max_new_tokens: int | Sequence[int],
    allowed: AllowedSet | None = None,
    eos: int | Iterable[int] | None = None,
    phases: Sequence[Phase] = (),
    uncond: Sequence[Any] | None = None,
    cfg_scale: float = 1.0,
    temperature: float = 1.0,
    top_k: int = 0,
    top_p: float = 1.0,
    min_p: float = 0.0,
    order: str = "hf",
    logprobs: str = "kept",
    seeds: Any = 0,
    compaction: bool = True,
    slack: float = 0.0,
    crop: bool = True,
    cache: str | Callable[[int], Any] = "dynamic",
    on_tokens: Callable[[Int64s, Int64s], object] | None = None,
    on_progress: Callable[[Progress], object] | None = None,
    progress_every: int = 16,
    cancel: Callable[[], bool | Iterable[int]] | None = None,
    on_bad: str = "raise",
) -> Rollouts:
    """Decode prompts with a causal language model of transformers; sequences that end leave the batch.

    The head is computed on the allowed tokens only, equal prompts are read once, and so is the beginning
    that all prompts share, or all unconditional ones. Noise is keyed by (seed of the sequence, position,
    token): tokens do not depend on what else is in the batch, as far as the model's logits do not.
    Matrix products of different batch sizes may differ in their last bits.

    Args:
        model: a `PreTrainedModel` with an output head; its weights' device is used. Dropout is the
            caller's to turn off (`model.eval()`).
        prompts: `[n]` lists or arrays of token ids, not padded. For several samples of a prompt, repeat it.
        max_new_tokens: one limit, or `[n]`.
        allowed: what may be drawn; its `eos` ends a sequence, and is part of the response. `None`: the
            whole vocabulary, with `eos`.
        eos: for `allowed=None`; `None`: the model's generation config's.
        phases: instead of `allowed`: each sequence starts in the first.
        uncond: for guidance: `[n]` unconditional prompts, or one for all. They take part in the batch.
        cfg_scale: guidance; see `cfg`.
        temperature: as are the others, see `sample`.
        top_k: see `sample`.
        top_p: see `sample`.
        min_p: see `sample`.
        order: see `sample`.
        logprobs: `"kept"` or `"allowed"`; see `sample`.
        seeds: `[n]` ints; or one of 64 bits, from which and from its number each sequence gets its own
            (by splitmix64). Different seeds give different draws.
        compaction: `False` keeps ended sequences in the batch, to compare.
        slack: rows leave once at least this share of the batch has ended; see `ActiveBatch`.
        crop: drop padding in front that is left to no row that goes on (full-attention layers only).
        cache: `"dynamic"`; `"static"`, all columns at once; or a function that is given how many columns
            there will be and returns an empty transformers cache that is at least as wide.
        on_tokens: called after each step with the sequences `[active]` and their new tokens, to stream.
        on_progress: called every `progress_every` steps, and at the end, cancelled or not.
        progress_every: steps.
        cancel: called before each step; true ends all sequences, ints end those.
        on_bad: `"raise"`, or `"stop"` to end a sequence whose logits are NaN or all masked.

    Returns:
        `prompt_token_ids`, `response_ids` (int32), `rollout_logprobs` (float32, one for each token)
        and `stop_reasons`: `"stop"`, `"length"`, `"cancelled"`; with `on_bad="stop"` also `"nan"` and
        `"masked"`.

    Raises:
        TypeError: an argument is of the wrong type, or `model` keeps its past elsewhere than in the cache
            that it is given (RecurrentGemma).
        ValueError: a prompt is empty, counts differ, `cfg_scale` is not 1 without `uncond`, or the logits
            of `model` are not those of its head (checked with 3 tokens, once for each model).
        FloatingPointError: logits are NaN or all masked, naming the sequence.

    Example:
        A random model of 64 tokens that answers with 40 to 49, for three sequences of their own lengths:

        >>> from transformers import Qwen3Config, Qwen3ForCausalLM
        >>> small = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "head_dim": 4}
        >>> heads = {"num_attention_heads": 2, "num_key_value_heads": 1}
        >>> model = Qwen3ForCausalLM(Qwen3Config(vocab_size=64, **small, **heads)).eval()
        >>> codes = AllowedSet(range(40, 50), 64)
        >>> out = generate(model, [[1, 2, 3], [4], [5, 6]], max_new_tokens=[2, 4, 1], allowed=codes)
        >>> out["response_ids"].lengths, out["stop_reasons"]
        (array([2, 4, 1]), ['length', 'length', 'length'])
        >>> all(40 <= token < 50 for token in out["response_ids"].values)
        True

        The end is part of the response; here nothing else may be drawn:

        >>> out = generate(model, [[1, 2, 3]], max_new_tokens=9, allowed=AllowedSet([], 64, eos=7))
        >>> out["response_ids"].to_list(), out["stop_reasons"]
        ([[7]], ['stop'])

    References:
        Guidance for language models: G. Sanchez et al., 2023. See `sample` for the draws.
    """
    check_callbacks(on_tokens=on_tokens, on_progress=on_progress, cancel=cancel)
    sampling = {
        "cfg_scale": cfg_scale,
        "temperature": temperature,
        "top_k": top_k,
        "top_p": top_p,
        "min_p": min_p,
        "order": order,
    }
    check_sampling(sampling)
    every = positive("progress_every", progress_every)
    logprobs = choice("logprobs", logprobs, ("kept", "allowed"))
    stop_bad = choice("on_bad", on_bad, ("raise", "stop")) == "stop"
    net = Model(model)
    found = prompts_of("prompts", prompts, net.reads)
    plan = _phases(net, allowed, eos, phases)
    samplings = [{**sampling, **phase.sampling} for phase in plan]
    for one in samplings:
        check_sampling(one)  # together: an order may have no place for min_p
    if uncond is None and any(one["cfg_scale"] != 1 for one in samplings):
        raise ValueError("cfg_scale is not 1 without uncond; pass unconditional prompts")
    limits = limits_of(max_new_tokens, len(found))
    branch = unconditional(uncond, len(found), net.reads)
    if not found:
        empty = Ragged.from_rows([], np.int32)
        return _rollouts(found, empty, Ragged.from_rows([], np.float32), [])
    run = _Run(
        net=net,
        phases=plan,
        sampling=samplings,
        logprobs=logprobs,
        seeds=own_seeds(seeds, len(found)),
        limits=limits,
        stop_bad=stop_bad,
        guided=branch is not None,
        compaction=flag("compaction", compaction),
        slack=slack,
        crop=flag("crop", crop),
        cache=check_cache(cache),
    )
    # Not inference_mode: what a module keeps from it could not be trained with.
    with extra("torch", "torch").no_grad():
        net.check(plan[0].allowed, found[0])
        run.start(found, branch)
        began = time.perf_counter()
        while run.batch.active:
            if cancel is not None:
                run.cancel(cancelled(cancel(), len(found)))
            if run.batch.active:
                run.step(on_tokens)
            if on_progress is not None and (run.steps % every == 0 or not run.batch.active):
                on_progress(run.progress(time.perf_counter() - began))
    return run.result(found)


class _Run:
    """The state of one call: by sequence, but for the model's, which is by row."""

    def __init__(
        self,
        *,
        net: Model,
        phases: list[Phase],
        sampling: list[dict[str, Any]],
        logprobs: str,
        seeds: Int64s,
        limits: Int64s,
        stop_bad: bool,
        guided: bool,
        compaction: bool,
        slack: float,
        crop: bool,
        cache: MakeCache,
    ) -> None:
        n = len(seeds)
        self.net, self.phases, self.sampling, self.logprobs = net, phases, sampling, logprobs
        self.seeds, self.limits, self.stop_bad, self.crop = seeds, limits, stop_bad, crop
        self.guided, self.cache = guided, cache
        # A slack of 1 keeps rows until all have ended.
        slack = slack if compaction else 1.0
        self.batch = ActiveBatch(n, guided, mirrored=guided, slack=slack)
        self.tokens = np.zeros((n, int(limits.max())), np.int32)
        self.scores = np.zeros((n, int(limits.max())), np.float32)
        self.phase = np.zeros(n, np.int64)
        self.entered = np.zeros(n, np.int64)
        self.reasons = np.full(n, "", object)
        self.lengths = np.zeros(n, np.int64)
        self.steps = 0

    def start(self, prompts: list[Int64s], uncond: list[Int64s] | None) -> None:
        """Read the prompts, in the order of rows."""
        rows = prompts if uncond is None else [*prompts[::-1], *uncond]
        self.net.read(rows, len(prompts), int(self.limits.max()), self.cache)

    def step(self, on_tokens: Callable[[Int64s, Int64s], object] | None) -> None:
        """Draw a token for each sequence, and feed it."""
        live = np.flatnonzero(self.batch.live)
        slots = self.batch.slots[live]
        drawn = np.zeros(len(live), np.int64)
        status = np.zeros(len(live), np.int8)
        for phase in np.unique(self.phase[slots]):
            these = np.flatnonzero(self.phase[slots] == phase)
            drawn[these], self.scores[slots[these], self.steps], status[these] = self._draw(
                int(phase), live[these], slots[these]
            )
        ended = self._ended(slots, drawn, status)
        fine = status == 0
        self.tokens[slots[fine], self.steps] = drawn[fine]
        self.steps += 1
        self.lengths[slots[fine]] = self.steps
        feed, mask = np.zeros(self.batch.rows, np.int64), np.zeros(self.batch.rows, bool)
        feed[live], mask[live] = np.where(fine, drawn, 0), ended
        feed = feed[self.batch.order]
        plan = self.batch.finish(mask)
        if on_tokens is not None:
            on_tokens(slots[fine], drawn[fine])
        if self.batch.active:
            self.net.keep(plan, crop=self.crop)
            self.net.feed(feed[plan.keep])

    def _draw(self, phase: int, rows: Int64s, slots: Int64s) -> tuple[Any, Any, Any]:
        options = self.sampling[phase]
        guided = self.guided and options["cfg_scale"] != 1
        count = self.batch.rows
        cond = count - 1 - rows if self.guided else rows
        both = self.net.logits(
            self.phases[phase].allowed, np.concatenate([cond, count + rows]) if guided else cond
        )
        found = sample(
            both[: len(rows)],
            both[len(rows) :] if guided else None,
            allowed=self.phases[phase].allowed,
            seeds=self.seeds[slots],
            positions=self.steps,
            logprobs=self.logprobs,
            **options,
        )
        tokens, scores, status = (np.asarray(as_array(part.cpu())) for part in found[:3])
        return tokens, scores, status

    def _ended(self, slots: Int64s, drawn: Int64s, status: NDArray[np.int8]) -> NDArray[np.bool_]:
        """Say which of the sequences end with this token and why; move others on to their next phase."""
        if status.any() and not self.stop_bad:
            i = int(np.argmax(status != 0))
            raise FloatingPointError(
                f"logits of sequence {slots[i]} are {BAD[int(status[i])]} at token {self.steps}; "
                'fix the model, or pass on_bad="stop"'
            )
        length, were = self.steps + 1, self.phase[slots]
        over = length >= self.limits[slots]
        stops = np.zeros_like(over)
        for number, phase in enumerate(self.phases):
            here = were == number
            through = here & np.isin(drawn, phase.until)
            stops |= here & ~through & np.isin(drawn, phase.allowed.eos)
            full = here & ~stops & (length - self.entered[slots] >= (phase.max_tokens or np.inf))
            if number == len(self.phases) - 1:
                stops, over = stops | through, over | full
            else:
                on = slots[through | full]
                self.phase[on], self.entered[on] = number + 1, length
        self.reasons[slots[over]] = "length"
        self.reasons[slots[stops]] = "stop"
        for code, name in BAD.items():
            self.reasons[slots[status == code]] = name
        return np.asarray(over | stops | (status != 0))

    def cancel(self, wanted: bool | Int64s) -> None:
        """End all sequences or some."""
        slots = self.batch.slots[self.batch.live]
        if not isinstance(wanted, bool):
            slots = np.intersect1d(slots, wanted)
        if wanted is not False and len(slots):
            self.reasons[slots] = "cancelled"
            self.net.keep(self.batch.drop(slots), crop=False)

    def progress(self, seconds: float) -> Progress:
        """Say how far it is."""
        emitted = int(
            self.lengths.sum()
        )  # not the batch's: a row that is NaN took the step, and has no token
        return Progress(self.steps, self.batch.finished, self.batch.active, emitted, seconds)

    def result(self, prompts: list[Int64s]) -> Rollouts:
        """Return what was drawn."""
        ends = [*zip(self.tokens, self.scores, self.lengths, strict=True)]
        return _rollouts(
            prompts,
            Ragged.from_rows([row[:end] for row, _, end in ends]),
            Ragged.from_rows([row[:end] for _, row, end in ends]),
            list(self.reasons),
        )


def _rollouts(prompts: list[Int64s], tokens: Ragged, scores: Ragged, reasons: list[str]) -> Rollouts:
    return Rollouts(
        {
            "prompt_token_ids": Ragged.from_rows([row.astype(np.int32) for row in prompts], np.int32),
            "response_ids": tokens,
            "rollout_logprobs": scores,
            "stop_reasons": reasons,
        }
    )


def _phases(net: Model, allowed: Any, eos: Any, phases: Any) -> list[Phase]:
    if isinstance(phases, Phase) or not isinstance(phases, Iterable):
        raise TypeError("phases must be a list of Phase; wrap what you have: phases=[Phase(allowed)]")
    phases = list(phases)
    if phases and (allowed is not None or eos is not None):
        raise TypeError("pass phases, or allowed, or eos; each phase has its own allowed, with its eos")
    if allowed is not None and eos is not None:
        raise TypeError("pass eos with the set: AllowedSet(…, eos=…)")
    if allowed is not None and not isinstance(allowed, AllowedSet):
        raise TypeError(f"allowed must be an AllowedSet or None, got {type(allowed).__name__}")
    if allowed is None and not phases:
        allowed = AllowedSet.full(net.vocab_size, eos=net.eos if eos is None else eos)
    if not all(isinstance(phase, Phase) for phase in phases):
        raise TypeError("phases must be a list of Phase; wrap what you have: phases=[Phase(allowed)]")
    found = phases or [Phase(allowed)]
    for phase in found:
        if phase.allowed.vocab_size != net.vocab_size:
            raise ValueError(
                f"allowed has vocab_size {phase.allowed.vocab_size}, the model's head {net.vocab_size} rows"
            )
    return found
