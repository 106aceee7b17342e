"""A batch in the hands of others: as a mapping, as a pytree, on devices, in trainers' own code."""

from __future__ import annotations

import collections.abc
import copy
import importlib
import pickle
from typing import Any

import numpy as np
import pytest

from rollkit import Batch, Ragged, Rollouts, pack, pad

ROLLOUTS = Rollouts(
    {
        "prompt_token_ids": [[1, 2], [3], [4]],
        "response_ids": [[5], [6, 7, 8], [9, 10]],
        "rollout_logprobs": [[-0.5], [-1.0, -2.0, -0.25], [-0.125, 0.0]],
        "stop_reasons": ["stop", "length", "stop"],
    }
)


def batch() -> Batch:
    return pack(ROLLOUTS, 6)


def test_a_mapping() -> None:
    found = batch()
    assert isinstance(found, collections.abc.Mapping)
    assert len(found) == len(list(found.keys())) == len(list(found.values())) == 5
    assert found.num_rows == 3
    assert found.get("none") is None
    assert "input_ids" in found
    assert found == found
    assert found != batch()
    assert len({found, batch()}) == 2
    assert dict(found).keys() == found.arrays.keys()
    with pytest.raises(KeyError, match="no array 'x'; there are 'input_ids'"):
        found["x"]
    with pytest.raises(AttributeError, match="layout of a Batch: it does not change"):
        found.layout = found.layout
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = found.nothing
    again = copy.copy(found)
    assert again.layout.equals(found.layout)
    assert again["input_ids"].tolist() == found["input_ids"].tolist()


def test_its_mappings_are_copies() -> None:
    given = {"x": np.zeros(3)}
    bare = Batch(given)
    given.clear()
    assert list(bare) == ["x"]
    found = batch()
    names = list(found)
    moved = found.rename({"input_ids": "tokens"})
    for one in (found, moved, found[:1], found.to("numpy")):
        one.arrays.clear()
        del one.arrays["segment_ids"]
        one.arrays["x"] = one.rows["x"] = 1
        one.rows.clear()
    assert list(found) == names
    assert found.rows == {"stop_reasons": ["stop", "length", "stop"]} == moved.rows
    for name in ("arrays", "layout", "prompt_lengths", "rows", "num_rows"):
        with pytest.raises(AttributeError, match="does not change"):
            delattr(found, name)
        with pytest.raises(AttributeError, match="does not change"):
            setattr(found, name, None)
    assert found.layout.equals(batch().layout)
    assert pack(ROLLOUTS, 6, out=found)["input_ids"].base is not None


def test_more_arrays() -> None:
    found = batch()
    both = found | {"old_logprobs": found["rollout_logprobs"] * 2, "loss_masks": found["loss_masks"] * 0}
    assert list(both) == [*found, "old_logprobs"]
    assert both.layout is found.layout
    assert not both["loss_masks"].any()
    assert found["loss_masks"].any()
    assert both.unpack("old_logprobs").to_list() == [[0, 0, -1], [0, -2, -4, -0.5], [0, -0.25, 0]]
    with pytest.raises(ValueError, match=r"'x' must have shape \(2, 6\) .*, got an array of shape \(3,\)"):
        found | {"x": np.zeros(3)}
    with pytest.raises(ValueError, match=r"got Ragged; rollkit\.place lays rows out"):
        found | {"x": Ragged.from_rows([[1], [2], [3]])}
    with pytest.raises(TypeError):
        found | 5


@pytest.mark.parametrize("target", ["torch", "cpu", "cpu:0"])
def test_torch_devices(target: str) -> None:
    import torch

    found = batch().to(target)
    assert isinstance(found["input_ids"], torch.Tensor)
    assert found["input_ids"].dtype == torch.int32
    assert found.num_rows == 3
    there = found.to(torch.device("cpu"), non_blocking=True)
    assert there["input_ids"].data_ptr() == found["input_ids"].data_ptr()
    back = there.to("numpy")
    assert all(np.array_equal(back[name], batch()[name]) for name in back)
    assert found.to("meta")["input_ids"].device.type == "meta"
    assert batch().to(device="cpu")["input_ids"].dtype == torch.int32


def test_jax_devices() -> None:
    import jax

    found = batch().to("jax")
    cpu = jax.devices("cpu")[0]
    for target in (cpu, jax.sharding.SingleDeviceSharding(cpu)):
        assert isinstance(batch().to(target)["input_ids"], jax.Array)
    assert isinstance(found.to("cpu")["input_ids"], jax.Array)  # on a device with its own framework
    assert isinstance(found.to("torch")["input_ids"], __import__("torch").Tensor)


@pytest.mark.parametrize("target", ["", "nowhere", "cuda:x", b"cpu", 3.5, None, True, [], object()])
def test_what_is_no_device(target: Any) -> None:
    with pytest.raises(ValueError, match=r"target must be one of 'numpy', 'torch', 'jax', or a device"):
        batch().to(target)


@pytest.mark.parametrize("framework", ["torch", "jax", "numpy"])
def test_a_pytree(framework: str) -> None:
    import jax
    from torch.utils import _pytree

    found = batch().to(framework)
    for leaves in (_pytree.tree_leaves(found), jax.tree_util.tree_leaves(found)):
        assert [id(leaf) for leaf in leaves] == [id(array) for array in found.values()]
    for doubled in (
        _pytree.tree_map(lambda x: x * 2, found),
        jax.tree_util.tree_map(lambda x: x * 2, found),
    ):
        assert type(doubled) is Batch
        assert doubled.layout is found.layout
        assert doubled.rows["stop_reasons"] == ["stop", "length", "stop"]
        assert doubled["input_ids"].tolist() == (2 * batch()["input_ids"]).tolist()
    paths = [jax.tree_util.keystr(path) for path, _ in jax.tree_util.tree_leaves_with_path(found)]
    assert paths == [f"['{name}']" for name in found]


def test_traced_once_for_equal_layouts() -> None:
    import jax

    traces = 0

    @jax.jit
    def total(given: Batch) -> Any:
        nonlocal traces
        traces += 1
        return given["loss_masks"].sum()

    assert int(total(batch().to("jax"))) == 6
    assert int(total(batch().to("jax"))) == 6
    assert traces == 1
    total(pack(ROLLOUTS, 6, bins=4).to("jax"))
    assert traces == 2
    other = pack(ROLLOUTS.with_columns(stop_reasons=["stop", "stop", "stop"]), 6).to("jax")
    out = jax.jit(lambda given: given)(other)
    assert traces == 2
    assert out.rows["stop_reasons"] == ["stop"] * 3  # never those of a batch traced before

    @jax.jit
    def of_arrays(arrays: Any) -> Any:
        nonlocal traces
        traces += 1
        return arrays["loss_masks"].sum()

    for lengths in ([3, 2], [1, 1], [2, 2]):
        rows = {"response_ids": [[1] * n for n in lengths]}
        assert int(of_arrays(pack(rows, 4, bins=2).to("jax").arrays)) == sum(lengths)
    assert traces == 3


def test_made_of_arrays_alone() -> None:
    found = batch()
    bare = type(found)({name: array + 0 for name, array in found.items()})
    assert len(bare) == len(found)
    assert dict(**bare).keys() == found.arrays.keys()
    for again in (bare, pickle.loads(pickle.dumps(bare)), bare.to("torch"), copy.copy(bare)):
        with pytest.raises(AttributeError, match="this batch has no layout: it was made of another's arrays"):
            _ = again.layout
    assert "no layout" in repr(bare)


def test_torch_collates_and_pins() -> None:
    data: Any = importlib.import_module("torch.utils.data")

    found = batch()
    assert data.default_collate([found])["input_ids"].shape == (1, 2, 6)
    assert data.default_convert(found)["input_ids"].shape == (2, 6)
    loader = data.DataLoader([found], batch_size=None, collate_fn=lambda x: x)
    assert next(iter(loader)).layout is found.layout


def test_accelerate() -> None:
    torch = pytest.importorskip("torch")
    utils = pytest.importorskip("accelerate.utils")
    found = utils.send_to_device(batch().to("torch"), torch.device("cpu"), non_blocking=True)
    assert type(found) is Batch
    assert found.num_rows == 3
    assert utils.find_batch_size(found.arrays) == 2


def test_lightning() -> None:
    torch = pytest.importorskip("torch")
    transfer = pytest.importorskip("lightning.fabric.utilities.apply_func")
    found = transfer.move_data_to_device(batch(), torch.device("cpu"))
    assert type(found) is Batch
    assert isinstance(found["input_ids"], torch.Tensor)


def test_transformers_trainer(tmp_path: Any) -> None:
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    pytest.importorskip("accelerate")
    config = transformers.Qwen2Config(
        vocab_size=16, hidden_size=8, intermediate_size=8, num_hidden_layers=1,
        num_attention_heads=2, num_key_value_heads=2, use_cache=False,
    )  # fmt: skip
    torch.manual_seed(0)
    model = transformers.Qwen2ForCausalLM(config)
    rows = ROLLOUTS.to_rows()

    def collate(examples: Any) -> Batch:
        made = pad(examples, side="right").rename("hf")
        kept = {name: made[name] for name in ("input_ids", "position_ids", "attention_mask", "labels")}
        return Batch(kept, made.layout, made.prompt_lengths, made.rows).to("torch")

    arguments = transformers.TrainingArguments(
        str(tmp_path), max_steps=2, per_device_train_batch_size=3, report_to=[], use_cpu=True,
        remove_unused_columns=False, disable_tqdm=True, save_strategy="no", logging_strategy="no",
    )  # fmt: skip
    trainer = transformers.Trainer(model, arguments, train_dataset=rows, data_collator=collate)
    assert np.isfinite(trainer.train().training_loss)


def test_jax_device_put() -> None:
    import jax

    found = jax.device_put(batch())
    assert type(found) is Batch
    assert isinstance(found["input_ids"], jax.Array)
    assert found.layout.equals(batch().layout)
