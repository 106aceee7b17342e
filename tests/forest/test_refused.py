"""Every public function that takes a layout or a batch, of trees: it is exact, or refuses in one line."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from tests.rollouts.test_batch_refused import SAID as NO_ROLLOUTS

import rollkit
from rollkit import Forest, Layout, pack
from rollkit.testing import tree_mask_reference

ROWS: dict[str, Any] = {
    "prompt_token_ids": [[1, 2], [1, 2], [3]],
    "response_ids": [[5, 6], [5, 7], [4]],
    "advantages": [1.0, -1.0, 0.5],
    "loss_weights": [[0.5, 0.25], [1.0, 0.5], [2.0]],
    "rollout_logprobs": [[-1.0, -2.0], [-1.0, -3.0], [-4.0]],
}
BATCH: Any = pack(ROWS, 8, share_prefixes=True)
TREES: Any = BATCH.layout
GIVEN = {"layout": TREES, "batch": BATCH}

TAKEN = {"batch", "batches", "given", "ids", "ids_q", "layout", "layouts", "rollouts"}
"""What the arguments are called that may be a layout or a batch."""

OTHER = {
    "rollkit.Batch", "rollkit.Ragged.laid", "rollkit.Layout.of", "rollkit.segments.Runs",
    "rollkit.segments.CPPadding", "rollkit.segments.CPShard", "rollkit.compat.flash_attn.pad_input",
    "rollkit.compat.transformers.AllowedSet.to_local", "rollkit.routing.NodeRoutes", "rollkit.StepPlan",
    "rollkit.forest.TokenTree.commit",
}  # fmt: skip
"""What has arguments of these names that are something else: numbers, or what the package hands on."""

MODULES = (
    "rollkit", "rollkit.segments", "rollkit.routing", "rollkit.forest", "rollkit.engines", "rollkit.datasets",
    "rollkit.compat.flash_attn", "rollkit.compat.skyrl", "rollkit.compat.transformer_engine",
    "rollkit.compat.transformers", "rollkit.compat.trl", "rollkit.compat.verifiers", "rollkit.compat.verl",
    "rollkit.jax", "rollkit.torch",
)  # fmt: skip


def public() -> Iterator[tuple[str, Any]]:
    """Public functions, classes and their class methods, by name."""
    for module in MODULES:
        try:
            found = importlib.import_module(module)
        except ImportError:
            continue
        names = getattr(found, "__all__", None) or [name for name in vars(found) if name[0] != "_"]
        for name in names:
            thing = getattr(found, name)
            if not callable(thing) or not str(getattr(thing, "__module__", "")).startswith("rollkit"):
                continue
            yield f"{module}.{name}", thing
            for method, value in vars(thing).items() if inspect.isclass(thing) else ():
                if method[0] != "_" and isinstance(value, classmethod | staticmethod):
                    yield f"{module}.{name}.{method}", getattr(thing, method)


def takes(thing: Any) -> set[str]:
    try:
        return TAKEN & set(inspect.signature(thing).parameters)
    except (TypeError, ValueError):
        return set()


SEGMENTS = (
    "{} is a TreeLayout, whose rows are no segments: they share tokens; use block_mask, magi_ranges, "
    "flashmask_indices, tree_varlen or dense_mask"
)
LINES = "batches[0] is a batch that shares prefixes: its lines are no rows, which batch.unpack(name) gives"
STATE = (
    "ids is of rows that share tokens, and a convolution or a state goes on from token to token in memory, "
    "where it cannot branch; pack without share_prefixes"
)
LABELS = (
    "a batch that shares prefixes has no labels: a token may have several after it; next_token_logprobs "
    "scores each at its own place, and layout.edges says what predicts it"
)


def options_of(name: str) -> dict[str, Any]:
    if name in ("seqlens", "offsets", "thd"):
        return {"max_segments": 3}
    if name == "cp_partition":
        return {"cp_size": 2, "rank": 0}
    return {"cp_size": 2} if name.startswith("cp_") else {}


OF_SEGMENTS = (
    "cp_pad", "cp_partition", "cp_restore", "cu_seqlens", "cu_seqlens_padded", "flash_attention_kwargs",
    "flash_attn_varlen", "grain_columns", "max_seqlen", "maxtext_columns", "offsets", "packed_seq_params",
    "positions", "run_length_fill", "runs", "seqlens", "splash_segment_ids", "te_ids_and_positions", "thd",
)  # fmt: skip

BY_RUNS = ("flash_attention_kwargs", "flash_attn_varlen", "packed_seq_params")
"""Those that call what they are given ids_q, and make runs of it first."""

OF_ROLLOUTS: dict[str, dict[str, Any]] = {
    "Bins": {"capacity": 8},
    "advantages": {},
    "mask_overlong": {},
    "mask_stale": {"current": 1, "most": 1},
    "mask_zero_variance": {},
    "merge_steps": {},
    "pack": {"capacity": 8},
    "pad": {},
    "rollout_metrics": {},
    "save": {"path": "no/such/folder.arrow"},
    "soft_overlong_penalty": {"max_length": 4, "cache": 2},
    "spread_rewards": {},
}


def message_of(call: Callable[[], Any]) -> str:
    """What a function says as it refuses."""
    with pytest.raises(TypeError) as caught:
        call()
    return str(caught.value)


@pytest.mark.parametrize("name", OF_SEGMENTS)
@pytest.mark.parametrize("kind", GIVEN)
def test_functions_of_segments_refuse_trees(name: str, kind: str) -> None:
    function: Any = getattr(rollkit.segments, name)
    called = "ids" if name in BY_RUNS else next(iter(inspect.signature(function).parameters))
    called = "ids_q" if name.endswith("_columns") else called
    wanted = SEGMENTS.format("batch.layout" if kind == "batch" else called)
    if name == "splash_segment_ids":
        pytest.importorskip("jax")
    assert message_of(lambda: function(GIVEN[kind], **options_of(name))) == wanted


@pytest.mark.parametrize("kind", GIVEN)
def test_so_they_do_on_the_side_of_the_keys(kind: str) -> None:
    segments: Any = rollkit.segments
    calls: tuple[Callable[[], Any], ...] = (
        lambda: segments.flash_attn_varlen([1, 1], GIVEN[kind]),
        lambda: segments.thd([1, 1], GIVEN[kind], max_segments=2),
        lambda: segments.dense_mask([1, 1], GIVEN[kind]),
        lambda: segments.te_ids_and_positions([1, 1], GIVEN[kind]),
    )
    for call in calls:
        assert "is a TreeLayout, whose rows are no segments" in message_of(call)


@pytest.mark.parametrize("name", OF_ROLLOUTS)
def test_a_batch_of_trees_is_no_rollouts(name: str) -> None:
    function: Callable[..., Any] = getattr(rollkit, name)
    assert message_of(lambda: function(BATCH, **OF_ROLLOUTS[name])) == NO_ROLLOUTS
    if name in ("pack", "pad"):
        assert message_of(lambda: function([BATCH], **OF_ROLLOUTS[name])) == NO_ROLLOUTS


def varlen(given: Any) -> Any:
    """The mask that one varlen call has, whose ends are aligned."""
    found = rollkit.segments.tree_varlen(given)
    seen = np.zeros((TREES.size, TREES.size), bool)
    q_ends, k_ends = found["cu_seqlens_q"].tolist(), found["cu_seqlens_k"].tolist()
    for node in range(len(q_ends) - 1):
        queries = found["q_index"][q_ends[node] : q_ends[node + 1]]
        keys = found["kv_index"][k_ends[node] : k_ends[node + 1]]
        for n, q in enumerate(queries):
            seen[q, keys[: len(keys) - len(queries) + n + 1]] = True
    return seen[None]


def magi(given: Any) -> Any:
    found = rollkit.segments.magi_ranges(given)
    seen = np.zeros((TREES.size, TREES.size), bool)
    for (a, b), (c, d), kind in zip(
        *(found[n] for n in ("q_ranges", "k_ranges", "attn_type_map")), strict=True
    ):
        seen[a:b, c:d] |= np.tri(b - a, d - c, dtype=bool) if kind else True
    return seen[None]


def flashmask(given: Any) -> Any:
    ends = rollkit.segments.flashmask_indices(given)[:, 0, :, 0]
    places = np.arange(TREES.width)
    return (places <= places[:, None]) & (places[:, None] < ends[:, None, :])


def flex(given: Any) -> Any:
    torch = pytest.importorskip("torch")
    mask = rollkit.segments.block_mask(given, block_size=8)
    q, kv = torch.arange(8)[:, None], torch.arange(8)
    return mask.mask_mod(0, 0, q, kv).numpy()[None]


@pytest.mark.parametrize("mask", [rollkit.segments.dense_mask, varlen, magi, flashmask, flex])
@pytest.mark.parametrize("kind", GIVEN)
def test_masks_are_exact(mask: Callable[[Any], Any], kind: str) -> None:
    np.testing.assert_array_equal(mask(GIVEN[kind]), tree_mask_reference(TREES)[None])


@pytest.mark.parametrize("name", ["dense_mask", "flashmask_indices", "magi_ranges", "tree_varlen"])
@pytest.mark.parametrize("framework", ["torch", "jax"])
def test_masks_of_a_batch_are_where_it_is(name: str, framework: str) -> None:
    pytest.importorskip(framework)
    batch = BATCH.to(framework)
    function: Any = getattr(rollkit.segments, name)
    found, wanted = function(batch), function(TREES)
    for got, array in zip(
        *(x.values() if isinstance(x, dict) else [x] for x in (found, wanted)), strict=True
    ):
        if isinstance(array, np.ndarray):
            assert type(got) is type(batch["input_ids"])
        np.testing.assert_array_equal(np.asarray(got), array)


def exact_place(given: Any) -> None:
    rows = BATCH.unpack("input_ids")
    np.testing.assert_array_equal(rollkit.place(rows, TREES), BATCH["input_ids"])


def exact_take(given: Any) -> None:
    whole = [p + r for p, r in zip(ROWS["prompt_token_ids"], ROWS["response_ids"], strict=True)]
    assert rollkit.take(BATCH["input_ids"], TREES).to_list() == whole


def exact_scores(given: Any) -> None:
    plain: Any = pack(ROWS, 8)
    scored = [
        batch.unpack(rollkit.next_token_logprobs(table[np.asarray(batch["input_ids"])], batch)).to_list()
        for table in [np.random.default_rng(0).normal(size=(8, 8)).astype(np.float32)]
        for batch in (BATCH, plain)
    ]
    for got, wanted in zip(*scored, strict=True):
        np.testing.assert_allclose(got, wanted, rtol=1e-6)


def exact_clip(given: Any) -> None:
    positive, negative, old = rollkit.clip_weights(BATCH)
    shared = BATCH["multiplicity"][0].tolist().index(2)
    assert (shared, positive.sum(), negative.sum(), old.sum()) == (0, 1.75, 1.5, -10.0)


def exact_columns(given: Any) -> None:
    pytest.importorskip("torch")
    found = importlib.import_module("rollkit.compat.trl").tree_columns(BATCH)
    assert found["attention_mask"].sum() == TREES.num_placed + 1, "a token more, for a fork"


def exact_on_device(given: Any) -> None:
    jax = pytest.importorskip("jax")
    sharding = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    door = importlib.import_module("rollkit.jax")
    for found in (door.device_batch(BATCH, sharding), *door.prefetch([BATCH], sharding)):
        for name, array in BATCH.items():
            np.testing.assert_array_equal(found[name], array)


EXACT: dict[str, Callable[[Any], None]] = {
    "rollkit.clip_weights": exact_clip,
    "rollkit.compat.trl.tree_columns": exact_columns,
    "rollkit.jax.device_batch": exact_on_device,
    "rollkit.jax.prefetch": exact_on_device,
    "rollkit.next_token_logprobs": exact_scores,
    "rollkit.place": exact_place,
    "rollkit.take": exact_take,
}


@pytest.mark.parametrize("name", EXACT)
def test_what_takes_trees_is_exact(name: str) -> None:
    EXACT[name](TREES)


def torch_door(name: str) -> Any:
    return getattr(importlib.import_module("rollkit.torch"), name)


def verl(name: str) -> Any:
    pytest.importorskip("torch")
    return getattr(importlib.import_module("rollkit.compat.verl"), name)


REFUSED: dict[str, tuple[Callable[[], Any], str]] = {
    "rollkit.Layout.stack": (
        lambda: Layout.stack([TREES]),
        "layouts must be Layouts; layouts[0] is TreeLayout",
    ),
    "rollkit.Layout.union": (
        lambda: Layout.union([TREES]),
        "layouts must be Layouts; layouts[0] is TreeLayout",
    ),
    "rollkit.Rollouts": (lambda: rollkit.Rollouts(BATCH), NO_ROLLOUTS),
    "rollkit.compat.verl.concat": (lambda: verl("concat")([BATCH]), LINES),
    "rollkit.compat.verl.to_tensordict": (lambda: verl("to_tensordict")(BATCH), NO_ROLLOUTS),
    "rollkit.Forest.build": (lambda: Forest.build(BATCH), NO_ROLLOUTS),
    "rollkit.labels": (lambda: rollkit.labels(BATCH), LABELS),
    "rollkit.routing.route_mask": (
        lambda: rollkit.routing.route_mask(TREES, [1, 1, 1]),
        "layout must be a Layout, got TreeLayout",
    ),
    "rollkit.segments.Runs.of": (lambda: rollkit.segments.Runs.of(BATCH), SEGMENTS.format("batch.layout")),
    "rollkit.segments.flash_linear_attention": (
        lambda: rollkit.segments.flash_linear_attention(TREES),
        STATE,
    ),
    "rollkit.segments.mamba": (lambda: rollkit.segments.mamba(BATCH), STATE),
    "rollkit.torch.PackedDataset": (lambda: torch_door("PackedDataset")(BATCH, 8), NO_ROLLOUTS),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_does_not_take_trees_says_so(name: str) -> None:
    call, message = REFUSED[name]
    if "torch" in name:
        pytest.importorskip("torch")
    assert message_of(call) == message


def test_several_layouts_are_of_segments() -> None:
    wanted = "layouts must be Layouts; layouts[0] is TreeLayout"
    assert message_of(lambda: rollkit.take([BATCH["input_ids"]], [TREES])) == wanted


@pytest.mark.parametrize("name", ["shard", "shifted", "spread", "row_sums", "cu_seqlens", "starts", "select"])
def test_what_a_layout_of_trees_lacks(name: str) -> None:
    with pytest.raises(AttributeError) as caught:
        getattr(TREES, name)
    assert str(caught.value) == (
        f"a TreeLayout has no {name}: its rows share tokens and are no segments; layout.nodes is the Layout "
        "of its nodes"
    )
    with pytest.raises(AttributeError, match=r"^a TreeLayout has no nothing$"):
        _ = TREES.nothing


def test_none_is_left_out() -> None:
    """A new function that takes a layout or a batch gets a line here: what it does of trees."""
    known = {*EXACT, *REFUSED, *OTHER, *(f"rollkit.{name}" for name in OF_ROLLOUTS)}
    known |= {f"rollkit.segments.{name}" for name in OF_SEGMENTS}
    masks = ("block_mask", "dense_mask", "flashmask_indices", "magi_ranges", "tree_varlen")
    known |= {f"rollkit.segments.{name}" for name in masks}
    assert [name for name, thing in public() if takes(thing) and name not in known] == []
