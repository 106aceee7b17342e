"""Adapters: the exact keywords, int32 tensors and Python ints, and no kernel fed with padding."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from rollkit import Layout, pack
from rollkit.segments import (
    flash_attention_kwargs,
    flash_attn_varlen,
    grain_columns,
    maxtext_columns,
    packed_seq_params,
    runs,
    splash_segment_ids,
    te_ids_and_positions,
    te_seqlens_and_offsets,
    thd,
)

IDS = np.array([[1, 1, 1, 0, 2, 2], [3, 0, 0, 0, 0, 0]])


def varlen_attention(
    q: Any, cu_seqlens_q: Any, cu_seqlens_k: Any, max_seqlen_q: int, max_seqlen_k: int
) -> Any:
    """What flash-attn does, with its argument names: each segment by itself, causal."""
    assert isinstance(max_seqlen_q, int)
    assert isinstance(max_seqlen_k, int)
    assert cu_seqlens_q.dtype == cu_seqlens_k.dtype == torch.int32
    out = []
    for a, b in pairwise(cu_seqlens_q.tolist()):
        part = q[None, None, a:b]
        out.append(torch.nn.functional.scaled_dot_product_attention(part, part, part, is_causal=True)[0, 0])
    return torch.cat(out)


def test_flash_attn_attends_within_segments() -> None:
    from rollkit.compat.flash_attn import pad_input, unpad_input
    from rollkit.segments import dense_mask

    ids = torch.from_numpy(IDS)
    hidden = torch.randn(2, 6, 8, dtype=torch.float64)
    stream, indices, _, _, _ = unpad_input(hidden, ids > 0)
    attended = varlen_attention(stream, **flash_attn_varlen(ids, padding="removed"))
    found = pad_input(attended, indices, 2, 6)
    wanted = torch.nn.functional.scaled_dot_product_attention(hidden, hidden, hidden, dense_mask(ids))
    torch.testing.assert_close(found, torch.where(ids[..., None] > 0, wanted, 0.0))


def test_a_tail_of_padding_is_a_segment_of_its_own() -> None:
    layout = Layout.concat([3, 2], multiple_of=8)
    hidden = torch.randn(8, 4)
    assert varlen_attention(hidden, **on_torch(flash_attn_varlen(layout))).shape == (5, 4)
    whole = varlen_attention(hidden, **on_torch(flash_attn_varlen(layout, tail="segment")))
    assert whole.shape == (8, 4)  # each token is in a segment, and so is written
    torch.testing.assert_close(whole[:5], varlen_attention(hidden, **on_torch(flash_attn_varlen(layout))))
    found = flash_attention_kwargs(layout, tail="segment", seq_idx=True)
    assert found["cu_seq_lens_q"].tolist() == [0, 3, 5, 8]
    assert found["max_length_k"] == 3
    assert found["seq_idx"].tolist() == [[0, 0, 0, 1, 1, 2, 2, 2]]
    for none in (Layout.concat([3, 2]), [[1, 1, 1], [1, 1, 1]]):
        assert same(flash_attn_varlen(none, tail="segment"), flash_attn_varlen(none))
    assert flash_attn_varlen([0, 0], tail="segment")["cu_seqlens_q"].tolist() == [0, 2]
    assert flash_attn_varlen([], tail="segment")["cu_seqlens_q"].tolist() == [0]
    assert flash_attn_varlen(layout, tail="segment", size=6)["cu_seqlens_q"].tolist() == [0, 3, 5, 8, 8, 8]
    # Kernels pair segments by order: of two sides, both have one, or none.
    pair = flash_attn_varlen([1, 1, 2, 0, 0], [1, 2], tail="segment")
    assert (pair["cu_seqlens_q"].tolist(), pair["cu_seqlens_k"].tolist()) == ([0, 2, 3, 5], [0, 1, 2, 2])
    assert (pair["max_seqlen_q"], pair["max_seqlen_k"]) == (2, 1)
    pair = flash_attn_varlen([1, 2], [1, 1, 2, 0, 0, 0], tail="segment")
    assert (pair["cu_seqlens_q"].tolist(), pair["cu_seqlens_k"].tolist()) == ([0, 1, 2, 2], [0, 2, 3, 6])
    rows = {"response_ids": [[1, 2, 3], [4, 5]]}
    batch = pack(rows, 8).to("torch")
    assert isinstance(flash_attn_varlen(batch, tail="segment")["cu_seqlens_q"], torch.Tensor)
    theirs, ours = batch.flash_kwargs(), flash_attention_kwargs(batch, tail="segment")
    assert same(theirs, ours)


def on_torch(found: dict[str, Any]) -> dict[str, Any]:
    return {k: v if isinstance(v, int) else torch.from_numpy(v) for k, v in found.items()}


def same(one: dict[str, Any], other: dict[str, Any]) -> bool:
    return {k: np.asarray(v).tolist() for k, v in one.items()} == {
        k: np.asarray(v).tolist() for k, v in other.items()
    }


def test_flash_attention_kwargs() -> None:
    ids = torch.tensor([[1, 1, 2, 2, 2, 0]])
    found = flash_attention_kwargs(ids, seq_idx=True)
    assert {k: v.tolist() if isinstance(v, torch.Tensor) else v for k, v in found.items()} == {
        "cu_seq_lens_q": [0, 2, 5],
        "cu_seq_lens_k": [0, 2, 5],
        "max_length_q": 3,
        "max_length_k": 3,
        "seq_idx": [[0, 0, 1, 1, 1, 2]],
    }
    assert found["seq_idx"].dtype == torch.int32
    removed = flash_attention_kwargs(IDS, padding="removed", seq_idx=True)
    assert removed["seq_idx"].tolist() == [[0, 0, 0, 1, 1, 2]]


@dataclass
class PackedSeqParams:
    """The fields that Megatron's has had from the first."""

    qkv_format: str = ""
    cu_seqlens_q: Any = None
    cu_seqlens_kv: Any = None
    cu_seqlens_q_padded: Any = None
    cu_seqlens_kv_padded: Any = None
    max_seqlen_q: int = field(default=0)
    max_seqlen_kv: int = field(default=0)


def test_packed_seq_params_keeps_valid_and_padded_apart() -> None:
    found = PackedSeqParams(**packed_seq_params(torch.from_numpy(IDS)))
    assert found.qkv_format == "thd"
    assert found.cu_seqlens_q.tolist() == [0, 3, 5, 6]
    assert found.cu_seqlens_q_padded.tolist() == [0, 4, 6, 12]
    assert found.cu_seqlens_kv_padded.dtype == torch.int32
    assert found.max_seqlen_q == 6
    fixed = packed_seq_params(IDS, size=6)
    assert fixed["cu_seqlens_q"].tolist() == [0, 3, 5, 6, 6, 6]
    assert fixed["cu_seqlens_q_padded"].tolist() == [0, 4, 6, 12, 12, 12]


def test_batches_layouts_and_runs_are_ids_too() -> None:
    rows = {"response_ids": [[1, 2, 3], [4, 5], [6]]}
    batch = pack(rows, 4)
    wanted = flash_attn_varlen(batch["segment_ids"], padding="removed")
    for given in (batch, batch.layout, runs(batch["segment_ids"])):
        found = flash_attn_varlen(given, padding="removed")
        assert found["cu_seqlens_q"].tolist() == wanted["cu_seqlens_q"].tolist() == [0, 3, 4, 6]
    assert flash_attn_varlen(Layout.concat([3, 0, 2]))["cu_seqlens_q"].tolist() == [0, 3, 5]
    on_torch = flash_attn_varlen(batch.to("torch"), padding="removed")
    assert isinstance(on_torch["cu_seqlens_q"], torch.Tensor)


def test_te_ids_and_positions() -> None:
    found = te_ids_and_positions(jnp.asarray(IDS))
    assert set(found) == {"segment_ids", "segment_pos"}
    assert all(isinstance(a, jax.Array) for pair in found.values() for a in pair)
    assert found["segment_pos"][0].tolist() == [[0, 1, 2, 0, 0, 1], [0] * 6]
    traced = jax.jit(lambda a, b: te_ids_and_positions(a, b, positions_q=a)["segment_pos"])
    q, kv = traced(jnp.asarray(IDS), jnp.asarray(IDS[:, ::-1]))
    assert q.tolist() == IDS.tolist()
    assert kv.tolist() == [[0, 1, 0, 0, 1, 2], [0] * 6]


def test_te_seqlens_and_offsets() -> None:
    for make in (np.asarray, torch.as_tensor, jnp.asarray):
        found = te_seqlens_and_offsets(thd(make(IDS), max_segments=3))
        q, kv = found["seqlens"]
        assert q.tolist() == kv.tolist() == [[3, 2, -1], [-1, -1, 1]]
        assert found["seq_offsets"][1].tolist() == [[0, 4, -1, -1], [0, -1, -1, -1]]
        assert "int32" in str(q.dtype)


def test_jax_adapters_take_batches_layouts_and_runs() -> None:
    batch = pack({"response_ids": [[1, 2, 3], [4, 5], [6]]}, 4)
    for given in (batch, batch.layout, runs(batch["segment_ids"])):
        found = te_ids_and_positions(given)
        for name, wanted in (("segment_ids", batch["segment_ids"]), ("segment_pos", batch["positions"])):
            for side in found[name]:
                np.testing.assert_array_equal(side, wanted)
                assert side.dtype == np.int32
        assert maxtext_columns(given)["inputs_position"].tolist() == batch["positions"].tolist()
        splash = splash_segment_ids(given)
        assert splash.kv.tolist() == batch["segment_ids"].tolist()


def test_jax_adapters_make_int32() -> None:
    for dtype in (np.int64, np.uint8, np.uint32):
        for make in (np.asarray, torch.from_numpy):
            found = te_ids_and_positions(make(IDS.astype(dtype)), positions_q=make(IDS.astype(dtype)))
            for side in (*found["segment_ids"], *found["segment_pos"]):
                assert "int32" in str(side.dtype)
                assert side.tolist() == IDS.tolist()
    with pytest.raises(OverflowError, match="ids_q has 4294967296, which is beyond int32"):
        grain_columns(np.array([[2**32]]))


def test_columns_of_jax_pipelines() -> None:
    found = maxtext_columns(IDS)
    assert set(found) == {f"{k}_{v}" for k in ("inputs", "targets") for v in ("segmentation", "position")}
    assert found["targets_segmentation"].tolist() == IDS.tolist()
    found = grain_columns(torch.from_numpy(IDS), features=("tokens",))
    assert set(found) == {"tokens_segment_ids", "tokens_positions"}
    assert found["tokens_positions"].tolist() == [[0, 1, 2, 0, 0, 1], [0] * 6]


def test_errors_say_what_to_do() -> None:
    with pytest.raises(ValueError, match=r'ids_q has padding before token 4.*padding="removed"'):
        flash_attn_varlen(IDS)
    with pytest.raises(ValueError, match=r"q has segments \[1, 2\], kv has \[1\]"):
        flash_attn_varlen([1, 2], [1, 1])
    for adapter in (flash_attn_varlen, flash_attention_kwargs, packed_seq_params):
        with pytest.raises(ValueError, match="segment 1 is in row 1 of ids_q and in row 0 of ids_kv"):
            adapter([[0, 0], [1, 0]], [[1, 0], [0, 0]])
        with pytest.raises(ValueError, match="ids_q has 2 rows, ids_kv has 1; they must have the same rows"):
            adapter([[1, 1], [1, 1]], [[1, 1]])
    with pytest.raises(TypeError, match="ids_q is of torch, ids_kv of numpy; convert one: ids_kv = torch"):
        flash_attn_varlen(torch.tensor([1]), np.array([1]))
    with pytest.raises(ValueError, match="positions_q has 2 tokens per row, ids_q has 3"):
        te_ids_and_positions([[1, 1, 0]], positions_q=[[0, 1]])
    with pytest.raises(ValueError, match="positions_kv has 2 tokens per row, ids_kv has 3"):
        te_ids_and_positions([[1, 1, 0]], positions_kv=[[0, 1]])
    with pytest.raises(
        TypeError, match=r"features must be a tuple of names, got 'inputs'; pass \('inputs',\)"
    ):
        maxtext_columns([[1]], features="inputs")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"found must be what rollkit.segments.thd returns, got tuple"):
        te_seqlens_and_offsets((1, 2))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="there are 2 segments, size=2 has room for 1"):
        flash_attn_varlen([1, 2], size=2)
    for adapter in (flash_attn_varlen, flash_attention_kwargs):
        with pytest.raises(ValueError, match="tail must be one of 'left_out', 'segment', got 'end'"):
            adapter([1, 0], tail="end")
        with pytest.raises(ValueError, match='padding="removed" leaves no tail to be a segment'):
            adapter([1, 0], padding="removed", tail="segment")
