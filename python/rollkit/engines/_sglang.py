"""What SGLang's `/generate` returns: `from_sglang`."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from rollkit import _check
from rollkit._check import Int64s
from rollkit._errors import at, refusal
from rollkit._rollouts.rollouts import Rollouts
from rollkit._rows.ragged import Ragged
from rollkit.engines._columns import Version, lists, rollouts_of, stop_reasons, top, versions
from rollkit.engines._fields import (
    FLOAT32,
    INT32,
    check_lengths,
    field,
    in_all,
    ints,
    numbers,
    required,
    results_of,
    tokens_of,
)
from rollkit.engines._routes import Sent, add_routes

KIND = "a result of /generate, with 'output_ids' and 'meta_info'"


def from_sglang(
    results: Sequence[Any],
    *,
    prompts: Sequence[Any] | None = None,
    rewards: Any = None,
    masks: Any = None,
    instance_ids: Sequence[Any] | None = None,
    top_logprobs: int | None = None,
    experts: tuple[int, int] | None = None,
    routed_experts_start_len: int | Sequence[int] = 0,
    version: Version | None = None,
) -> Rollouts:
    """Rollouts of what SGLang's `/generate` and `Engine.generate` return, a row a result.

    Args:
        results: dicts; or a list of them for each prompt, which are its samples.
        prompts: the token ids of each row's prompt, which SGLang does not send back; for a list per prompt,
            those of each list. Default: `prompt_token_ids` of the results, where somebody has put them there.
        rewards: one per row, or one per response token: column `rewards`.
        masks: one per response token, or one per row: column `loss_masks`.
        instance_ids: one per row: which prompt it is of. Default: the number of the list it is in; the ids
            that SGLang sends are of one sample each.
        top_logprobs: how many of the likeliest tokens to keep of each, in columns `top_logprob_ids` and
            `top_logprobs` `[tokens, k]`; every token must have as many (`output_top_logprobs`).
        experts: (layers, topk) of the model: SGLang sends `routed_experts` as base64 without a shape.
        routed_experts_start_len: what the request said, or each row's: routes begin at that token. Those
            before it are filled up, as padding is, and marked in `route_masks`.
        version: makes a number of a weight version's label. By default labels are decimal numbers; where
            none is one ("default") there are no versions.

    Returns:
        Rollouts with `response_ids` (int32), and of what there is `prompt_token_ids`, `rollout_logprobs`
        (`output_token_logprobs`: of the whole vocabulary), `sampling_masks` and `sampling_logprobs` (of what
        survived sampling: `output_token_sampling_mask`, `…_logprobs`), `rollout_expert_indices`,
        `model_versions` (int32 per token), `stop_reasons` (the type of `finish_reason`) and `instance_ids`.

    Raises:
        ValueError: a field is in some rows and not in others, or has more or fewer entries than there are
            tokens; the row is named.
        TypeError: something is no such result.

    Fields are those of SGLang of September 2026.

    Example:
        >>> meta = {"output_token_logprobs": [[-0.5, 7, None]], "finish_reason": {"type": "stop"}}
        >>> rollouts = from_sglang([[{"output_ids": [7], "meta_info": meta}]], prompts=[[1, 2]])
        >>> rollouts["rollout_logprobs"].to_list(), rollouts["stop_reasons"]
        ([[-0.5]], ['stop'])
    """
    rows, groups = _flattened(results_of("results", results))
    metas = [required(f"results[{i}]", row, "meta_info", KIND) for i, row in enumerate(rows)]

    def of(name: str) -> list[Any]:
        return [field(meta, name) for meta in metas]

    logprobs = of("output_token_logprobs")
    columns: dict[str, Any] = {"response_ids": _response_ids(rows, logprobs)}
    lengths = columns["response_ids"].lengths
    prompt_lengths = _prompts(columns, rows, metas, groups, prompts)
    if in_all("rollout_logprobs", "output_token_logprobs", logprobs):
        with at(column="rollout_logprobs"):
            columns["rollout_logprobs"] = Ragged.from_rows(logprobs, FLOAT32, item=0)
        check_lengths("rollout_logprobs", columns["rollout_logprobs"].lengths, lengths)
        _check_ids(columns["response_ids"], logprobs)
    if top_logprobs is not None and rows:
        columns |= _top(of("output_top_logprobs"), lengths, _check.positive("top_logprobs", top_logprobs))
    for column, name in (("sampling_masks", "_mask"), ("sampling_logprobs", "_logprobs")):
        found = of(f"output_token_sampling{name}")
        if in_all(column, f"output_token_sampling{name}", found):
            columns[column] = _sampling(column, found, lengths)
    starts = _starts(routed_experts_start_len, len(rows))
    sent = [Sent(routes, start=start) for routes, start in zip(of("routed_experts"), starts, strict=True)]
    add_routes(columns, "routed_experts", sent, prompt_lengths, experts)
    spans, labels = of("weight_versions"), of("weight_version")
    found = [label if span is None else span for span, label in zip(spans, labels, strict=True)]
    versions(columns, "weight_version", found, version)
    stop_reasons(columns, "finish_reason", of("finish_reason"))
    if instance_ids is not None:
        columns["instance_ids"] = _ids(instance_ids, len(rows))
    elif groups is not None:
        columns["instance_ids"] = groups
    return rollouts_of(columns, rewards, masks)


def _flattened(results: list[Any]) -> tuple[list[Any], list[int] | None]:
    """Results, and the number of the list that each is in, if they are in lists."""
    nested = [isinstance(result, list | tuple) for result in results]
    if not any(nested):
        return results, None
    if not all(nested):
        odd = nested.index(False)
        got = type(results[odd]).__name__
        raise TypeError(f"results[{odd}] is {got}, others are lists; give results, or a list for each prompt")
    rows = [row for samples in results for row in samples]
    return rows, [number for number, samples in enumerate(results) for _ in samples]


def _response_ids(rows: Sequence[Any], logprobs: Sequence[Any]) -> Ragged:
    found = [field(row, "output_ids") for row in rows]
    if all(ids is None for ids in found) and in_all("response_ids", "output_ids", logprobs):
        with at(column="response_ids"):
            return Ragged.from_rows(logprobs, INT32, item=1)
    return ints("response_ids", tokens_of("response_ids", "output_ids", found))


def _check_ids(responses: Ragged, logprobs: list[Any]) -> None:
    """Refuse log-probabilities that are of other tokens than those of the responses."""
    with at(column="output_token_logprobs"):
        ids = Ragged.from_rows(logprobs, responses.dtype, item=1)
        odd = ids.flat != responses.flat
        if odd.any():
            element = int(odd.argmax())
            row = int(np.searchsorted(ids.offsets, element, side="right")) - 1
            text = f" is of token {ids.flat[element]}, output_ids has {responses.flat[element]}"
            raise refusal(ValueError, text, row=row, position=element - int(ids.offsets[row]))


def _prompts(
    columns: dict[str, Any],
    rows: Sequence[Any],
    metas: Sequence[Any],
    groups: list[int] | None,
    given: Sequence[Any] | None,
) -> Int64s:
    """Add the prompts, if they are known; their lengths."""
    counts = [field(meta, "prompt_tokens") for meta in metas]
    if given is None:
        found = [field(row, "prompt_token_ids") for row in rows]
    else:
        found = _check.items("prompts", given)
        wanted = len(rows) if groups is None else (groups[-1] + 1 if groups else 0)
        if groups is not None and len(found) != len(rows):
            if len(found) < wanted:
                raise ValueError(f"prompts has {len(found)} rows, there are {wanted} lists of results")
            found = [found[group] for group in groups]
        elif len(found) != len(rows):
            raise ValueError(f"prompts has {len(found)} rows, there are {len(rows)} results")
    if rows and not in_all("prompt_token_ids", "prompt_token_ids", found):
        return np.array([count if isinstance(count, int) else 0 for count in counts], np.int64)
    ids = ints("prompt_token_ids", tokens_of("prompt_token_ids", "prompt_token_ids", found))
    for row, (count, length) in enumerate(zip(counts, ids.lengths.tolist(), strict=True)):
        if isinstance(count, int) and count != length:
            text = f" has {length} tokens, the engine counted {count} (prompt_tokens)"
            raise refusal(ValueError, text, column="prompt_token_ids", row=row)
    columns["prompt_token_ids"] = ids
    return ids.lengths


def _top(found: Sequence[Any], lengths: Int64s, most: int) -> dict[str, Ragged]:
    if not in_all("top_logprobs", "output_top_logprobs", found):
        raise ValueError(
            "top_logprobs: no result has 'output_top_logprobs'; ask for them with top_logprobs_num"
        )
    check_lengths("top_logprobs", [len(row) for row in found], lengths)
    entries = [entry for row in found for entry in row]
    with at(column="top_logprobs"):
        values = Ragged.from_rows(entries, np.float64, item=0)
        ids = Ragged.from_rows(entries, np.int64, item=1)
    offsets = np.append(0, np.cumsum(lengths))
    counts = [values.lengths[a:b] for a, b in pairwise(offsets.tolist())]
    return top(counts, ids.values, values.values, most)


def _sampling(column: str, found: Sequence[Any], lengths: Int64s) -> Any:
    if column == "sampling_masks":
        return lists(column, column, found, lengths)
    rows = numbers(column, found, FLOAT32)
    check_lengths(column, rows.lengths, lengths)
    return rows


def _starts(given: Any, count: int) -> list[int]:
    if isinstance(given, int):
        return [_check.positive("routed_experts_start_len", given, least=0)] * count
    found: list[int] = _check.lengths("routed_experts_start_len", given).tolist()
    if len(found) != count:
        raise ValueError(f"routed_experts_start_len has {len(found)} rows, there are {count} results")
    return found


def _ids(given: Any, count: int) -> list[Any]:
    found = _check.items("instance_ids", given)
    if len(found) != count:
        raise ValueError(f"instance_ids has {len(found)} rows, there are {count} results")
    return found
