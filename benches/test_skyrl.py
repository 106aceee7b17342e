"""The generator-output path: ours against the same work said in plain Python and NumPy."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from rollkit import Ragged, Rollouts, concat, rollout_metrics, turn_lengths
from rollkit.compat import skyrl

OUTPUTS, TRAJECTORIES, TOKENS = 640, 8, 800


@pytest.fixture(scope="module")
def outputs() -> list[dict[str, Any]]:
    return generator_outputs()


def generator_outputs() -> list[dict[str, Any]]:
    """640 outputs of 8 trajectories with three turns of 800 tokens on average, as lists."""
    rng = np.random.default_rng(0)

    def one() -> dict[str, Any]:
        prompts = rng.integers(100, 300, TRAJECTORIES)
        responses = rng.integers(TOKENS // 2, TOKENS * 3 // 2, TRAJECTORIES)
        return {
            "prompt_token_ids": [rng.integers(0, 150_000, n).tolist() for n in prompts],
            "response_ids": [rng.integers(0, 150_000, n).tolist() for n in responses],
            "rewards": rng.random(TRAJECTORIES).tolist(),
            "loss_masks": [
                np.repeat([1, 0, 1, 0, 1], rng.multinomial(n, [0.3, 0.1, 0.3, 0.1, 0.2])).tolist()
                for n in responses
            ],
            "stop_reasons": ["stop"] * TRAJECTORIES,
            "rollout_logprobs": [(-rng.random(n)).tolist() for n in responses],
        }

    return [one() for _ in range(OUTPUTS)]


@pytest.fixture(scope="module")
def columns(outputs: list[dict[str, Any]]) -> list[Rollouts]:
    return [Rollouts.from_generator_output(output) for output in outputs]


@pytest.mark.benchmark(group="concat, validate and metrics, 640 × 8 × 800 tokens")
class TestConcatenate:
    def test_three_passes_over_the_masks_alone(self, benchmark: Any, outputs: list[dict[str, Any]]) -> None:
        masks = [mask for output in outputs for mask in output["loss_masks"]]

        def passes() -> Any:
            sums = [sum(mask) for mask in masks]
            arrays = [np.asarray(mask) for mask in masks]
            return sums, arrays, np.concatenate(masks)

        benchmark(passes)

    def test_lists(self, benchmark: Any, outputs: list[dict[str, Any]]) -> None:
        benchmark(skyrl.concatenate_generator_outputs, outputs)

    def test_rows_of_numpy(self, benchmark: Any, columns: list[Rollouts]) -> None:
        benchmark(skyrl.concatenate_generator_outputs, [part.to_generator_output() for part in columns])

    def test_columns(self, benchmark: Any, columns: list[Rollouts]) -> None:
        def run() -> Any:
            joined = concat(columns)
            joined.validate()
            return joined, rollout_metrics(joined)

        benchmark(run)

    def test_columns_without_the_copy(self, benchmark: Any, columns: list[Rollouts]) -> None:
        joined = concat(columns)

        def run() -> Any:
            joined.validate()
            return rollout_metrics(joined)

        benchmark(run)


@pytest.mark.benchmark(group="turn_lengths, 5 000 × 800 uint8")
class TestTurns:
    @pytest.fixture
    def masks(self) -> Ragged:
        runs = np.random.default_rng(0).geometric(1 / 200, 41_000)
        values = np.repeat(np.arange(len(runs)) % 2, runs)[:4_000_000].astype(np.uint8)
        return Ragged(values, np.arange(5001) * 800)

    def test_read_once_max(self, benchmark: Any, masks: Ragged) -> None:
        benchmark(masks.values.max)

    def test_read_once_sum(self, benchmark: Any, masks: Ragged) -> None:
        benchmark(masks.values.sum)

    def test_turn_lengths(self, benchmark: Any, masks: Ragged) -> None:
        benchmark(turn_lengths, masks)

    def test_turn_lengths_of_one_turn_each(self, benchmark: Any, masks: Ragged) -> None:
        benchmark(turn_lengths, Ragged(np.ones_like(masks.values), masks.offsets))


Batch = tuple[list[Any], ...]


def slice_assign(prompts: Any, responses: Any, rewards: Any, masks: Any, logprobs: Any) -> list[torch.Tensor]:
    begins = np.array([len(row) for row in prompts])
    tails = np.array([len(row) for row in responses])
    totals = begins + tails
    rows, width, tail = len(totals), totals.max(), tails.max()
    sequences = np.full((rows, width), 0, np.int64)
    for i in range(rows):
        middle = width - tails[i]
        sequences[i, middle - begins[i] : middle] = prompts[i]
        sequences[i, middle:] = responses[i]
    arrays = [
        sequences,
        (np.arange(width) >= (width - totals)[:, None]).astype(np.int64),
        (np.arange(tail) >= (tail - tails)[:, None]).astype(np.int64),
    ]
    for column in (rewards, masks, logprobs):
        padded = np.zeros((rows, tail), np.float32)
        for i, row in enumerate(column):
            padded[i, tail - len(row) :] = row
        arrays.append(padded)
    return [torch.from_numpy(array) for array in arrays]


def log_normal(rows: int) -> Batch:
    """256 rows, of which one has 32 Ki tokens: a rectangle of which 12 % are tokens."""
    rng = np.random.default_rng(0)
    responses = (rng.lognormal(np.log(3800) - 0.405, 0.9, rows).astype(int) + 1).clip(1, 32768)
    responses[0] = 32768
    prompts = rng.normal(512, 128, rows).astype(int).clip(16)
    return ids(rng, prompts), ids(rng, responses), *floats(rng, responses)


def dense(rows: int) -> Batch:
    rng = np.random.default_rng(0)
    responses = rng.integers(1500, 2500, 2 * rows)
    return ids(rng, rng.integers(400, 600, 2 * rows)), ids(rng, responses), *floats(rng, responses)


def ids(rng: np.random.Generator, lengths: NDArray[Any]) -> list[Any]:
    return [rng.integers(0, 150_000, n, dtype=np.int32) for n in lengths]


def floats(rng: np.random.Generator, lengths: NDArray[Any]) -> Batch:
    return (
        [np.zeros(n, np.float32) for n in lengths],
        [(rng.random(n) < 0.8).astype(np.uint8) for n in lengths],
        [-rng.random(n, dtype=np.float32) for n in lengths],
    )


@pytest.mark.parametrize("shape", [log_normal, dense])
class TestCollate:
    @pytest.mark.parametrize("form", ["lists", "arrays"])
    @pytest.mark.parametrize("ours", [False, True], ids=["slice_assign", "rollkit"])
    def test_to_tensors(self, benchmark: Any, shape: Any, form: str, ours: bool) -> None:
        benchmark.group = f"collate {shape.__name__} {form}"
        batch = shape(256)
        if form == "lists":
            batch = tuple([row.tolist() for row in column] for column in batch)

        def convert(*columns: Any) -> Any:
            return skyrl.convert_prompts_responses_to_batch_tensors(0, *columns)

        found = benchmark(convert if ours else slice_assign, *batch)
        for got, wanted in zip(found, slice_assign(*batch), strict=False):
            assert got.dtype == wanted.dtype
            assert torch.equal(got, wanted)

    def test_writing_the_output_bytes(self, benchmark: Any, shape: Any) -> None:
        benchmark.group = f"collate {shape.__name__} arrays"
        tensors = slice_assign(*shape(256))

        def write() -> Any:
            return [np.full(tensor.shape, 1, tensor.numpy().dtype) for tensor in tensors]

        benchmark(write)
