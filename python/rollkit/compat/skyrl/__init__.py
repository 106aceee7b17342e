"""SkyRL's generator-output functions (NovaSky-AI/SkyRL, main of August 2026), on columns.

Signatures, results, exception types and the patterns of messages are SkyRL's. Besides lists they take
NumPy rows, CPU tensors and `rollkit.Ragged` columns; a column of `Ragged` parts stays one.
"""

from rollkit.compat.skyrl._checks import validate_generator_output as validate_generator_output
from rollkit.compat.skyrl._collate import compute_prompt_boundaries as compute_prompt_boundaries
from rollkit.compat.skyrl._collate import (
    convert_prompts_responses_to_batch_tensors as convert_prompts_responses_to_batch_tensors,
)
from rollkit.compat.skyrl._outputs import concatenate_generator_outputs as concatenate_generator_outputs
from rollkit.compat.skyrl._outputs import merge_stepwise_output as merge_stepwise_output
from rollkit.compat.skyrl._outputs import slice_generator_output as slice_generator_output
from rollkit.compat.skyrl._packed import from_packed as from_packed
from rollkit.compat.skyrl._packed import to_packed as to_packed
from rollkit.compat.skyrl._routes import compact_routed_expert_indices as compact_routed_expert_indices
from rollkit.compat.skyrl._routes import make_replay_padding_indices_np as make_replay_padding_indices_np
from rollkit.compat.skyrl._routes import make_router_padding_mask as make_router_padding_mask
from rollkit.compat.skyrl._stats import apply_overlong_filtering as apply_overlong_filtering
from rollkit.compat.skyrl._stats import compute_turn_token_counts as compute_turn_token_counts
from rollkit.compat.skyrl._stats import get_rollout_metrics as get_rollout_metrics

__all__ = [
    "apply_overlong_filtering",
    "compact_routed_expert_indices",
    "compute_prompt_boundaries",
    "compute_turn_token_counts",
    "concatenate_generator_outputs",
    "convert_prompts_responses_to_batch_tensors",
    "from_packed",
    "get_rollout_metrics",
    "make_replay_padding_indices_np",
    "make_router_padding_mask",
    "merge_stepwise_output",
    "slice_generator_output",
    "to_packed",
    "validate_generator_output",
]
