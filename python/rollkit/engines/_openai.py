"""What servers with OpenAI's interface return, to completions and to chats: `from_openai`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np

from rollkit._check import Int64s
from rollkit._errors import at, refusal
from rollkit._rollouts.rollouts import Rollouts
from rollkit._rows.ragged import Ragged
from rollkit.engines._columns import Version, lists, rollouts_of, stop_reasons, versions
from rollkit.engines._fields import (
    FLOAT32,
    check_lengths,
    field,
    in_all,
    ints,
    nested,
    numbers,
    results_of,
    tokens_of,
)
from rollkit.engines._routes import Sent, add_routes

KIND = "a response to a completion or a chat, with 'choices'"
ASK = "; ask the server for them (return_token_ids)"


def from_openai(
    responses: Sequence[Any],
    *,
    rewards: Any = None,
    masks: Any = None,
    experts: tuple[int, int] | None = None,
    version: Version | None = None,
) -> Rollouts:
    """Rollouts of responses of vLLM's or SGLang's OpenAI server, a row a choice.

    The requests need `return_token_ids`, for texts do not give back the tokens they were, and `logprobs`.

    Args:
        responses: of `/v1/completions` or `/v1/chat/completions`: dicts, or objects of the `openai` package.
        rewards: one per row, or one per response token: column `rewards`.
        masks: one per response token, or one per row: column `loss_masks`.
        experts: (layers, topk) of the model, for routes that are base64 without a shape (SGLang's).
        version: makes a number of a weight version's label; see `from_vllm`.

    Returns:
        Rollouts with `response_ids` (int32, `token_ids` of a choice), and of what there is `prompt_token_ids`
        (of a choice or its response), `rollout_logprobs` (`token_logprobs` of a completion,
        `content[].logprob` of a chat), `rollout_expert_indices`, `sampling_masks`, `model_versions`,
        `stop_reasons` (`finish_reason`) and `instance_ids`: the response's id, and where it answers several
        prompts the number of the prompt after it (`"cmpl-1:0"`).

    Raises:
        ValueError: a field is in some rows and not in others, or has more or fewer entries than there are
            tokens; the row is named.
        TypeError: something is no such response.

    Fields are those of OpenAI's interface with the additions of vLLM 0.32 and SGLang of September 2026.

    Example:
        >>> logprobs = {"content": [{"logprob": -0.5}, {"logprob": -0.25}]}
        >>> choice = {"token_ids": [7, 2], "logprobs": logprobs, "finish_reason": "stop"}
        >>> rollouts = from_openai([{"id": "chat-1", "prompt_token_ids": [1], "choices": [choice]}])
        >>> rollouts["response_ids"].to_list(), rollouts["rollout_logprobs"].to_list()
        ([[7, 2]], [[-0.5, -0.25]])
    """
    responses = results_of("responses", responses)
    owners, choices = nested("responses", responses, "choices", KIND)

    def of(name: str) -> list[Any]:
        """Of the choice, or else of its response."""
        both = zip(choices, owners, strict=True)
        return [own if (own := field(one, name)) is not None else field(owner, name) for one, owner in both]

    def of_choices(name: str) -> list[Any]:
        return [field(choice, name) for choice in choices]

    tokens = tokens_of("response_ids", "token_ids", of_choices("token_ids"), ASK)
    columns: dict[str, Any] = {"response_ids": ints("response_ids", tokens)}
    lengths = columns["response_ids"].lengths
    prompts = of("prompt_token_ids")
    prompt_lengths = np.zeros_like(lengths)
    if in_all("prompt_token_ids", "prompt_token_ids", prompts) or not choices:
        prompts = tokens_of("prompt_token_ids", "prompt_token_ids", prompts)
        columns["prompt_token_ids"] = ints("prompt_token_ids", prompts)
        prompt_lengths = columns["prompt_token_ids"].lengths
    _logprobs(columns, of_choices("logprobs"), lengths, partial(_choice, responses))
    sent = zip(of_choices("routed_experts"), of("prompt_routed_experts"), strict=True)
    add_routes(columns, "routed_experts", [Sent(*routes) for routes in sent], prompt_lengths, experts)
    found = of_choices("sampling_mask")
    if in_all("sampling_masks", "sampling_mask", found):
        columns["sampling_masks"] = lists("sampling_masks", "sampling_mask", found, lengths)
    versions(columns, "weight_versions", of("weight_versions"), version)
    stop_reasons(columns, "finish_reason", of_choices("finish_reason"))
    ids = [field(owner, "id") for owner in owners]
    if in_all("instance_ids", "id", ids):
        columns["instance_ids"] = _instance_ids(ids, owners, prompts)
    return rollouts_of(columns, rewards, masks)


def _choice(responses: Sequence[Any], row: int) -> str:
    """What a row's choice is called."""
    ends = np.cumsum([len(field(response, "choices")) for response in responses])
    number = int(np.searchsorted(ends, row, side="right"))
    before = ends[number - 1] if number else 0
    return f"responses[{number}].choices[{row - before}]"


def _logprobs(
    columns: dict[str, Any], given: Sequence[Any], lengths: Int64s, called: Callable[[int], str]
) -> None:
    """Add log-probabilities: numbers of completions, objects with one each of chats."""
    name = "rollout_logprobs"
    if not in_all(name, "logprobs", given):
        return
    flat = [field(one, "token_logprobs") for one in given]
    content = [field(one, "content") for one in given]
    if any(one is not None for one in flat):
        kind, rows, item = "token_logprobs", flat, None
    else:
        kind, rows, item = "content", content, "logprob"
    if not in_all(name, f"logprobs.{kind}", rows, called):
        text = (
            f" ({called(0)}) has logprobs with neither 'token_logprobs' (completions) nor 'content' (chats)"
        )
        raise refusal(ValueError, text, column=name, row=0)
    with at(column=name):
        found = Ragged.from_rows(rows, FLOAT32, item=item) if item else numbers(name, rows, FLOAT32)
    columns[name] = found
    check_lengths(name, columns[name].lengths, lengths)


def _instance_ids(ids: Sequence[Any], owners: Sequence[Any], prompts: Sequence[Any]) -> list[Any]:
    """The id of each row's response, with the number of the prompt where that has several."""
    several: dict[int, list[Any]] = {}
    for owner, prompt in zip(owners, prompts, strict=True):
        known = several.setdefault(id(owner), [])
        if prompt not in known:
            known.append(prompt)
    return [
        one if len(several[id(owner)]) == 1 else f"{one}:{several[id(owner)].index(prompt)}"
        for one, owner, prompt in zip(ids, owners, prompts, strict=True)
    ]
