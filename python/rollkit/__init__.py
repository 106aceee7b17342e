"""The data path between LLM rollouts and the training step: every token is written once.

    rows ──► Layout (from lengths alone) ──► place(column, layout, fill) per column ──► Batch
    model output ──► take(output, layout) ──► rows again

Importing rollkit imports NumPy and nothing else.
"""

from rollkit._advantages import advantages as advantages
from rollkit._batch import Batch as Batch
from rollkit._batch import pack as pack
from rollkit._batch import pad as pad
from rollkit._binpack import plan_bins as plan_bins
from rollkit._groups import Groups as Groups
from rollkit._io import iter_chunks as iter_chunks
from rollkit._io import read as read
from rollkit._io import sample_path as sample_path
from rollkit._layout import Layout as Layout
from rollkit._masking import mask_overlong as mask_overlong
from rollkit._masking import mask_zero_variance as mask_zero_variance
from rollkit._masking import spread_rewards as spread_rewards
from rollkit._metrics import rollout_metrics as rollout_metrics
from rollkit._metrics import turn_lengths as turn_lengths
from rollkit._native import __version__ as __version__
from rollkit._place import concat as concat
from rollkit._place import place as place
from rollkit._place import take as take
from rollkit._ragged import Ragged as Ragged
from rollkit._rollouts import Rollouts as Rollouts
from rollkit._steps import merge_steps as merge_steps

__all__ = [
    "Batch",
    "Groups",
    "Layout",
    "Ragged",
    "Rollouts",
    "__version__",
    "advantages",
    "concat",
    "iter_chunks",
    "mask_overlong",
    "mask_zero_variance",
    "merge_steps",
    "pack",
    "pad",
    "place",
    "plan_bins",
    "read",
    "rollout_metrics",
    "sample_path",
    "spread_rewards",
    "take",
    "turn_lengths",
]
