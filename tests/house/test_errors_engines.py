"""Every refusal of `rollkit.engines`, word for word; see `tests/house/test_errors.py`."""
# ruff: noqa: E501

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace as N
from typing import Any

import numpy as np
import pytest
from tests.house.refusals import check_refusal

from rollkit import engines

# Arguments of wrong types are what this file is about.
vllm: Any = engines.from_vllm
sglang: Any = engines.from_sglang
openai: Any = engines.from_openai
verifiers: Any = engines.from_verifiers
trl: Any = engines.from_trl


def v(*samples: Any, prompt: Any = (1,), **more: Any) -> Any:
    """vLLM's output of one request."""
    return N(
        request_id="a",
        prompt_token_ids=prompt,
        outputs=[N(**{"token_ids": [7, 2], **one}) for one in samples],
        **more,
    )


def s(**meta: Any) -> Any:
    """SGLang's result."""
    return {"output_ids": [7, 2], "meta_info": meta}


def o(**choice: Any) -> Any:
    """A response of OpenAI's interface."""
    return {"id": "a", "choices": [{"token_ids": [7, 2], **choice}]}


def t(**more: Any) -> Any:
    """TRL's sample."""
    return {"input_ids": [1, 7, 2], "completion_mask": [0, 1, 1], **more}


def n(**more: Any) -> Any:
    """A trace of verifiers, of one message."""
    return {"nodes": [{"token_ids": [1, 2], "mask": [False, True], "logprobs": [-0.5], **more}]}


LP = [{7: N(logprob=-0.5)}, {2: N(logprob=-0.25)}]
FLAT = N(start_indices=[0, 1], end_indices=[1, 2], token_ids=[7, 3], logprobs=[-0.5, -0.25])
SHORT = N(start_indices=[0], end_indices=[1], token_ids=[7], logprobs=[-0.5])
BROKEN = N(start_indices=[0, 1], end_indices=[1, 9], token_ids=[7], logprobs=[-0.5])
UNEVEN = N(start_indices=[0, 1], end_indices=[1], token_ids=[7], logprobs=[-0.5])
ROUTES = np.zeros((2, 1, 2), np.uint8)
TWO = {"content": [{"logprob": -0.5}, {"logprob": -0.25}]}

# fmt: off
REFUSED: list[tuple[Callable[[], Any], type[Exception], str]] = [
    (lambda: vllm(5), TypeError, 'outputs must be a sequence, got int'),
    (lambda: vllm("text"), TypeError, 'outputs must be a sequence, got str'),
    (lambda: vllm({"outputs": []}), TypeError, 'outputs must be a sequence of results, got one dict; give a list'),
    (lambda: vllm([1]), TypeError, "outputs[0] is int without 'outputs'; expected a RequestOutput, with 'outputs' and 'prompt_token_ids'"),
    (lambda: vllm([v(), None]), TypeError, "outputs[1] is NoneType without 'outputs'; expected a RequestOutput, with 'outputs' and 'prompt_token_ids'"),
    (lambda: vllm([N(outputs=5)]), TypeError, 'outputs[0].outputs must be a list, got int'),
    (lambda: vllm([v({"token_ids": None})]), ValueError, "column 'response_ids': row 0 has no 'token_ids'"),
    (lambda: vllm([v({"token_ids": 5})]), TypeError, "column 'response_ids': row 0 is int, expected a list of token ids"),
    (lambda: vllm([v({"token_ids": "ab"})]), TypeError, "column 'response_ids': row 0 is str, expected a list of token ids"),
    (lambda: vllm([v({"token_ids": [0.5]})]), TypeError, "column 'response_ids': row 0, position 0: float 0.5 in an int32 column; pass dtype=np.float32 (or another float dtype) or round it first"),
    (lambda: vllm([v({"token_ids": [[1]]})]), ValueError, "column 'response_ids': row 0 has elements of shape (1,); a number a token expected"),
    (lambda: vllm([v({"token_ids": [2**31]})]), OverflowError, "column 'response_ids': row 0, position 0: 2147483648 does not fit int32"),
    (lambda: vllm([v({}), v({}, prompt=None)]), ValueError, "column 'prompt_token_ids': row 1 has no 'prompt_token_ids', row 0 has; ask for it in every request, or in none"),
    (lambda: vllm([v({}, prompt=["a"])]), TypeError, "column 'prompt_token_ids': row 0, position 0: 'a' is not a number"),
    (lambda: vllm([v({"logprobs": None}, {"logprobs": LP})]), ValueError, "column 'rollout_logprobs': row 0 has no 'logprobs', row 1 has; ask for it in every request, or in none"),
    (lambda: vllm([v({"logprobs": LP}, {"logprobs": LP[:1]})]), ValueError, "column 'rollout_logprobs': row 1 has 1 elements for 2 tokens"),
    (lambda: vllm([v({"logprobs": LP}, {"logprobs": LP[::-1]})]), ValueError, "column 'rollout_logprobs': row 1, position 0: no entry for token 7 among 2"),
    (lambda: vllm([v({"logprobs": [None, None]})]), TypeError, "column 'rollout_logprobs': row 0, position 0: a dict by token expected, got None"),
    (lambda: vllm([v({"logprobs": 5})]), TypeError, "column 'rollout_logprobs': row 0 is int, expected a list, tuple or array"),
    (lambda: vllm([v({"logprobs": [{7: 1}, {2: 2}]})]), TypeError, "column 'rollout_logprobs': row 0, position 0: 1 has no attribute 'logprob'"),
    (lambda: vllm([v({"logprobs": [{7: N(logprob=None)}, {2: 2}]})]), TypeError, "column 'rollout_logprobs': row 0, position 0: None is not a number"),
    (lambda: vllm([v({"logprobs": FLAT})]), ValueError, "column 'rollout_logprobs': row 0, position 1: no entry for token 2"),
    (lambda: vllm([v({"logprobs": LP}, {"logprobs": SHORT})]), ValueError, "column 'rollout_logprobs': row 1: 1 elements for 2 tokens"),
    (lambda: vllm([v({"logprobs": BROKEN})]), ValueError, "column 'rollout_logprobs': row 0: FlatLogprobs has indices beyond its 1 entries"),
    (lambda: vllm([v({"logprobs": UNEVEN})]), ValueError, "column 'rollout_logprobs': row 0: FlatLogprobs has columns of different lengths"),
    (lambda: vllm([v({})], top_logprobs=2), ValueError, "top_logprobs: no output has 'logprobs'; ask for them with SamplingParams(logprobs=k)"),
    (lambda: vllm([v({"logprobs": LP})], top_logprobs=2), ValueError, "column 'top_logprobs': row 0, position 0: 1 log-probabilities, top_logprobs=2; ask the engine for as many"),
    (lambda: vllm([v({"logprobs": LP})], top_logprobs=0), ValueError, 'top_logprobs must be at least 1, got 0'),
    (lambda: vllm([v({"logprobs": LP})], top_logprobs="2"), TypeError, 'top_logprobs must be an int, got str'),
    (lambda: vllm([v({"routed_experts": ROUTES}, {})]), ValueError, "column 'rollout_expert_indices': row 1 has no 'routed_experts', row 0 has; ask for it in every request, or in none"),
    (lambda: vllm([v({"routed_experts": ROUTES[:1]})]), ValueError, "column 'rollout_expert_indices': row 0: 1 rows of routes for a prompt of 1 and a response of 2 tokens; expected 3 or one less"),
    (lambda: vllm([v({"routed_experts": ROUTES}, prompt_routed_experts=ROUTES)]), ValueError, "column 'rollout_expert_indices': row 0: 2 rows of routes for the 1 tokens of the prompt"),
    (lambda: vllm([v({"routed_experts": ROUTES}, prompt_routed_experts=np.zeros((1, 2, 2), int))]), ValueError, "column 'rollout_expert_indices': row 0: routes of the prompt have shape (2, 2), the others (1, 2)"),
    (lambda: vllm([v({"routed_experts": ROUTES[0]})]), ValueError, "column 'rollout_expert_indices': row 0: routes have shape (1, 2); expected [tokens, layers, topk]"),
    (lambda: vllm([v({"routed_experts": ROUTES / 2})]), TypeError, "column 'rollout_expert_indices': row 0: routes must be integers, got float64"),
    (lambda: vllm([v({"routed_experts": [[[1]], [[1, 2]]]})]), ValueError, "column 'rollout_expert_indices': row 0: routes are lists of unequal lengths; expected [tokens, layers, topk]"),
    (lambda: vllm([v({"routed_experts": 5})]), ValueError, "column 'rollout_expert_indices': row 0: routes have shape (); expected [tokens, layers, topk]"),
    (lambda: vllm([v({"sampling_mask": [[7]]})]), ValueError, "column 'sampling_masks': row 0 has 1 elements for 2 tokens"),
    (lambda: vllm([v({"sampling_mask": 5})]), TypeError, "column 'sampling_masks': row 0 is int; expected a list of ids per token, or ids and their offsets"),
    (lambda: vllm([v({"sampling_mask": N(token_ids=[1, 2], offsets=[0, 2, 1])})]), ValueError, "column 'sampling_masks': row 0 has offsets that do not cover its 2 ids, from 0 on and never falling"),
    (lambda: vllm([v({"weight_versions": [N(version="1", start=0, end=1)]})]), ValueError, "column 'model_versions': row 0 has spans that do not cover its 2 tokens one after the other: [namespace(version='1', start=0, end=1)]"),
    (lambda: vllm([v({"weight_versions": [N(version="1", start=1, end=2)]})]), ValueError, "column 'model_versions': row 0 has spans that do not cover its 2 tokens one after the other: [namespace(version='1', start=1, end=2)]"),
    (lambda: vllm([v({"weight_versions": [N(version="1", start=0, end=1), N(version="b", start=1, end=2)]})]), ValueError, "column 'model_versions': row 0: 'b' is no number, others are; pass version=, which makes one of a label"),
    (lambda: vllm([v({"weight_versions": "b"})], version=lambda label: None), ValueError, "column 'model_versions': row 0: version makes None of 'b', expected an int"),
    (lambda: vllm([v({"weight_versions": "b"})], version=5), TypeError, 'version must be a function of a label, got int'),
    (lambda: vllm([v({"finish_reason": "stop"}, {"finish_reason": None})]), ValueError, "column 'stop_reasons': row 1 has no 'finish_reason', row 0 has; ask for it in every request, or in none"),
    (lambda: vllm([v({})], rewards=[1.0, 2.0]), ValueError, 'rewards has 2 rows, there are 1'),
    (lambda: vllm([v({})], rewards=5), TypeError, 'rewards must be a sequence, got int'),
    (lambda: vllm([v({})], rewards=["a"]), TypeError, 'rewards must hold numbers, got <U1'),
    (lambda: vllm([v({})], rewards=[[1.0]]), ValueError, "column 'rewards': row 0 has 1 elements for 2 tokens"),
    (lambda: vllm([v({})], masks=[[1]]), ValueError, "column 'masks': row 0 has 1 elements for 2 tokens"),
    (lambda: vllm([v({})], masks=[[1, -1]]), OverflowError, 'masks: row 0, position 1: -1 does not fit uint8'),
    (lambda: vllm([v({})], masks=["a"]), TypeError, 'masks must hold numbers, got <U1'),
    (lambda: vllm([v({})], masks=np.float32(1)), TypeError, 'masks must be a sequence, got float32'),
    (lambda: sglang({"output_ids": [1]}), TypeError, 'results must be a sequence of results, got one dict; give a list'),
    (lambda: sglang([{"output_ids": [1]}]), TypeError, "results[0] is dict without 'meta_info'; expected a result of /generate, with 'output_ids' and 'meta_info'"),
    (lambda: sglang([[s()], s()]), TypeError, 'results[1] is dict, others are lists; give results, or a list for each prompt'),
    (lambda: sglang([s(), {"meta_info": {}}]), ValueError, "column 'response_ids': row 1 has no 'output_ids'"),
    (lambda: sglang([{"meta_info": {}}]), ValueError, "column 'response_ids': row 0 has no 'output_ids'"),
    (lambda: sglang([s(output_token_logprobs=[[-0.5, 7]]), s()]), ValueError, "column 'rollout_logprobs': row 1 has no 'output_token_logprobs', row 0 has; ask for it in every request, or in none"),
    (lambda: sglang([s(output_token_logprobs=[[-0.5, 7]])]), ValueError, "column 'rollout_logprobs': row 0 has 1 elements for 2 tokens"),
    (lambda: sglang([s(output_token_logprobs=[[-0.5, 7], [None, 2]])]), TypeError, "column 'rollout_logprobs': row 0, position 1: None is not a number"),
    (lambda: sglang([s(output_token_logprobs=[-0.5, 7])]), TypeError, "column 'rollout_logprobs': row 0, position 0: -0.5 has no entries; a tuple or list expected"),
    (lambda: sglang([s()], prompts=[[1], [2]]), ValueError, 'prompts has 2 rows, there are 1 results'),
    (lambda: sglang([[s()], [s()]], prompts=[[1]]), ValueError, 'prompts has 1 rows, there are 2 lists of results'),
    (lambda: sglang([s(prompt_tokens=2)], prompts=[[1]]), ValueError, "column 'prompt_token_ids': row 0 has 1 tokens, the engine counted 2 (prompt_tokens)"),
    (lambda: sglang([s()], prompts=5), TypeError, 'prompts must be a sequence, got int'),
    (lambda: sglang([s()], top_logprobs=1), ValueError, "top_logprobs: no result has 'output_top_logprobs'; ask for them with top_logprobs_num"),
    (lambda: sglang([s(output_top_logprobs=[[[-1.0, 5]], []])], top_logprobs=1), ValueError, "column 'top_logprobs': row 0, position 1: 0 log-probabilities, top_logprobs=1; ask the engine for as many"),
    (lambda: sglang([s(output_top_logprobs=[[[-1.0, 5]], None])], top_logprobs=1), TypeError, "column 'top_logprobs': row 1 is NoneType, expected a list, tuple or array"),
    (lambda: sglang([s(output_token_sampling_logprobs=[-0.5])]), ValueError, "column 'sampling_logprobs': row 0 has 1 elements for 2 tokens"),
    (lambda: sglang([s(routed_experts="AAAAAAAAAAA=")], prompts=[[1]]), ValueError, "column 'rollout_expert_indices': row 0: routes are base64 without a shape; pass experts=(layers, topk) of the model"),
    (lambda: sglang([s(routed_experts="AAAAAAAAAAA=")], prompts=[[1]], experts=(1, 2)), ValueError, "column 'rollout_expert_indices': row 0: 1 rows of routes for a prompt of 1 and a response of 2 tokens; expected 3 or one less"),
    (lambda: sglang([s(routed_experts="AAAAAAAAAAA=")], prompts=[[1]], experts=(2, 2)), ValueError, "column 'rollout_expert_indices': row 0: routes of 8 bytes are no rows of (2, 2) int32 experts, 16 bytes each"),
    (lambda: sglang([s(routed_experts="AAAAAAAAAAA=")], prompts=[[1]], experts=(0, 2)), ValueError, "column 'rollout_expert_indices': row 0: experts must be (layers, topk), got (0, 2)"),
    (lambda: sglang([s(routed_experts="AAAAAAAAAAA=")], prompts=[[1]], experts=5), TypeError, "column 'rollout_expert_indices': row 0: experts must be a tuple of ints, got int"),
    (lambda: sglang([s(routed_experts="a?")], prompts=[[1]], experts=(1, 2)), ValueError, "column 'rollout_expert_indices': row 0: routes are a text that is no base64: Only base64 data is allowed"),
    (lambda: sglang([s(routed_experts="k05VTVBZ")], prompts=[[1]], experts=(1, 2)), ValueError, "column 'rollout_expert_indices': row 0: routes are a broken .npy file: EOF: reading magic string, expected 8 bytes got 6"),
    (lambda: sglang([s(routed_experts=ROUTES[:0])], prompts=[[1]], routed_experts_start_len=1), ValueError, "column 'rollout_expert_indices': row 0: 0 rows of routes for a prompt of 1 and a response of 2 tokens, from token 1 on; expected 2 or one less"),
    (lambda: sglang([s()], routed_experts_start_len=-1), ValueError, 'routed_experts_start_len must be at least 0, got -1'),
    (lambda: sglang([s()], routed_experts_start_len=[0, 0]), ValueError, 'routed_experts_start_len has 2 rows, there are 1 results'),
    (lambda: sglang([s()], instance_ids=["a", "b"]), ValueError, 'instance_ids has 2 rows, there are 1 results'),
    (lambda: openai(o()), TypeError, 'responses must be a sequence of results, got one dict; give a list'),
    (lambda: openai([5]), TypeError, "responses[0] is int without 'choices'; expected a response to a completion or a chat, with 'choices'"),
    (lambda: openai([{"choices": 5}]), TypeError, 'responses[0].choices must be a list, got int'),
    (lambda: openai([{"choices": [{"text": "a"}]}]), ValueError, "column 'response_ids': row 0 has no 'token_ids'; ask the server for them (return_token_ids)"),
    (lambda: openai([o(), o(prompt_token_ids=[1])]), ValueError, "column 'prompt_token_ids': row 0 has no 'prompt_token_ids', row 1 has; ask for it in every request, or in none"),
    (lambda: openai([o(logprobs={"content": [{"logprob": -0.5}]})]), ValueError, "column 'rollout_logprobs': row 0 has 1 elements for 2 tokens"),
    (lambda: openai([o(logprobs={"content": [{"logprob": -0.5}, {}]})]), ValueError, "column 'rollout_logprobs': row 0, position 1: a dict without 'logprob'"),
    (lambda: openai([o(logprobs={"token_logprobs": [None, -0.5]})]), TypeError, "column 'rollout_logprobs': row 0, position 0: None is not a number"),
    (lambda: openai([o(logprobs={"token_logprobs": [-0.5, -0.5]}), o(logprobs={"content": []})]), ValueError, "column 'rollout_logprobs': row 1 (responses[1].choices[0]) has no 'logprobs.token_logprobs', row 0 has; ask for it in every request, or in none"),
    (lambda: openai([o(logprobs={})]), ValueError, "column 'rollout_logprobs': row 0 (responses[0].choices[0]) has logprobs with neither 'token_logprobs' (completions) nor 'content' (chats)"),
    (lambda: openai([{"choices": []}, o(logprobs={"content": None})]), ValueError, "column 'rollout_logprobs': row 0 (responses[1].choices[0]) has logprobs with neither 'token_logprobs' (completions) nor 'content' (chats)"),
    (lambda: openai([o(logprobs=TWO), {"choices": [o(logprobs=TWO)["choices"][0], o(logprobs={"content": None})["choices"][0]]}]), ValueError, "column 'rollout_logprobs': row 2 (responses[1].choices[1]) has no 'logprobs.content', row 0 has; ask for it in every request, or in none"),
    (lambda: openai([o(logprobs={"content": [None, {"logprob": -0.5}]})]), TypeError, "column 'rollout_logprobs': row 0, position 0: None has no attribute 'logprob'"),
    (lambda: trl([5]), TypeError, "samples[0] is int without 'input_ids'; expected a RolloutSample, with 'input_ids' and 'completion_mask'"),
    (lambda: trl([{"input_ids": [1]}]), ValueError, "column 'completion_mask': row 0 has no 'completion_mask'"),
    (lambda: trl([t(completion_mask=[1])]), ValueError, "column 'completion_mask': row 0 has 1 elements for 3 tokens"),
    (lambda: trl([t(completion_mask=[0.5, 1, 1])]), TypeError, "column 'completion_mask': row 0, position 0: float 0.5 in a uint8 column; pass dtype=np.float32 (or another float dtype) or round it first"),
    (lambda: trl([t(old_log_probs=[-0.5])]), ValueError, "column 'rollout_logprobs': row 0 has 1 elements for 3 tokens"),
    (lambda: trl([t(advantage=1.0), t()]), ValueError, "column 'advantages': row 1 has no 'advantage', row 0 has; ask for it in every request, or in none"),
    (lambda: trl([t(advantage="a")]), TypeError, 'advantages must hold numbers, got <U1'),
    (lambda: trl([t(model_version=1), t(model_version="b")]), ValueError, "column 'model_versions': row 1: 'b' is no number, others are; pass version=, which makes one of a label"),
    (lambda: verifiers([5]), TypeError, "traces[0] is int without 'nodes'; expected a Trace, with 'nodes', or a rollout, with 'trajectory'"),
    (lambda: verifiers([{"nodes": 5}]), TypeError, 'traces[0].nodes must be a list, got int'),
    (lambda: verifiers([n(parent=0)]), ValueError, 'traces[0].nodes[0].parent is 0; a parent comes before its children'),
    (lambda: verifiers([n(parent="a")]), ValueError, "traces[0].nodes[0].parent is 'a'; a parent comes before its children"),
    (lambda: verifiers([n(mask=[True])]), ValueError, "column 'loss_masks': row 0 has 1 elements of 'mask' for 2 tokens"),
    (lambda: verifiers([n(logprobs=[-0.5, -0.5])]), ValueError, "column 'rollout_logprobs': row 0 has 2 log-probabilities for 1 sampled tokens"),
    (lambda: verifiers([n(), n(logprobs=[])]), ValueError, "column 'rollout_logprobs': row 1 has 0 log-probabilities for 1 sampled tokens"),
    (lambda: verifiers([n(token_ids=5)]), TypeError, "column 'response_ids': row 0 is int, expected a list of token ids"),
    (lambda: verifiers([n(sampling_mask=[[1], [2]])]), ValueError, "column 'sampling_masks': row 0 has 2 elements for 1 tokens"),
    (lambda: verifiers([{"nodes": n(routed_experts=ROUTES)["nodes"] + [{**n()["nodes"][0], "parent": 0}]}]), ValueError, "column 'rollout_expert_indices': row 0 has routes of 1 of its 2 messages; all or none are needed"),
    (lambda: verifiers([{"trajectory": 5}]), TypeError, 'traces[0].trajectory must be a list, got int'),
    (lambda: verifiers([{"trajectory": [{"tokens": None}]}]), ValueError, "column 'prompt_token_ids': row 0 has no 'tokens.prompt_ids'"),
    (lambda: verifiers([{"trajectory": []}, {"nodes": []}]), TypeError, "traces[1] is dict without 'trajectory'; expected a Trace, with 'nodes', or a rollout, with 'trajectory'"),
    (lambda: verifiers([{**n(), "reward": 1.0}, n()]), ValueError, "column 'rewards': row 1 has no 'reward', row 0 has; ask for it in every request, or in none"),
]
# fmt: on


@pytest.mark.parametrize(("call", "kind", "message"), REFUSED, ids=[message[:90] for *_, message in REFUSED])
def test_refusals(call: Callable[[], Any], kind: type[Exception], message: str) -> None:
    check_refusal(call, kind, message)
