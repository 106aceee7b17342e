"""`DataCollatorForLanguageModeling` beside TRL's, and beside a slow one."""

from __future__ import annotations

import importlib.util
import pickle
from itertools import chain, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.compat.collators import ROWS, check_same, features, outcome
from tests.decode.decoding import VOCAB, qwen3
from tests.thorough import examples

from rollkit.compat import patched
from rollkit.compat.trl import DataCollatorForLanguageModeling

KINDS = tuple(kind for kind in ROWS if kind != "tuple")
OPTIONS = st.fixed_dictionaries(
    {"pad_token_id": st.sampled_from([0, 7])},
    optional={
        "padding_free": st.booleans(),
        "return_position_ids": st.booleans(),
        "pad_to_multiple_of": st.sampled_from([None, 1, 4, 8]),
    },
)
BATCHES = features(KINDS, least=1) | features(KINDS, packed=True)


def reference(batch: list[Any], options: dict[str, Any]) -> dict[str, Any]:
    """The values, row by row."""
    rows = [[int(token) for token in feature["input_ids"]] for feature in batch]
    labels = [[int(token) for token in feature.get("labels", feature["input_ids"])] for feature in batch]
    sizes = [feature.get("seq_lengths", [len(feature["input_ids"])]) for feature in batch]
    positions = [[at for size in row for at in range(size)] for row in sizes]
    flat = options.get("padding_free", False)
    if flat:
        rows, labels, positions = (
            [list(chain.from_iterable(column))] for column in (rows, labels, positions)
        )
        firsts = [at == 0 for at in positions[0]]
        labels = [[-100 if first else label for first, label in zip(firsts, labels[0], strict=True)]]
    multiple = options.get("pad_to_multiple_of") or 1
    width = -(-max(map(len, rows)) // multiple) * multiple

    def padded(column: list[list[int]], fill: int) -> list[list[int]]:
        return [row + [fill] * (width - len(row)) for row in column]

    found = {"input_ids": padded(rows, options["pad_token_id"]), "labels": padded(labels, -100)}
    if flat or options.get("return_position_ids"):
        found["position_ids"] = padded(positions, 0)
    if not flat:
        return found | {"attention_mask": padded([[1] * len(row) for row in rows], 0)}
    bounds = [i for i, at in enumerate(found["position_ids"][0]) if at == 0] + [width]
    lengths = [b - a for a, b in pairwise(bounds)]
    numbers = [i for i, length in enumerate(lengths) for _ in range(length)]
    longest = max(lengths)
    more = {
        "cu_seq_lens_q": bounds,
        "cu_seq_lens_k": bounds,
        "max_length_q": longest,
        "max_length_k": longest,
    }
    return {**found, **more, "seq_idx": [numbers]}


def listed(batch: dict[str, Any]) -> dict[str, Any]:
    return {name: getattr(found, "tolist", lambda found=found: found)() for name, found in batch.items()}


@settings(max_examples=examples(800), deadline=None)
@given(OPTIONS, BATCHES)
def test_values(options: dict[str, Any], batch: list[Any]) -> None:
    found = DataCollatorForLanguageModeling(**options)(batch)
    assert listed(found) == reference(batch, options)


@pytest.fixture(scope="module")
def theirs() -> Any:
    if importlib.util.find_spec("trl") is None:
        pytest.skip("trl is not installed")
    return importlib.import_module("trl.trainer.sft_trainer").DataCollatorForLanguageModeling


@pytest.mark.filterwarnings("ignore")
@settings(max_examples=examples(2000), deadline=None)
@given(OPTIONS, BATCHES, st.sampled_from([None, "pt", "tf"]))
def test_results_are_those_of_trl(
    theirs: Any, options: dict[str, Any], batch: list[Any], tensors: str | None
) -> None:
    wanted = outcome(theirs(**options), batch, tensors)
    check_same(outcome(DataCollatorForLanguageModeling(**options), batch, tensors), wanted)


@pytest.mark.filterwarnings("ignore")
def test_position_ids_are_those_of_trl(theirs: Any) -> None:
    lengths = [[3, 1], [2], [1, 1, 4]]
    name = "get_position_ids_from_packed_seq_lengths"
    found, wanted = (getattr(c, name)(lengths) for c in (DataCollatorForLanguageModeling, theirs))
    assert [tensor.tolist() for tensor in found] == [tensor.tolist() for tensor in wanted]
    assert found[0].dtype == wanted[0].dtype


@pytest.mark.parametrize("flat", [False, True])
def test_empty_rows_do_not_make_floats(flat: bool) -> None:
    """TRL's batch is float32 where the first row, or any of a flat batch, is an empty list."""
    collate = DataCollatorForLanguageModeling(0, padding_free=flat, return_position_ids=True)
    found = collate([{"input_ids": []}, {"input_ids": [1 << 40, 2]}, {"input_ids": []}])
    rows = [[0, 0], [1 << 40, 2], [0, 0]]
    assert found["input_ids"].tolist() == ([rows[1]] if flat else rows)
    assert found["input_ids"].dtype == found["labels"].dtype == torch.int64


def test_a_padded_batch_without_tokens() -> None:
    found = DataCollatorForLanguageModeling(0, pad_to_multiple_of=4)([{"input_ids": []}] * 2)
    assert {name: tuple(array.shape) for name, array in found.items()} == dict.fromkeys(
        ("input_ids", "labels", "attention_mask"), (2, 0)
    )


def test_sequences_without_a_token_are_left_out() -> None:
    batch = [{"input_ids": [5, 6, 7], "seq_lengths": [0, 2, 0, 1, 0]}]
    found = DataCollatorForLanguageModeling(0, padding_free=True)(batch)
    assert found["cu_seq_lens_q"].tolist() == [0, 2, 3]
    assert found["labels"].tolist() == [[-100, 6, -100]]


@pytest.mark.parametrize("flat", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_a_batch_has_memory_of_its_own(kind: str, flat: bool) -> None:
    row = ROWS[kind]([1, 2, 3])
    for found in DataCollatorForLanguageModeling(0, padding_free=flat)([{"input_ids": row}]).values():
        if isinstance(found, torch.Tensor):
            found.fill_(9)
    assert list(row) == [1, 2, 3]


def test_what_subclasses_and_trainers_do() -> None:
    """SFTTrainer sets `return_position_ids`; who has a collator of their own overrides `torch_call`."""

    class Counting(DataCollatorForLanguageModeling):
        def torch_call(self, examples: Any) -> dict[str, Any]:
            return super().torch_call(examples) | {"count": len(examples)}

    collate = Counting(0)
    collate.return_position_ids = True
    found = collate([{"input_ids": np.array([1, 2])}])
    assert (found["count"], found["position_ids"].tolist()) == (1, [[0, 1]])
    plain = DataCollatorForLanguageModeling(3, padding_free=True)
    assert pickle.loads(pickle.dumps(plain)) == plain


@pytest.mark.filterwarnings("ignore")
def test_sft_trainer_learns_the_same(theirs: Any, tmp_path: Path) -> None:
    """Without its flag it takes our collator; with it, under `patched`, it makes ours."""
    datasets, tokenizers, transformers, trl = (
        pytest.importorskip(name) for name in ("datasets", "tokenizers", "transformers", "trl")
    )
    words = tokenizers.Tokenizer(tokenizers.models.WordLevel({"a": 0, "<pad>": 1, "<eos>": 2}, unk_token="a"))
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=words, pad_token="<pad>", eos_token="<eos>"
    )
    rows = [[(i * 7 + j) % VOCAB for j in range(3 + i)] for i in range(8)]
    dataset = datasets.Dataset.from_dict({"input_ids": rows, "labels": rows})

    def losses(collate: Any = None, **options: Any) -> tuple[list[float], type]:
        torch.manual_seed(0)
        arguments = trl.SFTConfig(
            str(tmp_path),
            max_steps=2,
            per_device_train_batch_size=4,
            max_length=None,
            logging_steps=1,
            report_to=[],
            save_strategy="no",
            disable_tqdm=True,
            use_cpu=True,
            bf16=False,
            dataset_kwargs={"skip_prepare_dataset": True},
            **options,
        )
        trainer = trl.SFTTrainer(qwen3(), arguments, collate, dataset, processing_class=tokenizer)
        trainer.train()
        logged = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
        return logged, type(trainer.data_collator)

    wanted, kind = losses(padding_free=True)
    assert kind is theirs
    assert losses(DataCollatorForLanguageModeling(1, padding_free=True))[0] == wanted
    with patched("trl") as names:
        found, kind = losses(padding_free=True)
    assert {"DataCollatorForLanguageModeling", "pack_dataset", "pad", "flush_left"} == set(names)
    assert found == wanted
    assert issubclass(kind, DataCollatorForLanguageModeling)
