"""Advantages and returns from the ends of rows: Rust, torch and JAX against one token after the other."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.thorough import combinations, examples

import rollkit
from rollkit import Moments, Ragged, Rollouts, advantages, gae, pack, pad, returns, spread_rewards, whiten
from rollkit.testing import gae_reference, returns_reference

FLOATS = st.floats(-4, 4, width=32)
TOKENS = st.lists(st.lists(st.tuples(FLOATS, FLOATS, st.sampled_from([0, 1, 1, 1])), max_size=14), max_size=5)
SHARES = st.sampled_from([0.0, 0.5, 0.95, 1.0])


def columns(rows: list[Any]) -> list[list[list[Any]]]:
    return [[[token[i] for token in row] for row in rows] for i in range(3)]


def check(found: Any, wanted: list[list[float]], tol: float = 1e-4) -> None:
    flat = np.concatenate([np.asarray(row, np.float64) for row in found] or [np.zeros(0)])
    np.testing.assert_allclose(flat, [x for row in wanted for x in row], rtol=tol, atol=tol)


@settings(max_examples=examples(200))
@given(TOKENS, SHARES, SHARES)
def test_rows(rows: list[Any], gamma: float, lam: float) -> None:
    rewards, values, masks = columns(rows)
    wanted = gae_reference(rewards, values, masks, gamma=gamma, lam=lam)
    for dtype, tol in ((np.float32, 1e-5), (np.float64, 1e-12)):
        made = [Ragged.from_rows(column, dtype) for column in (rewards, values)]
        found = gae(made[0], made[1], masks, gamma=gamma, lam=lam)
        for got, want in zip(found, wanted, strict=True):
            check(got, want, tol)
            assert got.dtype == dtype
            assert got.lengths.tolist() == [len(row) for row in rows]
    check(returns(rewards, masks, gamma=gamma), returns_reference(rewards, masks, gamma=gamma), 1e-5)


def test_slices_of_rows() -> None:
    rewards = Ragged.from_rows([[9.0], [1.0, 2.0], [3.0], [9.0]])[1:3]
    assert returns(rewards, gamma=1.0).to_list() == [[3.0, 2.0], [3.0]]


def _torch(array: Any) -> Any:
    return pytest.importorskip("torch").as_tensor(array)


def _torch_grad(array: Any) -> Any:
    torch = pytest.importorskip("torch")
    found = torch.as_tensor(array)
    return found.requires_grad_() if found.is_floating_point() else found


def _jax(array: Any) -> Any:
    return pytest.importorskip("jax").numpy.asarray(array)


FRAMES: dict[str, Callable[[Any], Any]] = {
    "numpy": lambda array: array,
    "torch": _torch,
    "torch, with a gradient": _torch_grad,
    "jax": _jax,
}


def batches(seed: int = 0) -> tuple[list[Any], Any]:
    rng = np.random.default_rng(seed)
    rows = [
        [(rng.normal(), rng.normal(), int(rng.random() < 0.7)) for _ in range(n)] for n in (3, 0, 7, 1, 12, 5)
    ]
    rewards, values, masks = columns(rows)
    rollouts = {
        "prompt_token_ids": [[7] * n for n in (2, 1, 0, 3, 1, 0)],
        "response_ids": [[5] * len(row) for row in rows],
        "rewards": rewards,
        "values": values,
        "loss_masks": masks,
    }
    return rows, rollouts


@pytest.mark.parametrize(("frame", "packed"), combinations(FRAMES, [True, False]))
def test_batches(frame: str, packed: bool) -> None:
    rows, rollouts = batches()
    batch = pack(rollouts, capacity=20) if packed else pad(rollouts)
    made = FRAMES[frame]
    names = (
        ("rewards", "values", "loss_masks", "segment_ids") if packed else ("rewards", "values", "loss_masks")
    )
    given = [made(batch[name]) for name in names]
    ids = {"segment_ids": given[3]} if packed else {}
    found = gae(*given[:3], gamma=0.9, lam=0.8, **ids)
    wanted = gae_reference(*columns(rows), gamma=0.9, lam=0.8)
    masks = columns(rows)[2]
    for got, want in zip(found, wanted, strict=True):
        assert type(got) is type(given[0])
        host = got.detach().numpy() if "torch" in frame else np.asarray(got)
        assert (host.shape, host.dtype) == (batch["rewards"].shape, np.float32)
        check(
            [row[len(row) - len(mask) :] for row, mask in zip(batch.unpack(host), masks, strict=True)], want
        )
    if frame == "numpy":
        check(batch.unpack(returns(given[0], given[2], gamma=0.9, **ids)).to_list(), [
            [0.0] * len(prompt) + row
            for prompt, row in zip(
                rollouts["prompt_token_ids"],
                returns_reference(rollouts["rewards"], masks, gamma=0.9),
                strict=True,
            )
        ])  # fmt: skip


def test_where_no_gradient_is_asked_for_rust_scans(monkeypatch: pytest.MonkeyPatch) -> None:
    torch = pytest.importorskip("torch")
    values = torch.tensor([1.0, 2.0], requires_grad=True)
    assert gae(torch.zeros(2), values, gamma=1.0, lam=1.0)[0].requires_grad

    def refused(*_: Any) -> Any:
        raise AssertionError("torch scans")

    monkeypatch.setattr(rollkit._arrays.torch, "carry_back", refused)
    with torch.no_grad():
        assert gae(torch.zeros(2), values, gamma=1.0, lam=1.0)[0].tolist() == [-1, -2]


@pytest.mark.parametrize("masked", [True, False])
def test_jit_and_gradients_agree(masked: bool) -> None:
    jax, torch = pytest.importorskip("jax"), pytest.importorskip("torch")
    rng = np.random.default_rng(1)
    rewards, values = rng.normal(size=(2, 3, 17)).astype(np.float32)
    masks = (rng.random((3, 17)) < 0.7).astype(np.int32) if masked else None
    ids = np.sort(rng.integers(0, 4, (3, 17)))

    def loss(values: Any, rewards: Any, masks: Any, ids: Any) -> Any:
        found = gae(rewards, values, masks, gamma=0.9, lam=0.8, segment_ids=ids)
        return (found[0] ** 2).sum() + found[1].sum()

    wanted = loss(values, rewards, masks, ids)
    value, slope = jax.jit(jax.value_and_grad(loss))(values, rewards, masks, ids)
    tensor = torch.tensor(values, requires_grad=True)
    own = loss(tensor, rewards, masks, ids)  # NumPy's arrays beside torch's
    own.backward()
    np.testing.assert_allclose([value, own.item()], wanted, rtol=1e-5)
    np.testing.assert_allclose(slope, tensor.grad, rtol=1e-4, atol=1e-5)
    nudge = 1e-2 * rng.normal(size=values.shape).astype(np.float32)
    around = [loss(values + sign * nudge, rewards, masks, ids) for sign in (1, -1)]
    np.testing.assert_allclose((nudge * tensor.grad.numpy()).sum(), (around[0] - around[1]) / 2, rtol=1e-2)


def test_rows_of_tensors_with_a_gradient_stay_with_it() -> None:
    torch = pytest.importorskip("torch")
    tensor = torch.tensor([0.5, 9.0, 0.5], requires_grad=True)
    values = Ragged(tensor, np.array([0, 2, 3]))
    found = gae([[0.0, 1.0], [2.0]], values, [[1, 0], [1]], gamma=1.0, lam=1.0)[0]
    assert found.values.tolist() == [0.5, 0.0, 1.5]
    found.values.sum().backward()
    assert tensor.grad.tolist() == [-1, 0, -1]


@pytest.mark.parametrize("frame", FRAMES)
@pytest.mark.parametrize("odd", [np.nan, np.inf])
def test_what_is_not_finite_stays_in_its_row(frame: str, odd: float) -> None:
    made = FRAMES[frame]
    values = np.array([[0.0, odd, 0, 0, odd, 0, 0, odd, 0, 0]], np.float32)
    masks = np.array([[1, 1, 1, 1, 0, 1, 1, 1, 1, 1]])
    ids = np.array([[1, 1, 1, 2, 2, 2, 3, 3, 3, 3]])
    found = gae(*map(made, (np.ones_like(values), values, masks)), gamma=0.5, lam=0.5, segment_ids=made(ids))[
        0
    ]
    finite = np.isfinite(found.detach().numpy() if "torch" in frame else np.asarray(found))
    assert finite.tolist() == [[False, False, True, True, True, True, False, False, True, True]]


@pytest.mark.parametrize("frame", FRAMES)
def test_no_tokens(frame: str) -> None:
    for shape in ((0,), (0, 4), (3, 0)):
        found = gae(*[FRAMES[frame](np.zeros(shape, np.float32))] * 2, gamma=1.0, lam=1.0)
        assert [tuple(array.shape) for array in found] == [shape] * 2
    assert gae([], [], gamma=1.0, lam=1.0)[0].to_list() == []
    assert gae([[], []], [[], []], [[], []], gamma=1.0, lam=1.0)[0].to_list() == [[], []]


@pytest.mark.parametrize(
    ("rewards", "values", "wanted"),
    [
        ("f2", "f2", "f4"),
        ("i8", "f4", "f4"),
        ("?", "f4", "f4"),
        ("f4", "f8", "f8"),
        ("f8", "f4", "f8"),
        (">f4", "f4", "f4"),
    ],
)
def test_dtypes(rewards: str, values: str, wanted: str) -> None:
    given = np.array([0, 1], rewards), np.array([1, 2], values)
    for found in gae(*given, gamma=1.0, lam=1.0):
        assert found.dtype == np.dtype(wanted)
    assert found.tolist() == [1, 1]


def test_bfloat16() -> None:
    torch, jnp = pytest.importorskip("torch"), pytest.importorskip("jax").numpy
    for zeros in (torch.zeros(2, dtype=torch.bfloat16), jnp.zeros(2, jnp.bfloat16)):
        assert str(gae(zeros, zeros, gamma=1.0, lam=1.0)[0].dtype).endswith("float32")


def test_a_reward_per_row_is_on_its_last_token() -> None:
    masks = [[1, 1, 0], [], [1]]
    found = returns([2.0, 0.0, 3.0], masks, gamma=0.5)
    assert found.to_list() == [[1.0, 2.0, 0.0], [], [3.0]]


def test_one_long_row() -> None:
    rng = np.random.default_rng(2)
    rewards, values = rng.normal(size=(2, 5000))
    masks = np.ones(5000, np.uint8)
    masks[1000:2000] = masks[4990:] = 0
    found = gae([rewards], [values], [masks], gamma=0.99, lam=0.95)
    wanted = gae_reference([rewards], [values], [masks], gamma=0.99, lam=0.95)  # type: ignore[list-item]
    check(found[0], wanted[0], 1e-12)


STEPS: dict[str, Any] = {
    "response_ids": [[1, 2], [3], [4]],
    "rewards": [0.0, 1.0, -1.0],
    "values": [[0.5, 0.25], [0.75], [0.0]],
    "trajectory_ids": ["a", "a", "b"],
}


def test_a_trajectory_goes_on_in_its_next_row() -> None:
    found = advantages(STEPS, estimator="gae", gamma=1.0, lam=0.5)
    whole = gae([[0.0, 0.0, 1.0], [-1.0]], [[0.5, 0.25, 0.75], [0.0]], gamma=1.0, lam=0.5)[0]
    assert found.values.tolist() == whole.values.tolist()
    assert found.lengths.tolist() == [2, 1, 1]
    alone = {name: column for name, column in STEPS.items() if name != "trajectory_ids"}
    found = advantages(alone, estimator="gae", gamma=1.0, lam=0.5)
    rewards = spread_rewards(alone)["rewards"]
    assert found.equals(gae(rewards, alone["values"], gamma=1.0, lam=0.5)[0].astype(np.float32))


def test_reinforce_plus_plus_is_whitened_over_the_batch() -> None:
    rng = np.random.default_rng(3)
    masks = [(rng.random(n) < 0.8).astype(int).tolist() for n in (4, 9, 1, 6)]
    rows = Rollouts(
        {
            "response_ids": [[1] * len(mask) for mask in masks],
            "loss_masks": masks,
            "rewards": rng.normal(size=4) * np.array([bool(sum(mask)) for mask in masks]),
        }
    )
    whole = advantages(rows, estimator="reinforce_plus_plus", gamma=0.9)
    counted = whole.values[rows.ragged("loss_masks").values != 0]
    assert abs(counted.mean()) < 1e-6
    assert counted.std(ddof=1) == pytest.approx(1, abs=1e-4)
    parts = [rows[:1], rows[1:]]
    moments: Any = sum(
        Moments.of(
            returns(spread_rewards(part)["rewards"], part["loss_masks"], gamma=0.9), part["loss_masks"]
        )
        for part in parts
    )
    moments = Moments.from_array(moments.array())
    found = [
        advantages(part, estimator="reinforce_plus_plus", gamma=0.9, moments=moments).values for part in parts
    ]
    np.testing.assert_allclose(np.concatenate(found), whole.values, rtol=1e-5, atol=1e-6)


def test_equal_numbers_are_whitened_to_zero() -> None:
    assert whiten([[0.1] * 3, [0.1]], eps=0).to_list() == [[0.0] * 3, [0.0]]
    assert whiten([[0.1, 9.0]], [[0, 1]]).to_list() == [[0.0, 0.0]]
    assert whiten([]).to_list() == []
    assert Moments.of([]).std() == 0


@settings(max_examples=examples(100))
@given(st.lists(st.lists(st.floats(-100, 100), max_size=5), max_size=6), st.integers(0, 1))
def test_moments_are_numpys(rows: list[list[float]], ddof: int) -> None:
    flat = np.array([x for row in rows for x in row])
    found: Any = sum((Moments.of([row]) for row in rows), start=Moments.of([]))
    if len(flat) > 1:
        assert found.mean == pytest.approx(flat.mean(), abs=1e-9)
        assert found.std(ddof=ddof) == pytest.approx(flat.std(ddof=ddof), abs=1e-4)
