"""`DataCollatorWithFlattening` beside that of transformers."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.compat.collators import ROWS, check_same, features, outcome
from tests.decode.decoding import VOCAB, qwen3
from tests.thorough import examples

from rollkit.compat.transformers import DataCollatorWithFlattening

Theirs: Any = transformers.DataCollatorWithFlattening
OPTIONS = {
    "return_position_ids": st.booleans(),
    "separator_id": st.sampled_from([-100, -1, 7]),
    "return_flash_attn_kwargs": st.booleans(),
    "return_seq_idx": st.booleans(),
    "position_ids_start": st.sampled_from([0, 2]),
}


@settings(max_examples=examples(2000), deadline=None)
@given(
    st.fixed_dictionaries({}, optional=OPTIONS),
    features(tuple(ROWS)),
    st.sampled_from(["pt", "np", "tf"]),
    st.booleans(),
    st.sampled_from([None, -5]),
)
def test_results_are_those_of_transformers(
    options: dict[str, Any], batch: list[Any], tensors: str, made_with: bool, separator: int | None
) -> None:
    """Rows as lists, which is what transformers makes of all but tuples."""
    lists = [{name: np.asarray(row).astype(int).tolist() for name, row in f.items()} for f in batch]
    call: dict[str, Any] = {} if separator is None else {"separator_id": separator}
    first = (tensors,) if made_with else ()
    if not made_with:
        call["return_tensors"] = tensors
    wanted = outcome(Theirs(*first, **options), lists, **call)
    check_same(outcome(DataCollatorWithFlattening(*first, **options), batch, **call), wanted)


@pytest.mark.parametrize("kind", list(ROWS))
def test_a_batch_has_memory_of_its_own(kind: str) -> None:
    rows = [ROWS[kind]([1, 2, 3])]
    for batch in ([{"input_ids": rows[0]}], [{"input_ids": rows[0], "labels": rows[0]}]):
        found = DataCollatorWithFlattening(return_flash_attn_kwargs=True)(batch)
        for name, array in found.items():
            if not name.startswith("max"):
                array.fill_(-7)
        assert list(rows[0]) == [1, 2, 3]
    assert found["max_length_q"] == 3


def test_each_array_is_alone_in_memory() -> None:
    """They share an allocation, of which none is to see another's part."""
    collate = DataCollatorWithFlattening(return_flash_attn_kwargs=True, return_seq_idx=True)
    names = [name for name in collate([{"input_ids": [1] * 9}]) if not name.startswith("max")]
    for written in names:
        found, other = (collate([{"input_ids": [1] * 9}, {"input_ids": [2]}]) for _ in range(2))
        found[written].fill_(-7)
        for name in names:
            assert (found[name] == -7).all() if name == written else torch.equal(found[name], other[name])
    assert found["input_ids"].untyped_storage().nbytes() == 10 * 8


def test_arrays_of_other_frameworks_and_what_becomes_a_list() -> None:
    wanted = DataCollatorWithFlattening()([{"input_ids": [1, 2]}, {"input_ids": [3]}])
    jnp = pytest.importorskip("jax.numpy")
    pd = pytest.importorskip("pandas")
    for make in (jnp.array, pd.Series):
        found = DataCollatorWithFlattening()([{"input_ids": make([1, 2])}, {"input_ids": make([3])}])
        check_same(found, wanted)


def test_it_pickles_and_prints_its_options() -> None:
    collate = DataCollatorWithFlattening("np", separator_id=3)
    assert pickle.loads(pickle.dumps(collate)) == collate
    assert "separator_id=3" in repr(collate)


@pytest.mark.parametrize("workers", [0, 2])
def test_in_a_data_loader(workers: int) -> None:
    data = [{"input_ids": [i] * (i + 1)} for i in range(6)]
    loader: Any = torch.utils.data.DataLoader(
        data,  # type: ignore[arg-type]
        batch_size=2,
        num_workers=workers,
        collate_fn=DataCollatorWithFlattening(return_seq_idx=True),
    )
    assert [batch["seq_idx"].tolist() for batch in loader] == [
        [[0, 1, 1]],
        [[0, 0, 0, 1, 1, 1, 1]],
        [[0] * 5 + [1] * 6],
    ]


def test_a_trainer_learns_the_same(tmp_path: Path) -> None:
    rows = [[(i * 7 + j) % VOCAB for j in range(3 + i)] for i in range(8)]

    def losses(collate: Any) -> list[float]:
        torch.manual_seed(0)
        arguments = transformers.TrainingArguments(
            str(tmp_path),
            max_steps=3,
            per_device_train_batch_size=4,
            logging_steps=1,
            report_to=[],
            save_strategy="no",
            disable_tqdm=True,
            use_cpu=True,
        )
        data: Any = [{"input_ids": row} for row in rows]
        trainer = transformers.Trainer(
            model=qwen3(), args=arguments, data_collator=collate, train_dataset=data
        )
        trainer.train()
        return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]

    found = losses(DataCollatorWithFlattening(return_flash_attn_kwargs=True))
    assert len(found) == 3
    assert found == losses(Theirs(return_flash_attn_kwargs=True))
