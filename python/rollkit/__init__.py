"""The data path between LLM rollouts and the training step: every token is written once.

    rows ──► Layout (from lengths alone) ──► place(column, layout, fill) per column ──► Batch
    model output ──► take(output, layout) ──► rows again

Importing rollkit imports NumPy and nothing else; `rollkit.segments` and the other subpackages, and some
functions, load when they are first used.
"""

import importlib as _importlib
import typing as _typing

from rollkit import _program as _program  # first: it is there for what takes time to import
from rollkit._batch import Batch as Batch
from rollkit._batch import pack as pack
from rollkit._batch import pad as pad
from rollkit._native import __version__ as __version__
from rollkit._rollouts.groups import Groups as Groups
from rollkit._rollouts.labels import labels as labels
from rollkit._rollouts.rollouts import Rollouts as Rollouts
from rollkit._rows.binpack import plan_bins as plan_bins
from rollkit._rows.layout import Layout as Layout
from rollkit._rows.place import concat as concat
from rollkit._rows.place import place as place
from rollkit._rows.place import take as take
from rollkit._rows.ragged import Ragged as Ragged

if _typing.TYPE_CHECKING:
    from rollkit._batch.clip import clip_weights as clip_weights
    from rollkit._files.read import iter_chunks as iter_chunks
    from rollkit._files.read import read as read
    from rollkit._files.read import sample_path as sample_path
    from rollkit._files.save import save as save
    from rollkit._loading.bins import Bins as Bins
    from rollkit._loading.ledger import Ledger as Ledger
    from rollkit._loading.mixture import Mixture as Mixture
    from rollkit._loading.sampler import ShuffledSampler as ShuffledSampler
    from rollkit._rollouts.advantages import advantages as advantages
    from rollkit._rollouts.forest import Forest as Forest
    from rollkit._rollouts.gae import gae as gae
    from rollkit._rollouts.gae import returns as returns
    from rollkit._rollouts.logprobs import next_token_logprobs as next_token_logprobs
    from rollkit._rollouts.masking import mask_overlong as mask_overlong
    from rollkit._rollouts.masking import mask_stale as mask_stale
    from rollkit._rollouts.masking import mask_zero_variance as mask_zero_variance
    from rollkit._rollouts.masking import soft_overlong_penalty as soft_overlong_penalty
    from rollkit._rollouts.masking import spread_rewards as spread_rewards
    from rollkit._rollouts.metrics import rollout_metrics as rollout_metrics
    from rollkit._rollouts.metrics import turn_lengths as turn_lengths
    from rollkit._rollouts.steps import merge_steps as merge_steps
    from rollkit._rollouts.totals import Totals as Totals
    from rollkit._rollouts.totals import loss_totals as loss_totals
    from rollkit._rollouts.weights import loss_weights as loss_weights
    from rollkit._rollouts.whiten import Moments as Moments
    from rollkit._rollouts.whiten import whiten as whiten
    from rollkit._rows.balance import balance as balance
    from rollkit._rows.balance import fit_cost as fit_cost
    from rollkit._rows.balance import imbalance as imbalance
    from rollkit._rows.online import OnlinePacker as OnlinePacker
    from rollkit._rows.step_plan import StepPlan as StepPlan
    from rollkit._rows.step_plan import plan_steps as plan_steps
    from rollkit._rows.trees import TreeLayout as TreeLayout

__all__ = [
    "Batch",
    "Bins",
    "Forest",
    "Groups",
    "Layout",
    "Ledger",
    "Mixture",
    "Moments",
    "OnlinePacker",
    "Ragged",
    "Rollouts",
    "ShuffledSampler",
    "StepPlan",
    "Totals",
    "TreeLayout",
    "__version__",
    "advantages",
    "balance",
    "clip_weights",
    "concat",
    "fit_cost",
    "gae",
    "imbalance",
    "iter_chunks",
    "labels",
    "loss_totals",
    "loss_weights",
    "mask_overlong",
    "mask_stale",
    "mask_zero_variance",
    "merge_steps",
    "next_token_logprobs",
    "pack",
    "pad",
    "place",
    "plan_bins",
    "plan_steps",
    "read",
    "returns",
    "rollout_metrics",
    "sample_path",
    "save",
    "soft_overlong_penalty",
    "spread_rewards",
    "take",
    "turn_lengths",
    "whiten",
]

_SUBPACKAGES = (
    "compat",
    "datasets",
    "decode",
    "engines",
    "forest",
    "grain",
    "jax",
    "plot",
    "ray",
    "routing",
    "segments",
    "testing",
    "torch",
)

# What the import of the package does not wait for.
_LATER = {
    "Bins": "_loading.bins",
    "Forest": "_rollouts.forest",
    "Ledger": "_loading.ledger",
    "Mixture": "_loading.mixture",
    "Moments": "_rollouts.whiten",
    "OnlinePacker": "_rows.online",
    "ShuffledSampler": "_loading.sampler",
    "StepPlan": "_rows.step_plan",
    "Totals": "_rollouts.totals",
    "TreeLayout": "_rows.trees",
    "advantages": "_rollouts.advantages",
    "balance": "_rows.balance",
    "clip_weights": "_batch.clip",
    "fit_cost": "_rows.balance",
    "gae": "_rollouts.gae",
    "imbalance": "_rows.balance",
    "iter_chunks": "_files.read",
    "loss_totals": "_rollouts.totals",
    "loss_weights": "_rollouts.weights",
    "mask_overlong": "_rollouts.masking",
    "mask_stale": "_rollouts.masking",
    "mask_zero_variance": "_rollouts.masking",
    "merge_steps": "_rollouts.steps",
    "next_token_logprobs": "_rollouts.logprobs",
    "plan_steps": "_rows.step_plan",
    "read": "_files.read",
    "returns": "_rollouts.gae",
    "rollout_metrics": "_rollouts.metrics",
    "sample_path": "_files.read",
    "save": "_files.save",
    "soft_overlong_penalty": "_rollouts.masking",
    "spread_rewards": "_rollouts.masking",
    "turn_lengths": "_rollouts.metrics",
    "whiten": "_rollouts.whiten",
}


def __getattr__(name: str) -> _typing.Any:
    if name in _SUBPACKAGES:
        return _importlib.import_module(f"rollkit.{name}")
    if name in _LATER:
        found = globals()[name] = getattr(_importlib.import_module(f"rollkit.{_LATER[name]}"), name)
        return found
    raise AttributeError(f"module 'rollkit' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_SUBPACKAGES, *_LATER})
