"""What tests of decoding share: small random models, prompts, limits, and a loop that is obviously right."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import transformers

from rollkit import Rollouts
from rollkit.decode import AllowedSet, sample
from rollkit.decode._cached import cache_name

torch.set_num_threads(1)  # on a busy machine, two for matrices this small wait for each other

VOCAB = 300
EOS = 7
CODES = AllowedSet(range(100, 140), VOCAB, eos=EOS)
PREFIX = list(range(40, 60))

MIXED = [[int(k) for k in np.random.default_rng(i).integers(0, VOCAB, 2 + 3 * (i % 4))] for i in range(8)]
PROMPTS = {
    "mixed": MIXED,
    "equal": [[1, 2, 3]] * 8,
    "prefix": [[*PREFIX, *tail] for tail in MIXED],
    "same width": [[i, 5, 9] for i in range(8)],
}
# Which sequences end early, besides those that draw the end of sequence.
LIMITS = {
    "front": [2, 3, 24, 24, 24, 24, 24, 24],
    "middle": [24, 24, 24, 2, 2, 5, 24, 24],
    "end": [24, 24, 24, 24, 24, 24, 4, 1],
    "one by one": [3, 21, 5, 17, 9, 13, 7, 24],
}
CACHE = str(cache_name(transformers.Qwen3Model.forward))
"""What models of the installed transformers call their cache."""

GUIDED: dict[str, Any] = {"uncond": [3, 4], "cfg_scale": 1.5}

SHAPE: dict[str, Any] = {
    "vocab_size": VOCAB,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "initializer_range": 0.3,
    "eos_token_id": EOS,
}
SLIDING: dict[str, Any] = {
    "use_sliding_window": True,
    "sliding_window": 6,
    "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
}


def config(**more: Any) -> Any:
    return transformers.Qwen3Config(**{**SHAPE, **more})


def qwen3(dtype: torch.dtype = torch.float32, **more: Any) -> Any:
    """A random model whose logits depend on what it has read."""
    torch.manual_seed(0)
    model: Any = transformers.Qwen3ForCausalLM(config(**more))
    return model.to(dtype).eval()


def gemma3(dtype: torch.dtype = torch.float32, **more: Any) -> Any:
    """The same with windows, and logits with a soft cap."""
    torch.manual_seed(0)
    options = {**SHAPE, **SLIDING, "final_logit_softcapping": 20.0, **more}
    model: Any = transformers.Gemma3ForCausalLM(transformers.Gemma3TextConfig(**options))
    return model.to(dtype).eval()


def lfm2(dtype: torch.dtype = torch.float32, **more: Any) -> Any:
    """One whose outer layers keep a state in place of keys and values."""
    torch.manual_seed(0)
    options = {**SHAPE, "layer_types": ["conv", "full_attention", "conv"], **more}
    del options["head_dim"]
    model: Any = transformers.Lfm2ForCausalLM(transformers.Lfm2Config(**options))
    return model.to(dtype).eval()


def mamba() -> Any:
    """One without attention, whose layers all keep a state."""
    torch.manual_seed(0)
    shape: dict[str, Any] = {"vocab_size": VOCAB, "hidden_size": 32, "num_hidden_layers": 2, "state_size": 4}
    model: Any = transformers.MambaForCausalLM(transformers.MambaConfig(**shape))
    for weight in model.parameters():
        if weight.ndim > 1:
            torch.nn.init.normal_(weight, std=0.3)
    return model.eval()


def same(found: Rollouts, wanted: Rollouts) -> None:
    assert list(found["stop_reasons"]) == list(wanted["stop_reasons"])
    assert found["response_ids"].to_list() == wanted["response_ids"].to_list()  # type: ignore[union-attr]


def one_by_one(model: Any, prompt: list[int], uncond: list[int] | None, seed: int, limit: int) -> list[int]:
    """No batch, no cache, the full head."""
    found: list[int] = []
    while len(found) < limit and found[-1:] != [EOS]:
        heads = []
        for start in [prompt] if uncond is None else [prompt, uncond]:
            with torch.no_grad():
                heads.append(model(torch.tensor([start + found])).logits[:, -1])
        scale = 1.5 if uncond is not None else 1.0
        drawn = sample(*heads, allowed=CODES, cfg_scale=scale, top_p=0.9, seeds=[seed], positions=len(found))
        found.append(int(drawn.token_ids[0]))
    return found
