"""What vLLM's `LLM.generate` returns: `from_vllm`."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import Any

import numpy as np

from rollkit import _check, _native
from rollkit._check import Int64s
from rollkit._errors import at, refusal
from rollkit._frameworks import AnyArray
from rollkit._rollouts.rollouts import Rollouts
from rollkit._rows.ragged import Ragged, trusted
from rollkit.engines._columns import Version, lists, rollouts_of, stop_reasons, top, versions
from rollkit.engines._fields import FLOAT32, field, in_all, ints, nested, tokens_of
from rollkit.engines._routes import Sent, add_routes

KIND = "a RequestOutput, with 'outputs' and 'prompt_token_ids'"


def from_vllm(
    outputs: Sequence[Any],
    *,
    rewards: Any = None,
    masks: Any = None,
    top_logprobs: int | None = None,
    version: Version | None = None,
) -> Rollouts:
    """Rollouts of vLLM's `RequestOutput`s, a row a sample.

    Args:
        outputs: what `LLM.generate` returns, or of `AsyncLLM.generate` the last output of each request.
        rewards: one per row, or one per response token: column `rewards`.
        masks: one per response token, or one per row: column `loss_masks`.
        top_logprobs: how many of the likeliest tokens to keep of each, in columns `top_logprob_ids` and
            `top_logprobs` `[tokens, k]`; every token must have as many. None keeps the chosen one's alone.
        version: makes a number of a weight version's label. By default labels are decimal numbers.

    Returns:
        Rollouts with `prompt_token_ids` and `response_ids` (int32); and of what the requests asked for
        `rollout_logprobs` (float32, of the chosen tokens, from dicts or `FlatLogprobs`),
        `rollout_expert_indices` (of prompt and response, the last token's perhaps missing; from
        `routed_experts` of all tokens, or beside `prompt_routed_experts`), `sampling_masks` (the ids that
        survived, per token), `model_versions` (int32 per token), `stop_reasons`, and `instance_ids`, the
        request's id.

    Raises:
        ValueError: a field is in some rows and not in others, a chosen token has no log-probability, or there
            are more or fewer than tokens; the row is named.
        TypeError: something is no such output.

    Fields are those of vLLM 0.32 (`vllm/outputs.py`, `vllm/logprobs.py`).

    Example:
        >>> from types import SimpleNamespace as Output
        >>> logprobs = [{7: Output(logprob=-0.5), 9: Output(logprob=-2.0)}, {2: Output(logprob=-0.25)}]
        >>> sample = Output(token_ids=[7, 2], logprobs=logprobs, finish_reason="stop")
        >>> rollouts = from_vllm([Output(request_id="a", prompt_token_ids=[1], outputs=[sample])])
        >>> rollouts["rollout_logprobs"].to_list(), rollouts["instance_ids"]
        ([[-0.5, -0.25]], ['a'])
    """
    requests, samples = nested("outputs", outputs, "outputs", KIND)

    def of_samples(name: str) -> list[Any]:
        return [field(sample, name) for sample in samples]

    def of_requests(name: str) -> list[Any]:
        return [field(request, name) for request in requests]

    tokens = tokens_of("response_ids", "token_ids", of_samples("token_ids"))
    columns: dict[str, Any] = {"response_ids": ints("response_ids", tokens)}
    lengths = columns["response_ids"].lengths
    prompts = np.zeros_like(lengths)
    found = of_requests("prompt_token_ids")
    if in_all("prompt_token_ids", "prompt_token_ids", found) or not found:
        rows = tokens_of("prompt_token_ids", "prompt_token_ids", found)
        columns["prompt_token_ids"] = ints("prompt_token_ids", rows)
        prompts = columns["prompt_token_ids"].lengths
    found = of_samples("logprobs")
    if in_all("rollout_logprobs", "logprobs", found):
        columns["rollout_logprobs"] = _chosen(found, tokens, columns["response_ids"])
        if top_logprobs is not None:
            columns |= _top(found, _check.positive("top_logprobs", top_logprobs))
    elif top_logprobs is not None and samples:
        raise ValueError(
            "top_logprobs: no output has 'logprobs'; ask for them with SamplingParams(logprobs=k)"
        )
    sent = zip(of_samples("routed_experts"), of_requests("prompt_routed_experts"), strict=True)
    add_routes(columns, "routed_experts", [Sent(*routes) for routes in sent], prompts)
    found = of_samples("sampling_mask")
    if in_all("sampling_masks", "sampling_mask", found):
        columns["sampling_masks"] = lists("sampling_masks", "sampling_mask", found, lengths)
    versions(columns, "weight_versions", of_samples("weight_versions"), version)
    stop_reasons(columns, "finish_reason", of_samples("finish_reason"))
    found = of_requests("request_id")
    if in_all("instance_ids", "request_id", found):
        columns["instance_ids"] = found
    return rollouts_of(columns, rewards, masks)


def _is_flat(logprobs: Any) -> bool:
    """Whether this is a `FlatLogprobs`: columns, not a dict per token."""
    return not isinstance(logprobs, list) and field(logprobs, "start_indices") is not None


def _chosen(found: Sequence[Any], tokens: Sequence[Any], ids: Ragged) -> Ragged:
    """The log-probability of each token."""
    with at(column="rollout_logprobs"):
        if not any(map(_is_flat, found)):
            return trusted(*_native.pick_numbers(found, "logprob", FLOAT32, keys=tokens))
        rows = []
        for row, logprobs in enumerate(found):
            with at(row=row):
                if _is_flat(logprobs):
                    rows.append(_flat_chosen(logprobs, ids[row]))
                else:
                    rows.append(_native.pick_numbers([logprobs], "logprob", FLOAT32, keys=[tokens[row]])[0])
        return Ragged.from_rows(rows, FLOAT32)


def _flat(logprobs: Any) -> tuple[Int64s, Int64s, AnyArray, AnyArray]:
    """Where each token's entries begin, how many there are, and the ids and log-probabilities of all."""
    begins, ends = (_check.int64s(name, field(logprobs, name)) for name in ("start_indices", "end_indices"))
    ids = _check.int64s("token_ids", field(logprobs, "token_ids"))
    values = _check.floats("logprobs", field(logprobs, "logprobs"))
    if len(begins) != len(ends) or len(ids) != len(values):
        raise ValueError("FlatLogprobs has columns of different lengths")
    if len(begins) and (begins.min() < 0 or (ends < begins).any() or ends.max() > len(ids)):
        raise ValueError(f"FlatLogprobs has indices beyond its {len(ids)} entries")
    return begins, ends - begins, ids, values


def _flat_chosen(logprobs: Any, tokens: AnyArray) -> AnyArray:
    begins, counts, ids, values = _flat(logprobs)
    if len(begins) != len(tokens):
        raise ValueError(f"{len(begins)} elements for {len(tokens)} tokens")
    found = begins.copy()
    # The engine has the chosen token first; after a merge it may be anywhere.
    first = np.append(ids, -1)[np.minimum(begins, len(ids))]
    for position in np.flatnonzero((counts == 0) | (first != tokens)):
        begin = begins[position]
        same = np.flatnonzero(ids[begin : begin + counts[position]] == tokens[position])
        if not len(same):
            text = f": no entry for token {tokens[position]}"
            raise refusal(ValueError, text, position=int(position))
        found[position] = begin + same[0]
    return values[found]


def _top(found: Sequence[Any], most: int) -> dict[str, Ragged]:
    counts, ids, values = [], [], []
    for row, logprobs in enumerate(found):
        with at(column="top_logprobs", row=row):
            one = _flat(logprobs) if _is_flat(logprobs) else _of_dicts(logprobs)
            begins = one[0]
            order = np.repeat(begins - (np.cumsum(one[1]) - one[1]), one[1]) + np.arange(one[1].sum())
            counts.append(one[1])
            ids.append(one[2][order])
            values.append(one[3][order])
    empty = np.empty(0, np.int64)
    return top(counts, np.concatenate([*ids, empty]), np.concatenate([*values, empty]), most)


def _of_dicts(logprobs: Sequence[dict[int, Any]]) -> tuple[Int64s, Int64s, AnyArray, AnyArray]:
    counts = np.fromiter(map(len, logprobs), np.int64, len(logprobs))
    keys = list(chain.from_iterable(logprobs))
    entries = [list(entry.values()) for entry in logprobs]
    ids = Ragged.from_rows([keys], np.int64).values
    values = Ragged.from_rows([list(chain.from_iterable(entries))], np.float64, item="logprob").values
    return np.cumsum(counts) - counts, counts, ids, values
