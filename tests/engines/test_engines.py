"""`rollkit.engines`: what each engine would send of random samples must come out as it was drawn."""
# ruff: noqa: E501, C408, RUF017

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from types import SimpleNamespace as N
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.engines.samples import (
    LAYERS,
    TOPK,
    Sample,
    base64_of,
    csr,
    dicts_of,
    entries,
    flat_logprobs,
    groups,
)
from tests.thorough import examples

from rollkit import Ragged, Rollouts, engines, merge_steps, pack

# Columns are of several types, which each test knows.
from_vllm: Callable[..., Any] = engines.from_vllm
from_sglang: Callable[..., Any] = engines.from_sglang
from_openai: Callable[..., Any] = engines.from_openai
from_trl: Callable[..., Any] = engines.from_trl
from_verifiers: Callable[..., Any] = engines.from_verifiers

settled = settings(max_examples=examples(80), deadline=None)
drawn = st.sampled_from


def flat(found: Any) -> list[Any]:
    return [sample for samples in found for sample in samples]


def check(rollouts: Rollouts, samples: list[Sample], *columns: str) -> None:
    """The columns are those, and say what was drawn."""
    wanted: dict[str, Callable[[Sample], Any]] = {
        "prompt_token_ids": lambda s: s.prompt,
        "response_ids": lambda s: s.response,
        "rollout_logprobs": lambda s: s.logprobs,
        "model_versions": lambda s: s.versions,
    }
    every = ["prompt_token_ids", "response_ids", *columns] if samples else []
    assert set(rollouts.keys()) - {"instance_ids", "stop_reasons"} == {
        *every,
        "prompt_token_ids",
        "response_ids",
    }
    for name in wanted:
        if name in rollouts:
            assert rollouts.ragged(name).to_list() == [wanted[name](sample) for sample in samples], name
    if "rollout_expert_indices" in rollouts:
        for row, sample in zip(rollouts.ragged("rollout_expert_indices"), samples, strict=True):
            assert row.tolist() == sample.routes[: len(row)].tolist()
            assert len(row) >= len(sample.routes) - 1
    if "sampling_masks" in rollouts:
        found: Any = rollouts["sampling_masks"]
        found = found.to_list() if isinstance(found, Ragged) else found
        assert [[list(kept) for kept in row] for row in found] == [sample.kept for sample in samples]
    if samples:
        assert rollouts["stop_reasons"] == [sample.reason for sample in samples]


def usual(samples: list[Sample]) -> list[str]:
    return (
        ["rollout_logprobs", "rollout_expert_indices", "sampling_masks", "model_versions"] if samples else []
    )


# vLLM


def vllm(found: list[list[Sample]], logprobs: str = "dict", routes: str = "all but one") -> list[Any]:
    return [
        N(
            request_id=str(number),
            prompt_token_ids=samples[0].prompt,
            prompt_routed_experts=samples[0].routes[: len(samples[0].prompt)] if routes == "apart" else None,
            outputs=[vllm_sample(sample, logprobs, routes) for sample in samples],
        )
        for number, samples in enumerate(found)
    ]


def vllm_sample(sample: Sample, logprobs: str, routes: str) -> Any:
    first = len(sample.prompt)
    known = {"all but one": sample.known, "all": sample.routes, "apart": sample.routes[first:], "none": None}
    dicts = [{token: N(logprob=x) for token, x in entry.items()} for entry in entries(sample)]
    values = {"dict": dicts, "flat": flat_logprobs(entries(sample)), "none": None}
    return N(
        index=0, token_ids=sample.response, logprobs=values[logprobs], routed_experts=known[routes],
        sampling_mask=csr(sample.kept), weight_versions=[N(**span) for span in sample.spans()],
        finish_reason=sample.reason,
    )  # fmt: skip


@given(groups(), drawn(["dict", "flat"]), drawn(["all but one", "all", "apart"]), st.booleans())
@settled
def test_vllm(found: Any, logprobs: str, routes: str, as_dicts: bool) -> None:
    outputs = vllm(found, logprobs, routes)
    if as_dicts and logprobs == "flat":
        outputs = dicts_of(outputs)
    rollouts = from_vllm(outputs)
    check(rollouts, flat(found), *usual(flat(found)))
    if found:
        assert rollouts["instance_ids"] == [str(sample.group) for sample in flat(found)]
        assert rollouts["rollout_expert_indices"].dtype == np.int16


@given(groups(), drawn(["dict", "flat"]), st.integers(1, 3))
@settled
def test_top_of_vllm(found: Any, logprobs: str, k: int) -> None:
    rollouts = from_vllm(vllm(found, logprobs), top_logprobs=k)
    samples = flat(found)
    if not samples:
        return
    for row, sample in enumerate(samples):
        best = [sorted(entry.items(), key=lambda one: -one[1])[:k] for entry in entries(sample)]
        ids = rollouts.ragged("top_logprob_ids")[row].tolist()
        assert ids == [[token for token, _ in one] for one in best]
        assert rollouts.ragged("top_logprobs")[row].tolist() == [[x for _, x in one] for one in best]


def test_vllm_mixed_logprobs_and_arrays_of_tokens() -> None:
    samples = [[Sample([1], [7, 2], [-0.5, -0.25], [{}, {}], [[7], [2]], [1, 1], "stop")] for _ in range(2)]
    outputs = [*vllm(samples[:1], "dict"), *vllm(samples[1:], "flat")]
    outputs[0].outputs[0].token_ids = np.array([7, 2])
    outputs[1].outputs[0].token_ids = (7, 2)
    outputs[1].prompt_token_ids = np.array([1])
    check(from_vllm(outputs), flat(samples), *usual(flat(samples)))


# SGLang


def sglang(found: list[list[Sample]], start: int = 0, version: bool = True) -> list[list[Any]]:
    def result(sample: Sample) -> dict[str, Any]:
        meta = {
            "id": "x", "prompt_tokens": len(sample.prompt), "finish_reason": {"type": sample.reason, "matched": 2},
            "output_token_logprobs": [[x, t, None] for x, t in zip(sample.logprobs, sample.response, strict=True)],
            "output_top_logprobs": [[[x, t, None] for t, x in entry.items()] for entry in entries(sample)],
            "output_token_sampling_mask": sample.kept,
            "output_token_sampling_logprobs": sample.logprobs,
            "routed_experts": base64_of(sample.known.astype(np.int32)[start:]),
            "weight_versions": sample.spans() if version else None,
            "weight_version": "default",
        }  # fmt: skip
        return {"text": "", "output_ids": sample.response, "meta_info": meta}

    return [[result(sample) for sample in samples] for samples in found]


@given(groups(), st.booleans(), st.booleans())
@settled
def test_sglang(found: Any, nested: bool, without_ids: bool) -> None:
    samples, results = flat(found), sglang(found)
    if without_ids:
        for result in flat(results):
            del result["output_ids"]
    prompts = [group[0].prompt for group in found] if nested else [sample.prompt for sample in samples]
    given_: Any = results if nested else flat(results)
    rollouts = from_sglang(given_, prompts=prompts, experts=(LAYERS, TOPK))
    columns = usual(samples)
    check(rollouts, samples, *columns, *(["sampling_logprobs"] if samples else []))
    if nested and samples:
        assert list(rollouts["instance_ids"]) == [sample.group for sample in samples]
    assert ("instance_ids" in rollouts) == (nested and bool(samples))


def test_sglang_routes_from_a_token_on() -> None:
    sample = Sample([1, 2, 3], [7, 2], [-0.5, -0.25], [{}, {}], [[7], [2]], [1, 2], "stop")
    results = flat(sglang([[sample]], start=2, version=False))
    rollouts = from_sglang(
        results, prompts=[[1, 2, 3]], experts=(LAYERS, TOPK), routed_experts_start_len=2, instance_ids=["a"]
    )
    routes = rollouts.ragged("rollout_expert_indices")[0]
    assert routes.tolist() == [*[[[0, 1, 2]] * LAYERS] * 2, *sample.known[2:].tolist()]
    assert rollouts.ragged("route_masks").to_list() == [[1, 1, 0, 0, 1]]
    assert "model_versions" not in rollouts
    assert rollouts["instance_ids"] == ["a"]
    assert pack(rollouts, 8).num_rows == 1


@given(groups(), st.integers(1, 3))
@settled
def test_top_of_sglang(found: Any, k: int) -> None:
    rollouts = from_sglang(
        sglang(found), top_logprobs=k, experts=(LAYERS, TOPK), prompts=[s[0].prompt for s in found]
    )
    for row, sample in enumerate(flat(found)):
        best = [sorted(entry.items(), key=lambda one: -one[1])[:k] for entry in entries(sample)]
        assert rollouts.ragged("top_logprob_ids")[row].tolist() == [[t for t, _ in one] for one in best]


# OpenAI


def openai(found: list[list[Sample]], chat: bool, routes: str) -> list[Any]:
    def choice(sample: Sample) -> Any:
        content = [N(token="a", logprob=x, bytes=None, top_logprobs=[]) for x in sample.logprobs]
        logprobs = N(content=content) if chat else N(token_logprobs=sample.logprobs, tokens=[])
        first = len(sample.prompt)
        experts = {
            "npy": base64_of(sample.known, npy=True),
            "apart": dict(data=base64_of(sample.routes[first:]), shape=(len(sample.response), LAYERS, TOPK), dtype="int16"),
            "lists": sample.known.tolist(),
        }  # fmt: skip
        return N(
            token_ids=sample.response, logprobs=logprobs, finish_reason=sample.reason,
            routed_experts=experts[routes], sampling_mask=sample.kept, weight_versions=sample.spans(),
            prompt_token_ids=None if chat else sample.prompt,
        )  # fmt: skip

    return [
        N(
            id=f"cmpl-{number}", choices=[choice(sample) for sample in samples],
            prompt_token_ids=samples[0].prompt if chat else None,
            prompt_routed_experts=base64_of(samples[0].routes[: len(samples[0].prompt)], npy=True) if routes == "apart" else None,
        )
        for number, samples in enumerate(found)
    ]  # fmt: skip


@given(groups(), st.booleans(), drawn(["npy", "apart", "lists"]), st.booleans())
@settled
def test_openai(found: Any, chat: bool, routes: str, as_dicts: bool) -> None:
    responses = openai(found, chat, routes)
    rollouts = from_openai(dicts_of(responses) if as_dicts else responses)
    check(rollouts, flat(found), *usual(flat(found)))
    if found:
        assert rollouts["instance_ids"] == [f"cmpl-{sample.group}" for sample in flat(found)]


def test_openai_tells_the_prompts_of_a_response_apart() -> None:
    choices = [{"token_ids": [1], "prompt_token_ids": [at // 2], "finish_reason": "stop"} for at in range(4)]
    rollouts = from_openai([{"id": "a", "choices": choices}, {"id": "b", "choices": choices[:2]}])
    assert rollouts["instance_ids"] == ["a:0", "a:0", "a:1", "a:1", "b", "b"]


# TRL


@given(groups(), st.booleans())
@settled
def test_trl(found: Any, arrays: bool) -> None:
    samples = [sample for sample in flat(found) if sample.response]

    def trl(sample: Sample) -> Any:
        zeros, count = [0] * len(sample.prompt), len(sample.response)
        logprobs: Any = [0.0] * len(zeros) + sample.logprobs
        return N(
            input_ids=sample.prompt + sample.response, completion_mask=zeros + [1] + [0, 1] * (count // 2) + [1] * ((count - 1) % 2),
            old_log_probs=np.array(logprobs, np.float32) if arrays else logprobs, advantage=float(count),
            model_version=5, group_id=sample.group, metrics={"reward": 0.5},
        )  # fmt: skip

    made = [trl(sample) for sample in samples]
    for sample, one in zip(samples, made, strict=True):
        one.completion_mask = one.completion_mask[: len(one.input_ids)]
        sample.versions = [5] * len(sample.response)
    rollouts = from_trl(made if arrays else dicts_of(made))
    assert rollouts.ragged("prompt_token_ids").to_list() == [sample.prompt for sample in samples]
    assert rollouts.ragged("response_ids").to_list() == [sample.response for sample in samples]
    masks = [one.completion_mask[-len(sample.response) :] for sample, one in zip(samples, made, strict=True)]
    assert rollouts.ragged("loss_masks").to_list() == masks
    if samples:
        assert rollouts.ragged("rollout_logprobs").to_list() == [sample.logprobs for sample in samples]
        assert rollouts.ragged("model_versions").to_list() == [sample.versions for sample in samples]
        assert rollouts["advantages"].tolist() == [len(sample.response) for sample in samples]
        assert rollouts["rewards"].tolist() == [0.5] * len(samples)
        assert list(rollouts["instance_ids"]) == [sample.group for sample in samples]


# verifiers


def node(
    parent: int | None, tokens: list[int], sampled: list[bool], sample: Sample | None = None, **more: Any
) -> Any:
    """A message; of what it says, `sample` has the log-probabilities and kept ids, in order."""
    count = sum(sampled)
    kept = [[token] for token in tokens[-count:]] if count else None
    mask = (
        None
        if kept is None
        else N(ids=np.array(sum(kept, []), np.int32), counts=np.array([1] * count, np.int32))
    )
    return N(
        parent=parent, token_ids=tokens, mask=sampled, logprobs=[-float(t % 9) for t in tokens[len(tokens) - count :]],
        routed_experts=np.full((len(tokens), LAYERS, TOPK), len(tokens), np.uint8), sampling_mask=mask,
        finish_reason="stop" if count else None, semantic_parents=[], **more,
    )  # fmt: skip


@st.composite
def trees(draw: st.DrawFn) -> Any:
    """Nodes of a trace, each after its parent."""
    nodes = []
    for at in range(draw(st.integers(1, 7))):
        parent = draw(st.integers(0, at - 1)) if at and draw(st.booleans()) else None
        found = draw(st.lists(st.integers(0, 99), min_size=1, max_size=4))
        said = draw(st.integers(0, len(found)))
        nodes.append(node(parent, found, [False] * (len(found) - said) + [True] * said))
    return nodes


@given(st.lists(trees(), max_size=3), st.booleans())
@settled
def test_verifiers(found: Any, as_dicts: bool) -> None:
    """Against verifiers' own way: a branch is the way back from a leaf, its fields end to end."""
    traces = [
        N(id=f"t{i}", nodes=nodes, reward=i / 2, stop_condition="done", task=N(key=f"k{i}", data=N(idx=i)))
        for i, nodes in enumerate(found)
    ]
    rollouts = from_verifiers(dicts_of(traces) if as_dicts else traces)
    row = 0
    for i, nodes in enumerate(found):
        inner = {one.parent for one in nodes}
        for leaf in (at for at in range(len(nodes)) if at not in inner):
            path: list[Any] = []
            at: int | None = leaf
            while at is not None:
                path.insert(0, nodes[at])
                at = nodes[at].parent
            ids: list[int] = sum((one.token_ids for one in path), [])
            mask: list[bool] = sum((one.mask for one in path), [])
            first = mask.index(True) if True in mask else len(mask)
            values: Any = iter(sum((one.logprobs for one in path), []))
            logprobs = [next(values) if flag else 0.0 for flag in mask]
            assert rollouts.ragged("prompt_token_ids")[row].tolist() == ids[:first]
            assert rollouts.ragged("response_ids")[row].tolist() == ids[first:]
            assert rollouts.ragged("loss_masks")[row].tolist() == [int(flag) for flag in mask[first:]]
            if "rollout_logprobs" in rollouts:
                assert rollouts.ragged("rollout_logprobs")[row].tolist() == logprobs[first:]
            if "sampling_masks" in rollouts:
                kept = [list(one) for one in rollouts["sampling_masks"][row]]
                assert kept == [
                    [t] if flag else [] for t, flag in zip(ids[first:], mask[first:], strict=True)
                ]
            assert rollouts["trajectory_ids"][row] == f"t{i}"
            assert rollouts["instance_ids"][row] == f"k{i}"
            assert rollouts["rewards"][row] == i / 2
            row += 1
    assert len(rollouts) == row


def test_verifiers_on_disk_has_parts_of_the_reward() -> None:
    trace: Any = {
        "id": "t", "nodes": [vars(node(None, [1, 2], [False, True]))], "task": {"data": {"idx": 3}},
        "rewards": {"a": {"score": 1.0, "weight": 0.5}, "b": {"score": 2.0}, "c": None},
    }  # fmt: skip
    del trace["nodes"][0]["routed_experts"]
    rollouts = from_verifiers([trace])
    assert rollouts["rewards"].tolist() == [2.5]
    assert list(rollouts["instance_ids"]) == [3]


def test_verifiers_leaves_failed_compactions_out() -> None:
    nodes = [node(None, [1], [False]), node(0, [2], [True]), node(0, [3], [True]), node(1, [4], [True])]
    nodes[2].semantic_parents = [N(node=1, type="compaction_attempt")]
    assert from_verifiers([N(id="t", nodes=nodes)]).ragged("response_ids").to_list() == [[2, 4]]
    nodes[3].semantic_parents = [N(node=2, type="compaction")]
    assert from_verifiers([N(id="t", nodes=nodes)]).ragged("response_ids").to_list() == [[3], [2, 4]]


def test_steps_of_older_verifiers_merge() -> None:
    def step(prompt: list[int], response: list[int]) -> dict[str, Any]:
        count = len(response)
        routes = np.zeros((len(prompt) + count - 1, LAYERS, TOPK), np.uint8)
        payload = {"data": base64_of(routes), "shape": list(routes.shape), "start": 0}
        tokens = dict(
            prompt_ids=prompt, prompt_mask=[0] * len(prompt), completion_ids=response,
            completion_mask=[1] * count, completion_logprobs=[-0.5] * count, routed_experts=payload,
        )  # fmt: skip
        return {"tokens": tokens, "reward": None}

    outputs = [
        {"trajectory": [step([1], [2, 3]), step([1, 2, 3, 4], [5])], "reward": 1.0, "example_id": 7, "stop_condition": "done"},
        {"trajectory": [step([1], [6])], "reward": 0.0, "example_id": 7, "stop_condition": "done"},
    ]  # fmt: skip
    rollouts = from_verifiers({"outputs": outputs, "metadata": {}})
    assert rollouts["is_last_step"].tolist() == [False, True, True]
    assert list(rollouts["trajectory_ids"]) == [0, 0, 1]
    assert list(rollouts["instance_ids"]) == [7, 7, 7]
    merged = merge_steps(rollouts)
    assert merged.ragged("response_ids").to_list() == [[2, 3, 4, 5], [6]]


# What holds for all


CALLS: dict[str, tuple[Callable[..., Any], Callable[[Any], Any]]] = {
    "vllm": (from_vllm, lambda found: vllm(found)),
    "sglang": (lambda results, **more: from_sglang(results, experts=(LAYERS, TOPK), **more), sglang),
    "openai": (from_openai, lambda found: openai(found, True, "npy")),
}


def two() -> list[list[Sample]]:
    return [
        [Sample([1, 2], [7, 2], [-0.5, -0.25], [{1: -3.0}] * 2, [[7], [2, 3]], [1, 2], "stop", 0)],
        [Sample([3], [4], [-0.125], [{1: -3.0}], [[4]], [2], "length", 1)],
    ]


@pytest.mark.parametrize("engine", CALLS)
def test_rewards_and_masks_are_of_rows_or_of_tokens(engine: str) -> None:
    call, make = CALLS[engine]
    by_row = call(make(two()), rewards=[1, 0.5], masks=[1, 0])
    assert by_row["rewards"].tolist() == [1.0, 0.5]
    assert by_row.ragged("loss_masks").to_list() == [[1, 1], [0]]
    by_token = call(make(two()), rewards=[[0, 1], [2]], masks=[np.array([1, 0]), [1]])
    assert by_token.ragged("rewards").to_list() == [[0.0, 1.0], [2.0]]
    assert by_token.ragged("loss_masks").to_list() == [[1, 0], [1]]
    assert by_token.ragged("loss_masks").dtype == np.uint8
    assert list(by_row)[:4] == [name for name in by_row if name in list(by_row)[:4]]


@pytest.mark.parametrize("call", [from_vllm, from_sglang, from_openai, from_verifiers, from_trl])
def test_no_results_are_no_rows(call: Callable[..., Rollouts]) -> None:
    rollouts = call([])
    assert len(rollouts) == 0
    ids = {name: rollouts.ragged(name).dtype for name in ("response_ids",)}
    assert ids == {"response_ids": np.int32}
    assert "rollout_logprobs" not in rollouts


def test_no_engine_is_imported() -> None:
    others = "{'vllm', 'sglang', 'openai', 'trl', 'torch'}"
    program = f"import sys, rollkit.engines; assert not {others} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", program], check=True)


class Broken:
    """A result whose fields raise."""

    request_id = "a"
    prompt_token_ids = (1,)

    @property
    def outputs(self) -> Any:
        raise RuntimeError("the engine is gone")


def test_an_attribute_that_raises_is_heard() -> None:
    with pytest.raises(RuntimeError, match="the engine is gone"):
        from_vllm([Broken()])


def test_labels_of_versions_are_made_numbers() -> None:
    outputs = vllm(two())
    for output in outputs:
        for span in output.outputs[0].weight_versions:
            span.version = f"step-{span.version}"
    assert "model_versions" not in from_vllm(outputs)
    numbered = from_vllm(outputs, version=lambda label: int(label.removeprefix("step-")))
    assert numbered.ragged("model_versions").to_list() == [[1, 2], [2]]


def test_a_trajectory_without_steps() -> None:
    assert len(from_verifiers([{"trajectory": [], "reward": 1.0}])) == 0


def test_sglang_log_probabilities_of_other_tokens() -> None:
    meta = {"output_token_logprobs": [[-0.5, 3, None], [-0.25, 4, None]], "finish_reason": {"type": "stop"}}
    results = [{"output_ids": [3, 9], "meta_info": meta}]
    with pytest.raises(ValueError, match="row 0, position 1 is of token 4, output_ids has 9"):
        from_sglang(results, prompts=[[1]])
    results[0]["output_ids"] = [3, 4]
    assert from_sglang(results, prompts=[[1]]).ragged("rollout_logprobs").to_list() == [[-0.5, -0.25]]
