"""`rollkit.torch.Collator`: what `pad` and `pack` make, as models take it."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.loading.some import features

from rollkit import pack, pad
from rollkit.torch import Collator

torch = pytest.importorskip("torch")
MODEL = ("input_ids", "attention_mask", "position_ids", "labels")
KINDS: dict[str, Any] = {
    "list": lambda x: x,
    "int32": lambda x: np.array(x, np.int32),
    "int64": lambda x: np.array(x, np.int64),
    "tensor": lambda x: torch.tensor(x, dtype=torch.int64),
}


def rows_of(features: list[dict[str, Any]]) -> dict[str, Any]:
    return {name: [np.asarray(feature[name]) for feature in features] for name in features[0]}


@given(
    st.lists(st.integers(0, 9), min_size=1, max_size=6),
    st.sampled_from(["left", "right"]),
    st.integers(1, 5),
    st.one_of(st.none(), st.integers(9, 30)),
    st.sampled_from(["tokens", "labels", "loss_masks", "responses", "masked responses"]),
    st.sampled_from(sorted(KINDS)),
    st.integers(0, 2**32),
)
def test_it_is_what_pad_and_pack_make(
    lengths: list[int], side: str, multiple: int, capacity: int | None, what: str, kind: str, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    made = []
    for n in lengths:
        tokens = rng.integers(1, 99, n).tolist()
        found = {"input_ids": tokens}
        if what == "labels":
            found["labels"] = np.where(rng.integers(0, 2, n), tokens, -100).tolist()
        elif what == "loss_masks":
            found["loss_masks"] = rng.integers(0, 2, n).tolist()
        elif what != "tokens":
            found = {"prompt_token_ids": tokens[: n // 2], "response_ids": tokens[n // 2 :]}
            if what == "masked responses":
                found["loss_masks"] = rng.integers(0, 2, n - n // 2).tolist()
        made.append({name: KINDS[kind](row) for name, row in found.items()})
    columns = {
        name: [np.asarray(feature[name], np.int64) for feature in made] for name in made[0]
    }  # what the options do, without the collator's own way
    if capacity is None:
        wanted = pad(columns, pad_id=7, side=side, multiple_of=multiple, names="hf")
        collate = Collator(pad_id=7, side=side, multiple_of=multiple)
    else:
        wanted = pack(columns, capacity, pad_id=7, names="hf")
        collate = Collator(pad_id=7, pack=capacity)
    found = collate(made)
    assert list(found) == [name for name in MODEL if name in wanted]
    for name, tensor in found.items():
        assert tensor.dtype == torch.int64
        np.testing.assert_array_equal(tensor.numpy(), wanted[name])
    assert "labels" not in Collator(labels=False)(made)


def test_a_batch_under_other_names() -> None:
    made = features(5)
    batch = Collator(names="rollkit", pad_id=3)(made)
    assert [row.tolist() for row in batch.unpack("input_ids")] == [x["input_ids"].tolist() for x in made]
    assert isinstance(batch["labels"], torch.Tensor)
    assert "labels" not in Collator(names="rollkit", labels=False)(made)
    packed = Collator(names="maxtext", pack=40)(made)
    assert {"inputs", "targets", "inputs_segmentation"} <= packed.keys()
    assert isinstance(packed, dict)
    assert "tokens" in Collator(names={"input_ids": "tokens"})(made)


def test_columns_are_kept_where_they_are_named() -> None:
    made = [
        {"input_ids": [1, 2], "score": 0.5, "source": "a", "weight": [0.0, 1.0], "other": object()},
        {"input_ids": [3], "score": 1.5, "source": "b", "weight": [2.0], "other": object()},
    ]
    found = Collator(keep=["score", "source", "weight"])(made)
    assert list(found) == [*MODEL, "weight", "score", "source"]
    assert found["score"].tolist() == [0.5, 1.5]
    assert found["source"] == ["a", "b"]
    assert found["weight"].tolist() == [[0, 1], [2, 0]]
    packed = Collator(keep=["weight"], pack=4)(made)
    assert packed["weight"].tolist() == [[0, 1, 2, 0]]
    assert list(Collator()(made)) == list(MODEL)


def test_it_pickles_and_compares() -> None:
    collate = Collator(pack=9, keep=["score"])
    assert pickle.loads(pickle.dumps(collate)) == collate
    assert "pack=9" in repr(collate)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_loader_collates(workers: int) -> None:
    made = features(12)
    loader: Any = torch.utils.data.DataLoader(made, 4, collate_fn=Collator(pack=80), num_workers=workers)
    tokens = torch.cat([batch["input_ids"].reshape(-1) for batch in loader])
    assert sorted(tokens[tokens > 0].tolist()) == list(range(1, 1 + sum(len(x["input_ids"]) for x in made)))


@pytest.mark.parametrize(
    ("call", "kind", "message"),
    [
        (lambda: Collator()([]), ValueError, "features is empty; a batch has at least one"),
        (lambda: Collator()([{"input_ids": torch.tensor([[1, 2]])}]), ValueError,
         "column 'input_ids': elements of shape (2,), expected numbers; tokenizers add a dimension with "
         "return_tensors=: leave it out"),
        (lambda: Collator()([{"input_ids": [1]}, [2]]), TypeError,  # type: ignore[list-item]
         "features: row 1 is list, expected a dict"),
        (lambda: Collator()([{"input_ids": [1]}, {"input_ids": [1], "labels": [2]}]), ValueError,
         "features: row 1 and row 0 differ in columns: 'labels'"),
        (lambda: Collator(keep=["score"])([{"input_ids": [1]}]), ValueError,
         "keep has 'score', which features lack; they have 'input_ids'"),
        (lambda: Collator()([{"input_ids": [1], "attention_mask": [1]},
                             {"input_ids": [1, 0], "attention_mask": [1, 0]}]), ValueError,
         "column 'attention_mask': row 1, position 1 is 0: features are batched whole, and padding is of the "
         "batch; leave out what is masked"),
        (lambda: Collator()([{"text": "a"}]), ValueError,
         "features need 'input_ids', or 'response_ids', got 'text'; a Trainer hands on all columns with "
         "remove_unused_columns=False"),
        (lambda: Collator(pack=2)([{"input_ids": [1, 2, 3]}]), ValueError, None),
        (lambda: Collator(side="top"), ValueError, "side must be one of 'right', 'left', got 'top'"),
        (lambda: Collator(pack=8, side="left"), ValueError,
         "side='left' is for padding; leave it out, or pack"),
        (lambda: Collator(pack=8, multiple_of=2), ValueError,
         "multiple_of=2 is for padding; leave it out, or pack"),
        (lambda: Collator(share_prefixes=True), ValueError,
         "share_prefixes=True is for packing; give pack, the tokens of a bin"),
        (lambda: Collator(pack=8, share_prefixes=True, labels=False), ValueError,
         "names='hf' is for batches of segments, and this one shares prefixes; rename its arrays by "
         "{old: new}, give the model a mask of rollkit.segments, and take the loss of next_token_logprobs"),
        (lambda: Collator(pack=8, share_prefixes=True, names="rollkit"), ValueError,
         "labels=True is for batches of segments, and this one shares prefixes; set labels=False, and take "
         "the loss of rollkit.next_token_logprobs"),
        (lambda: Collator(pack=8, share_prefixes=2), TypeError,  # type: ignore[arg-type]
         "share_prefixes must be True or False, got int"),
        (lambda: Collator(pad_id="a"), TypeError, "pad_id must be an int, got str"),  # type: ignore[arg-type]
        (lambda: Collator(keep="score"), TypeError, "keep must be a sequence, got str"),
        (lambda: Collator(multiple_of=0), ValueError, "multiple_of must be at least 1, got 0"),
    ],
)  # fmt: skip
def test_refusals(call: Any, kind: type[Exception], message: str | None) -> None:
    with pytest.raises(kind) as caught:
        call()
    assert message is None or str(caught.value) == message
