"""Slow, obvious versions of what rollkit does fast, and strategies that draw their input, for your tests too.

Rows and batches, orders, and segments, are here by name; `rollkit.testing.decode` is imported by itself.
The strategies need hypothesis, which is imported when one is called.
"""

from rollkit.testing.balance import balance_reference as balance_reference
from rollkit.testing.balance import differencing_reference as differencing_reference
from rollkit.testing.balance import even_nodes_reference as even_nodes_reference
from rollkit.testing.batches import labels_reference as labels_reference
from rollkit.testing.batches import next_token_logprobs_reference as next_token_logprobs_reference
from rollkit.testing.batches import pack_reference as pack_reference
from rollkit.testing.batches import pad_reference as pad_reference
from rollkit.testing.forest import forest_rows as forest_rows
from rollkit.testing.forest import shared_reference as shared_reference
from rollkit.testing.forest import tree_mask_reference as tree_mask_reference
from rollkit.testing.forest import visible_reference as visible_reference
from rollkit.testing.isolation import check_isolation as check_isolation
from rollkit.testing.losses import gae_reference as gae_reference
from rollkit.testing.losses import objective_reference as objective_reference
from rollkit.testing.losses import returns_reference as returns_reference
from rollkit.testing.orders import OnlinePackerReference as OnlinePackerReference
from rollkit.testing.orders import permuted_reference as permuted_reference
from rollkit.testing.rows import attention_mask_reference as attention_mask_reference
from rollkit.testing.rows import concat_reference as concat_reference
from rollkit.testing.rows import pack_starts_reference as pack_starts_reference
from rollkit.testing.rows import pieces_reference as pieces_reference
from rollkit.testing.rows import place_reference as place_reference
from rollkit.testing.rows import plan_bins_reference as plan_bins_reference
from rollkit.testing.rows import positions_reference as positions_reference
from rollkit.testing.rows import segment_ids_reference as segment_ids_reference
from rollkit.testing.rows import shard_reference as shard_reference
from rollkit.testing.rows import take_reference as take_reference
from rollkit.testing.segments import attended_reference as attended_reference
from rollkit.testing.segments import mask_reference as mask_reference
from rollkit.testing.segments import pairs_reference as pairs_reference
from rollkit.testing.segments import run_lengths_reference as run_lengths_reference
from rollkit.testing.segments import thd_cases as thd_cases
from rollkit.testing.segments import thd_reference as thd_reference
from rollkit.testing.strategies import DTYPES as DTYPES
from rollkit.testing.strategies import layouts as layouts
from rollkit.testing.strategies import lengths as lengths
from rollkit.testing.strategies import raggeds as raggeds
from rollkit.testing.strategies import rollout_rows as rollout_rows
from rollkit.testing.strategies import rollouts as rollouts
from rollkit.testing.tables import pack_table_reference as pack_table_reference
from rollkit.testing.ways import ways as ways

__all__ = [
    "DTYPES",
    "OnlinePackerReference",
    "attended_reference",
    "attention_mask_reference",
    "balance_reference",
    "check_isolation",
    "concat_reference",
    "differencing_reference",
    "even_nodes_reference",
    "forest_rows",
    "gae_reference",
    "labels_reference",
    "layouts",
    "lengths",
    "mask_reference",
    "next_token_logprobs_reference",
    "objective_reference",
    "pack_reference",
    "pack_starts_reference",
    "pack_table_reference",
    "pad_reference",
    "pairs_reference",
    "permuted_reference",
    "pieces_reference",
    "place_reference",
    "plan_bins_reference",
    "positions_reference",
    "raggeds",
    "returns_reference",
    "rollout_rows",
    "rollouts",
    "run_lengths_reference",
    "segment_ids_reference",
    "shard_reference",
    "shared_reference",
    "take_reference",
    "thd_cases",
    "thd_reference",
    "tree_mask_reference",
    "visible_reference",
    "ways",
]
