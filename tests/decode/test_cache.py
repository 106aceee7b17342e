"""Rows of caches: hole-filling equals selecting, in every layer of every kind of cache."""

from __future__ import annotations

from collections import OrderedDict, UserDict, defaultdict
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import transformers
from tests.decode import decoding

from rollkit.decode.active import ActiveBatch, Plan
from rollkit.decode.cache import compact, crop_padding, select

ENDED = {"front": [0], "middle": [2, 3], "end": [5], "mixed": [0, 2, 5], "all": list(range(6)), "none": []}
LAYOUTS: dict[str, dict[str, Any]] = {
    "plain": {},
    "ordered": {"ordered": True},
    "cfg": {"cfg": True},
    "mirrored": {"cfg": True, "mirrored": True},
    "buckets": {"buckets": True},
}


def plan_of(ended: str, layout: str) -> Plan:
    return ActiveBatch(6, **LAYOUTS[layout]).finish(np.isin(np.arange(6), ENDED[ended]))


def numbers(rows: int, *inner: int) -> Any:
    return np.random.default_rng(0).normal(size=(rows, *inner)).astype(np.float32)


class State(NamedTuple):
    keys: Any
    layers: list[Any]


@pytest.mark.parametrize("in_place", [True, False])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("ended", ENDED)
@pytest.mark.parametrize("make", [np.array, torch.tensor, jnp.array], ids=["numpy", "torch", "jax"])
def test_trees_of_arrays(make: Any, ended: str, layout: str, in_place: bool) -> None:
    plan = plan_of(ended, layout)
    full = numbers(plan.before, 3)
    cache = {"a": State(make(full), [make(full + 1), (make(full + 2), None)])}
    found = compact(cache, plan, in_place=in_place)["a"]
    for k, array in enumerate([found.keys, found.layers[0], found.layers[1][0]]):
        np.testing.assert_array_equal(np.asarray(array), full[plan.keep] + k)
    assert found.layers[1][1] is None


def test_in_place_is_a_view() -> None:
    for array in (numbers(6, 2), torch.tensor(numbers(6, 2))):
        assert np.shares_memory(np.asarray(compact(array, plan_of("front", "plain"))), np.asarray(array))


def test_rows_on_another_axis() -> None:
    plan = plan_of("mixed", "mirrored")
    full = numbers(plan.before, 4)
    for make in (np.array, torch.tensor, jnp.array):
        found = compact(make(full.T), plan, axis=1)
        np.testing.assert_array_equal(np.asarray(found), full[plan.keep].T)


class Frozen(Mapping[str, Any]):
    """As flax has them: made of a dict, and never changed."""

    def __init__(self, parts: dict[str, Any]) -> None:
        self.parts = dict(parts)

    def __getitem__(self, name: str) -> Any:
        return self.parts[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.parts)

    def __len__(self) -> int:
        return len(self.parts)


def test_mappings_keep_their_type() -> None:
    plan = ActiveBatch(3).finish([False, True, False])
    inner = OrderedDict(b=np.arange(3), a=np.arange(3))
    made: list[Any] = [
        inner,
        UserDict(inner),
        defaultdict(list, inner),
        Frozen({"b": inner, "a": np.arange(3)}),
        MappingProxyType(inner),
    ]
    for cache in made:
        for found in (compact(cache, plan, in_place=False), select(cache, [0, 2])):
            assert type(found) is type(cache)
            assert list(found) == ["b", "a"]
            assert found["a"].tolist() == [0, 2]
        assert cache["a"].tolist() == [0, 1, 2], "the old one is as it was"
    assert type(compact(made[3], plan)["b"]) is OrderedDict
    assert compact(made[2], plan)["new"] == []


def test_registered_jax_trees() -> None:
    @jax.tree_util.register_pytree_node_class
    class Box:
        def __init__(self, value: Any) -> None:
            self.value = value

        def tree_flatten(self) -> tuple[Any, None]:
            return (self.value,), None

        @classmethod
        def tree_unflatten(cls, _: None, values: Any) -> Box:
            return cls(*values)

    plan = plan_of("mixed", "plain")
    found = compact(Box(jnp.arange(6)), plan)
    assert isinstance(found, Box)
    assert found.value.tolist() == plan.keep.tolist()


def filled(kind: str, rows: int) -> Any:
    config = decoding.config()
    cache = (
        transformers.DynamicCache(config=config)
        if kind == "dynamic"
        else transformers.StaticCache(config=config, max_cache_len=9)
    )
    for layer in range(3):
        cache.update(
            torch.tensor(numbers(rows, 2, 5, 8) + layer), torch.tensor(numbers(rows, 2, 5, 8) - layer), layer
        )
    return cache


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("ended", ENDED)
@pytest.mark.parametrize("kind", ["dynamic", "static"])
def test_every_layer_of_a_transformers_cache(kind: str, ended: str, layout: str) -> None:
    plan = plan_of(ended, layout)
    cache, wanted = filled(kind, plan.before), filled(kind, plan.before)
    assert compact(cache, plan) is cache
    new = torch.tensor(numbers(len(plan.keep), 2, 1, 8))
    for layer, before in zip(cache.layers, wanted.layers, strict=True):
        keys, values = before.keys[plan.keep].clone(), before.values[plan.keep].clone()
        torch.testing.assert_close(layer.keys, keys, rtol=0, atol=0)
        torch.testing.assert_close(layer.values, values, rtol=0, atol=0)
        if kind == "static":
            # Its name, before transformers 5.
            size = layer.max_batch_size if hasattr(layer, "max_batch_size") else layer.batch_size
            assert size == len(plan.keep)
    if not len(plan.keep):
        return
    for index in range(3):
        keys, _ = cache.update(new, new, index, {"cache_position": torch.tensor([5])})  # read before 5
        torch.testing.assert_close(keys[:, :, 5:6], new, rtol=0, atol=0)
        assert keys.shape[0] == len(plan.keep)
    assert int(cache.get_seq_length()) == 6


def test_state_of_hybrid_layers_moves_too() -> None:
    class Layer:
        def __init__(self) -> None:
            self.keys = torch.arange(6.0).reshape(6, 1)
            self.conv_states = {0: torch.arange(6.0).reshape(6, 1), 1: None}
            self.indexer_position_ids = torch.arange(6.0).reshape(1, 6, 1)
            self.cumulative_length = torch.tensor(3)

    class Cache:
        layers = [Layer()]  # noqa: RUF012

        def update(self) -> None: ...

    plan = plan_of("mixed", "plain")
    layer = compact(Cache(), plan).layers[0]
    assert layer.conv_states[0][:, 0].tolist() == plan.keep.tolist()
    assert layer.indexer_position_ids[0, :, 0].tolist() == plan.keep.tolist()
    assert int(layer.cumulative_length) == 3


@pytest.mark.parametrize("kind", ["dynamic", "static"])
def test_select_repeats_rows(kind: str) -> None:
    cache, wanted = filled(kind, 2), filled(kind, 2)
    select(cache, [1, 1, 0])
    torch.testing.assert_close(cache.layers[2].values, wanted.layers[2].values[[1, 1, 0]], rtol=0, atol=0)


def test_crop_drops_first_columns() -> None:
    cache, wanted = filled("dynamic", 2), filled("dynamic", 2)
    crop_padding(cache, 2)
    assert cache.get_seq_length() == 3
    torch.testing.assert_close(cache.layers[1].keys, wanted.layers[1].keys[:, :, 2:], rtol=0, atol=0)
    with pytest.raises(TypeError, match="layer 0 is a StaticLayer; only DynamicLayer can be cropped"):
        crop_padding(filled("static", 2), 1)
