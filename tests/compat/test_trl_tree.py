"""`tree_columns` against TRL's own collator, of `TreeRow`s that hold the rows of each bin."""

from __future__ import annotations

import functools
import warnings
from collections import defaultdict
from typing import Any

import numpy as np
import pytest
from tests.thorough import by_level

import rollkit
from rollkit import Batch, Ragged, pack

torch = pytest.importorskip("torch")

from rollkit.compat.trl import tree_columns  # noqa: E402


@functools.cache
def trainer() -> Any:
    """TRL's module, which says of itself that it is experimental."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pytest.importorskip("trl.experimental.async_grpo.async_grpo_trainer")


def made(rng: np.random.Generator, rows: int, values: int = 2) -> dict[str, Any]:
    """Rollouts that share much: of few tokens, some of them twice, some the beginnings of others."""
    prompts = [rng.integers(1, 1 + values, rng.integers(1, 5)).tolist() for _ in range(rows)]
    responses = [rng.integers(1, 1 + values, rng.integers(0, 6)).tolist() for _ in range(rows)]
    for row in range(1, rows):
        if rng.random() < 0.2:
            prompts[row], responses[row] = prompts[row - 1], responses[row - 1]
    return {
        "prompt_token_ids": prompts,
        "response_ids": responses,
        "loss_masks": [rng.integers(0, 2, len(row)).tolist() for row in responses],
        "rollout_logprobs": [(-rng.random(len(row))).astype(np.float32).tolist() for row in responses],
        "advantages": rng.normal(size=rows).astype(np.float32),
    }


def wanted(batch: Batch, pad_id: int = 0) -> dict[str, Any]:
    """What TRL makes of the rows of each bin."""
    ids, masks, old = (
        batch.unpack(name).to_list() for name in ("input_ids", "loss_masks", "rollout_logprobs")
    )
    layout: Any = batch.layout
    lines = [trainer().TreeRow() for _ in range(layout.shape[0])]
    for row, line in enumerate(layout.row_bins.tolist()):
        if line < 0:
            continue
        lines[line].add(
            {
                "input_ids": torch.tensor(ids[row]),
                "completion_mask": torch.tensor(masks[row]),
                "old_log_probs": torch.tensor(old[row], dtype=torch.float32),
                "advantage": float(batch.rows["advantages"][row]),
                "group_id": 0,
                "reward": 0.0,
                "rewards": {},
                "metrics": {},
            }
        )
    collator = trainer().DataCollatorForRollout(pad_id, len(lines), metrics=defaultdict(list))
    collator._log_metrics = lambda **_: None
    found: dict[str, Any] = collator.torch_call([lines])
    return found


def check(batch: Batch, pad_id: int = 0) -> None:
    found, theirs = tree_columns(batch, pad_id=pad_id), wanted(batch, pad_id)
    assert set(found) == set(theirs)
    for name, array in theirs.items():
        assert found[name].dtype == array.dtype, name
        assert found[name].tolist() == array.tolist(), name


@pytest.mark.parametrize("seed", range(by_level(30, 300)))
def test_it_is_what_trl_makes(seed: int) -> None:
    rng = np.random.default_rng(seed)
    rows = made(rng, int(rng.integers(1, 12)), int(rng.integers(1, 4)))
    check(pack(rows, int(rng.integers(10, 40)), share_prefixes=True), pad_id=int(rng.integers(0, 9)))


def test_rows_that_are_cut_or_dropped() -> None:
    rows = made(np.random.default_rng(1), 12)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        check(pack(rows, 6, share_prefixes=True, oversize="truncate"))
    check(pack(rows, 6, share_prefixes=True, oversize="drop"))


def test_of_frameworks_and_of_some_bins() -> None:
    batch = pack(made(np.random.default_rng(2), 20, 3), 16, share_prefixes=True)
    expected = tree_columns(batch)
    for other in (batch.to("torch"), batch.to("jax") if pytest.importorskip("jax") else batch):
        for name, found in tree_columns(other).items():
            assert torch.equal(found, expected[name]), name
    check(batch[1:3])


def test_advantages_per_token() -> None:
    rows = {
        "prompt_token_ids": [[1], [1]],
        "response_ids": [[2, 3], [2, 4]],
        "rollout_logprobs": [[-1.0, -2.0], [-3.0, -4.0]],
        "advantages": [[0.5, 0.25], [1.0, 2.0]],
    }
    found = tree_columns(pack(rows, 8, share_prefixes=True))
    assert found["advantages"].tolist() == [[0.5, 0.25, 1.0, 2.0]]
    assert found["old_log_probs"].tolist() == [[-1.0, -2.0, -3.0, -4.0]]


def test_what_a_batch_keeps_apart_stays_apart() -> None:
    rows = made(np.random.default_rng(3), 8, 1)
    apart = tree_columns(pack(rows, 80, share_prefixes=True, groups=list(range(8))))
    assert apart["attention_mask"].sum() == sum(
        len(p) + len(r) for p, r in zip(rows["prompt_token_ids"], rows["response_ids"], strict=True)
    )
    together = tree_columns(pack(rows, 80, share_prefixes=True))
    assert together["attention_mask"].sum() < apart["attention_mask"].sum()


def test_the_attention_is_that_of_rows() -> None:
    """Keys gathered along paths, ends aligned: each node's tokens see what their rows have before them."""
    batch = pack(made(np.random.default_rng(4), 9), 60, share_prefixes=True)
    found = tree_columns(batch)
    ids, positions = found["input_ids"][0], found["position_ids"][0]
    keys, cu_q, cu_k = (
        found["tree_" + name][0].tolist() for name in ("kv_index", "cu_seqlens_q", "cu_seqlens_k")
    )
    seen = {}
    for node in range(len(cu_q) - 1):
        path = keys[cu_k[node] : cu_k[node + 1]]
        for at in range(cu_q[node], cu_q[node + 1]):
            seen[at] = path[: len(path) - (cu_q[node + 1] - at) + 1]
    texts = {tuple(row[: n + 1]) for row in batch.unpack("input_ids").to_list() for n in range(len(row))}
    for at, path in seen.items():
        assert path[-1] == at
        assert positions[path].tolist() == list(range(len(path)))
        assert tuple(ids[path].tolist()) in texts


ROWS: dict[str, Any] = {
    "prompt_token_ids": [[1], [1]],
    "response_ids": [[2], [3]],
    "rollout_logprobs": [[-1.0], [-2.0]],
    "advantages": [1.0, 2.0],
}


def test_refused() -> None:
    def of(rows: Any = ROWS, **options: Any) -> Batch:
        return pack(rows, 4, share_prefixes=True, **options)

    def refuse(kind: type[Exception], text: str, batch: Any, **options: Any) -> None:
        with pytest.raises(kind) as caught:
            tree_columns(batch, **options)
        assert str(caught.value) == text

    refuse(TypeError, "batch must be a Batch, got dict", ROWS)
    refuse(
        TypeError,
        "batch must be one that shares prefixes: pack(..., share_prefixes=True) makes it",
        pack(ROWS, 4),
    )
    refuse(
        ValueError, "bin 1 has no row, and a rank that has nothing to compute holds up the others", of(bins=2)
    )
    empty = {name: [*rows, 0.0 if name == "advantages" else []] for name, rows in ROWS.items()}
    refuse(ValueError, "row 2 is empty, which TRL has no place for", of(empty))
    refuse(
        ValueError,
        "column 'soft': row 1, position 1 is 0.5; a mask of TRL is 0 or 1",
        of(ROWS | {"soft": [[1.0], [0.5]]}, levels={"soft": "response"}),
        loss_masks="soft",
    )
    lacking = {name: rows for name, rows in ROWS.items() if name != "advantages"}
    text = (
        "advantages is 'advantages', which the batch does not have; there are 'input_ids', 'positions', "
        "'segment_ids', 'visible_until', 'multiplicity', 'predecessors', 'rollout_logprobs', 'loss_masks'"
    )
    refuse(ValueError, text, of(lacking))
    refuse(
        TypeError,
        "old_logprobs is 'advantages', which has no number for each token",
        of(),
        old_logprobs="advantages",
    )
    refuse(TypeError, "advantages is the name of a column, got int", of(), advantages=5)
    refuse(TypeError, "pad_id must be an int, got str", of(), pad_id="0")


def test_two_rows_that_fork_late_have_a_token_more() -> None:
    batch = pack(ROWS, 4, share_prefixes=True)
    assert rollkit.Forest.build(Ragged.from_rows([[1, 2], [1, 3]])).unique == 3
    assert tree_columns(batch)["input_ids"].tolist() == [[1, 2, 1, 3]]
