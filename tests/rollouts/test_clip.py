"""`clip_weights`: PPO's clipped loss of rows, said with two sums of each token that they share."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from tests.rollouts.sharing import VOCABULARY, Attending, Columns, scores, shared_rollouts
from tests.thorough import examples

from rollkit import Batch, clip_weights, pack, take

LOW, HIGH = 0.8, 1.3


def trained(seed: int, rows: int = 16) -> Columns:
    """Rollouts whose old log-probability is a number of the token and what is before it."""
    rng = np.random.default_rng(seed)
    found = shared_rollouts(rng, rows, most=6)
    known: dict[tuple[int, ...], float] = {}
    columns: Columns = {name: found[name] for name in ("prompt_token_ids", "response_ids")}
    old, weights = [], []
    for prompt, response in zip(*columns.values(), strict=True):
        whole = (*prompt, *response)
        paths = [whole[: len(prompt) + n + 1] for n in range(len(response))]
        old.append([known.setdefault(path, float(rng.normal() * 0.4 - np.log(VOCABULARY))) for path in paths])
        weights.append((rng.random(len(response)) * (rng.random(len(response)) < 0.8)).tolist())
    rewards = rng.normal(size=rows)
    rewards[::5] = 0
    return columns | {"rollout_logprobs": old, "loss_weights": weights, "advantages": rewards}


def packed(columns: Columns, shared: bool) -> Batch:
    dtypes = dict.fromkeys(("rollout_logprobs", "loss_weights"), np.float64)
    return pack(columns, 64, share_prefixes=shared, dtypes=dtypes)


def of_rows(torch: Any, scored: Any, batch: Batch) -> Any:
    """The loss, a row at a time."""
    rows = batch.unpack(scored)
    columns = [batch.unpack(name).to_list() for name in ("rollout_logprobs", "loss_weights")]
    total = scored.sum() * 0
    for row, (begin, end) in enumerate(itertools.pairwise(rows.offsets.tolist())):
        old, w = (torch.as_tensor(np.asarray(column[row], np.float64)) for column in columns)
        w[:1] = 0  # nothing predicts a row's first token
        gain = float(batch.rows["advantages"][row])
        ratio = (rows.flat[begin:end] - old).exp()
        total = total + (w * torch.maximum(-gain * ratio, -gain * ratio.clamp(LOW, HIGH))).sum()
    return total


def of_sums(torch: Any, scored: Any, batch: Batch) -> Any:
    positive, negative, old = map(torch.as_tensor, clip_weights(batch))
    ratio = (scored - old).exp()
    clipped = ratio.clamp(LOW, HIGH)
    return (negative * torch.maximum(ratio, clipped) - positive * torch.minimum(ratio, clipped)).sum()


def apart(found: Any, wanted: Any) -> float:
    return float((found - wanted).norm() / max(float(wanted.norm()), 1e-3))


@pytest.mark.parametrize("seed", range(examples(32)))
@pytest.mark.parametrize("shared", [True, False])
def test_value_and_gradient_are_those_of_rows(seed: int, shared: bool) -> None:
    torch = pytest.importorskip("torch")
    columns = trained(seed)
    model = Attending(torch, torch.float64, seed)

    def both(batch: Batch, loss: Any) -> tuple[Any, Any]:
        value = loss(torch, scores(torch, model, batch), batch)
        return value.detach(), model.gradients(value)

    value, wanted = both(packed(columns, False), of_rows)
    if not seed:  # in a few all is clipped, and nothing trained
        assert float(wanted.norm()) > 1e-3, "a case that shows something"
    for batch in (packed(columns, shared), packed(columns, shared).to("torch")):
        got, found = both(batch, of_sums)
        assert abs(float(got - value)) <= 1e-12 * max(1.0, abs(float(value)))
        assert apart(found, wanted) <= 1e-12


def test_one_sum_is_another_loss() -> None:
    """What two rows want of a shared token does not cancel where one of them is clipped."""
    torch = pytest.importorskip("torch")
    rows = ROWS | {"rollout_logprobs": [[-3.0, -1.0], [-3.0, -2.0], [-2.0]]}
    batch = packed(rows, True)
    model = Attending(torch, torch.float64, 0)
    wanted = model.gradients(of_rows(torch, scores(torch, model, batch), batch))
    assert apart(model.gradients(of_sums(torch, scores(torch, model, batch), batch)), wanted) <= 1e-12
    positive, negative, old = map(torch.as_tensor, clip_weights(batch))
    gain = positive - negative
    ratio = (scores(torch, model, batch) - old).exp()
    one = torch.maximum(-gain * ratio, -gain * ratio.clamp(LOW, HIGH)).sum()
    assert apart(model.gradients(one), wanted) > 0.05


ROWS: Columns = {
    "prompt_token_ids": [[1], [1], [1, 3]],
    "response_ids": [[3, 4], [3, 2], [2]],
    "rollout_logprobs": [[-0.5, -1.0], [-0.5, -2.0], [-2.0]],
    "advantages": [1.0, -1.0, 2.0],
    "loss_weights": [[0.25, 0.25], [0.5, 0.5], [1.0]],
}


@pytest.mark.parametrize("framework", ["numpy", "torch", "jax"])
def test_of_every_framework(framework: str) -> None:
    pytest.importorskip(framework)
    batch = pack(ROWS, 6, share_prefixes=True).to(framework)
    found = clip_weights(batch)
    wanted = [0, 0.25, 0.25, 2.0, 0, 0], [0, 0.5, 0, 0.5, 0, 0], [0, -0.5, -1, -2, 0, 0]
    for array, values in zip(found, wanted, strict=True):
        assert type(array) is type(batch["input_ids"])
        assert array.shape == (1, 6)
        assert str(array.dtype).endswith("float32")
        np.testing.assert_array_equal(np.asarray(array)[0], values)


def test_what_has_no_loss_may_differ() -> None:
    """The prompt of one row is the response of another; and a row without an advantage."""
    for name, value in (("loss_weights", [[0.25, 0.25], [0.0, 0.5], [1.0]]), ("advantages", [1.0, 0.0, 2.0])):
        rows = ROWS | {"rollout_logprobs": [[-0.5, -1.0], [-9.0, -2.0], [-2.0]], name: value}
        _, _, old = clip_weights(pack(rows, 6, share_prefixes=True))
        assert old[0].tolist() == [0, -0.5, -1, -2, 0, 0]


def test_masks_are_weights_too_and_advantages_may_be_per_token() -> None:
    rows = {name: ROWS[name] for name in ROWS if name != "loss_weights"}
    for advantages in (ROWS["advantages"], [[1.0, 1.0], [-1.0, -1.0], [2.0]]):
        batch = pack(rows | {"advantages": advantages}, 6, share_prefixes=True)
        positive, negative, _ = clip_weights(batch, weights="loss_masks")
        assert positive.dtype == np.float32
        assert positive[0].tolist() == [0, 1, 1, 2, 0, 0]
        assert negative[0].tolist() == [0, 1, 0, 1, 0, 0]


def test_old_log_probabilities_of_the_batch() -> None:
    batch = pack(ROWS, 6, share_prefixes=True)
    old = np.arange(6.0)[None]
    found = clip_weights(batch | {"old": old}, old_logprobs="old")[2]
    assert found[0].tolist() == [0, 1, 2, 3, 0, 0]


def test_some_bins_and_rows_in_pieces() -> None:
    batch = pack(ROWS, 3, share_prefixes=True)
    for line in range(batch.layout.shape[0]):
        for part, whole in zip(clip_weights(batch[line : line + 1]), clip_weights(batch), strict=True):
            np.testing.assert_array_equal(part[0], whole[line])
    pieces = pack(ROWS | {"advantages": [[1.0, 1.0], [-1.0, -1.0], [2.0]]}, 2, oversize="split")
    positive, negative, old = clip_weights(pieces)
    for name, found in (("rollout_logprobs", old), ("loss_weights", positive + negative)):
        rows = take(found, pieces.layout).to_list()
        factor = [1, 1, 2] if name == "loss_weights" else [1, 1, 1]
        wanted = [[factor[i] * x for x in row] for i, row in enumerate(pieces.unpack(name).to_list())]
        assert [list(row) for row in rows] == wanted


def test_under_jit_it_says_where_to_go() -> None:
    jax = pytest.importorskip("jax")
    batch = pack(ROWS, 6, share_prefixes=True).to("jax")
    with pytest.raises(TypeError, match="is traced; call clip_weights outside of jit"):
        jax.jit(lambda batch: clip_weights(batch)[0])(batch)


@pytest.mark.parametrize("framework", ["numpy", "torch", "jax"])
def test_where_old_log_probabilities_differ(framework: str) -> None:
    pytest.importorskip(framework)
    rows = ROWS | {"rollout_logprobs": [[-0.5, -1.0], [-0.5, -2.0], [-2.5]]}
    with pytest.raises(ValueError, match="row 2, position 2 differs from what another row") as caught:
        clip_weights(pack(rows, 6, share_prefixes=True).to(framework))
    error: Any = caught.value
    assert (error.column, error.row, error.position) == ("rollout_logprobs", 2, 2)


@pytest.mark.parametrize("framework", ["numpy", "torch", "jax"])
def test_a_nan_is_not_lost(framework: str) -> None:
    pytest.importorskip(framework)
    rows = ROWS | {"advantages": [float("nan"), 1.0, -1.0]}
    batch = pack(rows, 6, share_prefixes=True).to(framework)
    positive, negative, _ = (np.asarray(part)[0] for part in clip_weights(batch))
    of_row = np.zeros(6, bool)
    weights = batch.rows["loss_weights"].to_list()[0]
    of_row[[i for i, w in zip(batch.layout.gather_indices(), weights, strict=False) if w]] = True
    assert of_row.any()
    np.testing.assert_array_equal(np.isnan(positive), of_row)
    np.testing.assert_array_equal(np.isnan(negative), of_row)
    none = batch["visible_until"] * 0  # a row without weight may have no advantage
    assert not any(np.asarray(part).any() for part in clip_weights(batch | {"none": none}, weights="none"))
