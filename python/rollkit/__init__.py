"""The data path between LLM rollouts and the training step: every token is written once.

    rows ──► Layout (from lengths alone) ──► place(column, layout, fill) per column ──► Batch
    model output ──► take(output, layout) ──► rows again

Importing rollkit imports NumPy and nothing else; `rollkit.segments` and the other subpackages load when they
are first used.
"""

import importlib as _importlib
from typing import Any as _Any

from rollkit import _program as _program  # first: it is there for what takes time to import
from rollkit._batch import Batch as Batch
from rollkit._batch import pack as pack
from rollkit._batch import pad as pad
from rollkit._files.read import iter_chunks as iter_chunks
from rollkit._files.read import read as read
from rollkit._files.read import sample_path as sample_path
from rollkit._files.save import save as save
from rollkit._native import __version__ as __version__
from rollkit._rollouts.advantages import advantages as advantages
from rollkit._rollouts.forest import Forest as Forest
from rollkit._rollouts.groups import Groups as Groups
from rollkit._rollouts.labels import labels as labels
from rollkit._rollouts.logprobs import next_token_logprobs as next_token_logprobs
from rollkit._rollouts.masking import mask_overlong as mask_overlong
from rollkit._rollouts.masking import mask_stale as mask_stale
from rollkit._rollouts.masking import mask_zero_variance as mask_zero_variance
from rollkit._rollouts.masking import spread_rewards as spread_rewards
from rollkit._rollouts.metrics import rollout_metrics as rollout_metrics
from rollkit._rollouts.metrics import turn_lengths as turn_lengths
from rollkit._rollouts.rollouts import Rollouts as Rollouts
from rollkit._rollouts.steps import merge_steps as merge_steps
from rollkit._rows.binpack import plan_bins as plan_bins
from rollkit._rows.layout import Layout as Layout
from rollkit._rows.place import concat as concat
from rollkit._rows.place import place as place
from rollkit._rows.place import take as take
from rollkit._rows.ragged import Ragged as Ragged
from rollkit._rows.trees import TreeLayout as TreeLayout

__all__ = [
    "Batch",
    "Forest",
    "Groups",
    "Layout",
    "Ragged",
    "Rollouts",
    "TreeLayout",
    "__version__",
    "advantages",
    "concat",
    "iter_chunks",
    "labels",
    "mask_overlong",
    "mask_stale",
    "mask_zero_variance",
    "merge_steps",
    "next_token_logprobs",
    "pack",
    "pad",
    "place",
    "plan_bins",
    "read",
    "rollout_metrics",
    "sample_path",
    "save",
    "spread_rewards",
    "take",
    "turn_lengths",
]

_SUBPACKAGES = ("compat", "decode", "engines", "forest", "plot", "routing", "segments", "testing")


def __getattr__(name: str) -> _Any:
    if name in _SUBPACKAGES:
        return _importlib.import_module(f"rollkit.{name}")
    raise AttributeError(f"module 'rollkit' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_SUBPACKAGES})
