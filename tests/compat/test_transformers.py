"""Processors inside transformers' `generate`, beside `rollkit.decode.generate` and its own guidance."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import transformers
from tests.decode.decoding import CODES, EOS, VOCAB, qwen3

from rollkit.compat.transformers import AllowedLogits, Sampler
from rollkit.decode import AllowedSet
from rollkit.decode.generate import generate

PROMPTS = [[1, 2, 3], [4, 5, 6], [9, 8, 7]]
UNCOND = [[3, 4]] * 3


@pytest.fixture(scope="module")
def model() -> Any:
    return qwen3(pad_token_id=0)


def run(model: Any, *processors: Any, **more: Any) -> list[list[int]]:
    tokens = torch.tensor(PROMPTS)
    out = model.generate(
        tokens,
        attention_mask=torch.ones_like(tokens),
        max_new_tokens=10,
        logits_processor=transformers.LogitsProcessorList(processors),
        **{"do_sample": False, **more},
    )[:, tokens.shape[1] :].tolist()
    return [row[: row.index(EOS) + 1] if EOS in row else row for row in out]


@pytest.mark.parametrize("guided", [False, True])
@pytest.mark.parametrize("sampling", [{}, {"temperature": 2.0, "top_p": 0.8}, {"temperature": 0}])
def test_the_sampler_draws_what_rollkit_draws(model: Any, guided: bool, sampling: dict[str, Any]) -> None:
    scale = 1.5 if guided else 1.0
    process = Sampler(
        CODES,
        seeds=11,
        cfg_scale=scale,
        model=model if guided else None,
        unconditional_ids=torch.tensor(UNCOND) if guided else None,
        **sampling,
    )
    wanted = generate(
        model,
        PROMPTS,
        max_new_tokens=10,
        allowed=CODES,
        seeds=11,
        uncond=UNCOND if guided else None,
        cfg_scale=scale,
        **sampling,
    )["response_ids"].to_list()  # type: ignore[union-attr]
    assert run(model, process) == wanted
    assert run(model, process) == wanted, "a second call starts anew"
    assert run(model, process, do_sample=True, top_k=0, top_p=1.0, temperature=1.0) == wanted


def test_guidance_equals_transformers_where_all_is_allowed(model: Any) -> None:
    everything = AllowedSet.full(VOCAB)
    negative: Any = torch.tensor(UNCOND)
    ours = AllowedLogits(everything, cfg_scale=1.7, model=model, unconditional_ids=negative)
    theirs = transformers.UnbatchedClassifierFreeGuidanceLogitsProcessor(1.7, model, negative)
    assert run(model, ours) == run(model, theirs)
    assert run(model, AllowedLogits(everything)) == run(model)


def test_padding_of_unconditional_prompts_is_not_seen(model: Any) -> None:
    padded = torch.tensor([[0, 0, 3, 4]] * 3)
    mask = (padded > 0).long()
    process = AllowedLogits(
        CODES, cfg_scale=2, model=model, unconditional_ids=padded, unconditional_attention_mask=mask
    )
    plain = AllowedLogits(CODES, cfg_scale=2, model=model, unconditional_ids=torch.tensor(UNCOND))
    assert run(model, process) == run(model, plain)


def test_only_allowed_tokens_come(model: Any) -> None:
    for row in run(model, AllowedLogits(CODES, cfg_scale=3, model=model), do_sample=True):
        assert all(token in CODES for token in row)


def test_errors_say_what_was_wanted(model: Any) -> None:
    process = AllowedLogits(CODES, cfg_scale=2, model=model, unconditional_ids=torch.tensor([[1]]))
    with pytest.raises(ValueError, match="unconditional_ids must have 3 rows, as input_ids, got 1"):
        run(model, process)
    nan = torch.full((1, VOCAB), torch.nan)
    with pytest.raises(FloatingPointError, match="logits of row 0 are nan at token 0"):
        Sampler(CODES)(torch.tensor([[1]]), nan)
