"""Valid arguments of the drop-ins of `rollkit.compat`, of models and files, for the garbage tests."""

from __future__ import annotations

import functools
import importlib
import tempfile
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
from tests.paths import ROOT

from rollkit import Ragged, Rollouts, pack, sample_path


def tensor(values: Any) -> Any:
    import torch

    return torch.tensor(values)


def nested(*rows: Any) -> Any:
    import torch

    return torch.nested.nested_tensor_from_jagged(
        tensor([token for row in rows for token in row]), tensor([0, *np.cumsum([len(row) for row in rows])])
    )


def padded() -> Any:
    """Two sequences as verl has them."""
    mask = tensor([[0, 1, 1, 0], [1, 1, 1, 1]])
    return {
        "input_ids": tensor([[0, 5, 6, 0], [7, 8, 9, 1]]),
        "attention_mask": mask,
        "response_mask": mask[:, 2:],
        "position_ids": tensor([[0, 0, 1, 0], [0, 1, 2, 3]]),
        "prompts": tensor([[0, 5], [7, 8]]),
        "responses": tensor([[6, 0], [9, 1]]),
    }


def embeds() -> Any:
    return {
        "prompt_embeds": tensor([[[1.0], [2.0]], [[3.0], [0.0]]]),
        "prompt_embeds_mask": tensor([[1, 1], [1, 0]]),
    }


def generated() -> Any:
    """What SkyRL's generators return, of two rows."""
    return {
        "prompt_token_ids": [[1], [2, 3]],
        "response_ids": [[4, 5], [6]],
        "rewards": [1.0, 0.0],
        "loss_masks": [[1, 1], [1]],
        "stop_reasons": ["stop", "length"],
        "rollout_metrics": None,
        "rollout_logprobs": None,
        "trajectory_ids": [SimpleNamespace(instance_id="a", repetition_id=i) for i in range(2)],
        "is_last_step": [True, True],
    }


def trained() -> Any:
    """A batch that shares prefixes, with what PPO's loss takes."""
    columns = {
        "prompt_token_ids": [[1], [1]],
        "response_ids": [[2, 3], [2, 4]],
        "rollout_logprobs": [[-1.0, -2.0], [-1.0, -3.0]],
        "advantages": [1.0, -1.0],
        "loss_weights": [[0.5, 0.5], [0.5, 0.5]],
    }
    return pack(columns, 8, share_prefixes=True)


def packed() -> Any:
    return SimpleNamespace(values=tensor([5, 6, 7]), cu_seqlens=tensor([0, 1, 3]))


def _kind(values: Any, cu_seqlens: Any) -> Any:
    return SimpleNamespace(values=values, cu_seqlens=cu_seqlens)


def trace() -> Any:
    nodes = [SimpleNamespace(token_ids=ids, routed_experts=None, sampled=False) for ids in ([5, 6], [7, 8])]
    return SimpleNamespace(nodes=nodes)


@functools.cache
def model() -> Any:
    from tests.decode.decoding import qwen3

    return qwen3()


def cache() -> Any:
    import transformers

    found = transformers.DynamicCache(config=model().config)
    model()(tensor([[1, 2, 3]]), past_key_values=found)
    return found


def layer() -> Any:
    import torch

    return torch.nn.Linear(2, 6)


def table() -> Any:
    import pyarrow as pa

    return pa.table({"input_ids": [[1, 2], [3]]})


def dataset() -> Any:
    datasets: Any = importlib.import_module("datasets")
    return datasets.Dataset.from_dict({"input_ids": [[1, 2], [3]]})


def collator() -> Any:
    from rollkit.compat.trl import DataCollatorForLanguageModeling

    return DataCollatorForLanguageModeling(0)


def column(name: str) -> Callable[[], Any]:
    return lambda: generated()[name]


HIDDEN: Any = np.zeros((2, 4, 1)).tolist
MASK: Any = [[1, 1, 0, 0], [0, 1, 0, 0]]
TOKENS: dict[str, Callable[[], Any]] = {
    "hidden_states": lambda: tensor(HIDDEN()),
    "attention_mask": lambda: tensor(MASK),
    "indices": lambda: tensor([0, 2]),
    "input": lambda: tensor([[1.0], [2.0], [3.0]]),
    "values": lambda: tensor([[1.0], [2.0]]),
}
FLASH = "rollkit.compat.flash_attn"
SKYRL = "rollkit.compat.skyrl"
VERL = "rollkit.compat.verl"
COLLATOR = "rollkit.compat.trl.DataCollatorForLanguageModeling"
TE = "rollkit.compat.transformer_engine"
SEGMENTS: Any = [[1, 1, 2, 0], [1, 2, 2, 2]]
PLACES: Any = [[0, 1, 0, 0], [0, 0, 1, 2]]


def ints(values: Any) -> Callable[[], Any]:
    return lambda: np.array(values, np.int32)


ARGUMENTS: dict[str, dict[str, Callable[[], Any]]] = {
    "rollkit.read": {"paths": sample_path},
    "rollkit.Bins.open": {"folder": lambda: ROOT / "tests/files/format1/shards"},
    "rollkit.save": {"path": lambda: tempfile.mkdtemp() + "/x.safetensors"},
    "rollkit.iter_chunks": {"paths": sample_path},
    "rollkit.decode.generate": {
        "model": model,
        "prompts": lambda: [[1, 2], [3]],
        "max_new_tokens": lambda: 2,
    },
    "rollkit.decode.crop_padding": {"cache": cache, "columns": lambda: 1},
    "rollkit.decode.PartialHead.from_module": {"module": layer},
    "rollkit.datasets.pack_table": {"table": table, "seq_length": lambda: 4},
    "rollkit.compat.patched": {"name": lambda: "trl"},
    f"{FLASH}.index_first_axis": {name: TOKENS[name] for name in ("input", "indices")},
    f"{FLASH}.index_first_axis_residual": {name: TOKENS[name] for name in ("input", "indices")},
    f"{FLASH}.index_put_first_axis": {
        **{name: TOKENS[name] for name in ("values", "indices")},
        "first_axis_dim": lambda: 3,
    },
    f"{FLASH}.unpad_input": {name: TOKENS[name] for name in ("hidden_states", "attention_mask")},
    f"{FLASH}.unpad_input_for_concatenated_sequences": {
        "hidden_states": TOKENS["hidden_states"],
        "attention_mask_in_length": lambda: tensor([[2, 1, 0, 0], [3, 0, 0, 0]]),
    },
    f"{FLASH}.pad_input": {
        "hidden_states": TOKENS["values"],
        "indices": TOKENS["indices"],
        "batch": lambda: 2,
        "seqlen": lambda: 3,
    },
    f"{FLASH}.rearrange": {"tensor": TOKENS["hidden_states"], "pattern": lambda: "b t d -> t b d"},
    f"{SKYRL}.apply_overlong_filtering": {
        "loss_masks": column("loss_masks"),
        "stop_reasons": column("stop_reasons"),
    },
    f"{SKYRL}.compact_routed_expert_indices": {
        "routed_experts": lambda: np.arange(4, dtype=np.int64).reshape(2, 1, 2)
    },
    f"{SKYRL}.compute_prompt_boundaries": {"uids": lambda: ["a", "a", "b"]},
    f"{SKYRL}.concatenate_generator_outputs": {"generator_outputs": lambda: [generated(), generated()]},
    f"{SKYRL}.convert_prompts_responses_to_batch_tensors": {
        "pad_token_id": lambda: SimpleNamespace(pad_token_id=0),
        "prompts": column("prompt_token_ids"),
        "responses": column("response_ids"),
        "rewards": lambda: [[1.0, 0.0], [2.0]],
        "loss_masks": column("loss_masks"),
    },
    f"{SKYRL}.get_rollout_metrics": {
        "responses": column("response_ids"),
        "rewards": column("rewards"),
    },
    f"{SKYRL}.make_router_padding_mask": {
        "attention_mask": lambda: tensor(MASK),
        "captured_route_lengths": lambda: [1, 1],
    },
    f"{SKYRL}.merge_stepwise_output": {"generator_output": generated},
    f"{SKYRL}.slice_generator_output": {"generator_output": generated, "indices": lambda: [1, 0]},
    f"{SKYRL}.from_packed": {"packed": packed},
    f"{SKYRL}.to_packed": {"rows": lambda: Ragged.from_rows([[1, 2], [3]]), "kind": lambda: _kind},
    f"{SKYRL}.validate_generator_output": {"num_prompts": lambda: 2, "generator_output": generated},
    f"{TE}._get_seqlens_and_offsets": {"segment_ids": ints(SEGMENTS), "max_segments_per_seq": lambda: 4},
    f"{TE}._segment_ids_pos_to_seqlens_offsets": {
        **{f"segment_ids_{side}": ints(SEGMENTS) for side in ("q", "kv")},
        **{f"segment_pos_{side}": ints(PLACES) for side in ("q", "kv")},
        "attn_mask_type": lambda: "padding",
        "window_size": lambda: None,
        "max_segments_per_seq": lambda: 4,
    },
    COLLATOR: {"pad_token_id": lambda: 0},
    f"{COLLATOR}.torch_call": {"examples": lambda: [{"input_ids": [1, 2]}]},
    f"{COLLATOR}.get_position_ids_from_packed_seq_lengths": {"batch_seq_lengths": lambda: [[2, 1]]},
    "rollkit.compat.trl.pack_dataset": {"dataset": dataset, "seq_length": lambda: 4},
    "rollkit.compat.trl.pad": {"tensors": lambda: [tensor([1, 2, 3]), tensor([4])]},
    "rollkit.compat.trl.flush_left": {"mask": lambda: tensor(MASK)},
    "rollkit.compat.trl.tree_columns": {"batch": trained},
    "rollkit.compat.verifiers.attribute_routed_experts": {
        "trace": trace,
        "new_node_ids": lambda: [1],
        "path_len": lambda: 2,
        "payload": lambda: {"data": "AAECAwQF", "shape": [3, 1, 2], "start": 0},
    },
    f"{VERL}.build_attention_mask_from_nested": {"input_ids": lambda: nested([5, 6], [7])},
    f"{VERL}.concat": {"batches": lambda: [padded(), padded()]},
    f"{VERL}.embeds_padding_2_no_padding": {"data": embeds},
    f"{VERL}.from_tensordict": {"data": lambda: {"responses": nested([5, 6], [7]), "uid": ["a", "b"]}},
    f"{VERL}.to_tensordict": {"rollouts": lambda: Rollouts.from_generator_output(generated())},
    f"{VERL}.left_right_2_no_padding": {"data": padded},
    f"{VERL}.no_padding_2_padding": {"tensor": lambda: tensor(np.arange(6.0).tolist()), "data": padded},
    f"{VERL}.response_from_nested": {
        "tensor": lambda: nested([1.0, 2.0, 3.0], [4.0, 5.0]),
        "response_mask": lambda: nested([1, 1], [1]),
    },
    f"{VERL}.response_to_nested": {
        "tensor": lambda: tensor([[1.0, 2.0], [3.0, 0.0]]),
        "response_mask": lambda: nested([1, 1], [1]),
    },
}
"""What each needs, by its name."""
