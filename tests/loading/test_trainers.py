"""accelerate on two processes, and transformers' `Trainer`: every bin once, and on from a checkpoint."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest
from tests.paths import ROOT

from rollkit.torch import PackedDataset

pytestmark = pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in ("accelerate", "transformers")),
    reason="needs accelerate and transformers",
)

ACCELERATE = """
import json, sys, warnings; warnings.simplefilter("ignore")
from accelerate import Accelerator
from torch.utils.data import DataLoader
from rollkit import ShuffledSampler
from rollkit.torch import PackedDataset, Packer
from tests.loading.some import features, key, rollouts

accelerator = Accelerator(cpu=True)
ranks = accelerator.num_processes
data = PackedDataset(rollouts(), 48, columns=["input_ids"])

def loader(state=None):
    sampler = ShuffledSampler(data, seed=1)
    if state is not None:
        sampler.load_state_dict(state)
    return sampler, accelerator.prepare(DataLoader(data, 1, sampler=sampler, drop_last=True))

def keys(batches):
    return [key(batch) for batch in batches]

sampler, batches = loader()
whole = [keys(batches), keys(batches)]
found = {"whole": whole, "cut": {}}
for cut in (1, 4):
    sampler, batches = loader()
    head = [key(batch) for _, batch in zip(range(cut), batches)]
    state = sampler.state_dict(taken=cut * ranks)  # numbers of all processes, one a batch
    sampler, batches = loader(state)
    found["cut"][cut] = [head + keys(batches), keys(batches)]
try:
    next(iter(Packer(features(), 48)))
except RuntimeError as error:
    found["refused"] = str(error)
with open(f"{sys.argv[1]}/{accelerator.process_index}.json", "w") as file:
    json.dump(found, file)
accelerator.end_training()
"""

TRAINER = """
import json, sys, warnings; warnings.simplefilter("ignore")
import torch
from transformers import Qwen3Config, Qwen3ForCausalLM, Trainer, TrainerCallback, TrainingArguments
from rollkit import ShuffledSampler
from rollkit.torch import PackedDataset
from tests.loading.some import key, rollouts

data = PackedDataset(rollouts(24), 48, names="hf")
vocabulary = 1 + int(max(item["input_ids"].max() for item in (data[i] for i in range(len(data)))))
config = Qwen3Config(vocab_size=vocabulary, hidden_size=8, intermediate_size=8, num_hidden_layers=1,
                     num_attention_heads=1, num_key_value_heads=1, head_dim=8)

class Told(Trainer):
    own = False
    def compute_loss(self, model, inputs, *args, **kwargs):
        self.seen.append(key(inputs))
        return super().compute_loss(model, inputs, *args, **kwargs)
    def _get_train_sampler(self, dataset=None):
        return ShuffledSampler(data, seed=5) if self.own else super()._get_train_sampler(dataset)

class Stop(TrainerCallback):
    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == len(data) // 2:
            control.should_save = control.should_training_stop = True

def run(folder, own, callbacks=(), resume=None):
    arguments = TrainingArguments(folder, per_device_train_batch_size=1, num_train_epochs=2, report_to=[],
                                  use_cpu=True, disable_tqdm=True, save_strategy="no", logging_strategy="no")
    torch.manual_seed(0)
    trainer = Told(Qwen3ForCausalLM(config), arguments, train_dataset=data, callbacks=list(callbacks))
    trainer.seen, trainer.own = [], own
    trainer.train(resume_from_checkpoint=resume)
    return trainer.seen

found = []
for own in (False, True):
    folder = f"{sys.argv[1]}/{own}"
    whole = run(folder, own)
    head = run(folder, own, [Stop()])
    found.append((whole, head, run(folder, own, resume=True)))
with open(f"{sys.argv[1]}/found.json", "w") as file:
    json.dump({"bins": len(data), "found": found}, file)
"""


def run(text: str, folder: Path, *launcher: str) -> None:
    (folder / "program.py").write_text(f"import sys; sys.path.insert(0, {str(ROOT)!r})\n{text}")
    command = [sys.executable, *launcher, str(folder / "program.py"), str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]


def test_accelerate_on_two_processes(tmp_path: Path) -> None:
    from tests.loading.some import rollouts

    run(ACCELERATE, tmp_path, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2")
    found = [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(2)]
    bins = len(PackedDataset(rollouts(), 48))
    for epoch in range(2):
        seen = [x for rank in found for x in rank["whole"][epoch]]
        assert len(set(seen)) == len(seen) == bins // 2 * 2
    for rank in found:
        assert rank["whole"][0] != rank["whole"][1]
        for whole in rank["cut"].values():
            assert whole == rank["whole"]
        assert "with 2 processes" in rank["refused"]
        assert "PackedDataset" in rank["refused"]


def test_a_trainer_goes_on_from_a_checkpoint_amid_an_epoch(tmp_path: Path) -> None:
    run(TRAINER, tmp_path)
    made = json.loads((tmp_path / "found.json").read_text())
    bins = made["bins"]
    for whole, head, rest in made["found"]:
        assert len(set(whole[:bins])) == len(set(whole[bins:])) == bins
        assert whole[:bins] != whole[bins:]
        assert len(head) == bins // 2
        assert head + rest == whole
