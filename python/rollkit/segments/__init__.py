"""Segments and the metadata that attention kernels take, exact and O(T), on Rust, JAX and torch.

    segment ids ──► runs ──► seqlens, offsets, cu_seqlens, positions, masks
    ids and positions of q and kv ──► thd

Segment ids are integers `[T]` or `[B, T]`: 0 is padding, segments are positive. A *run* is a longest
stretch of one id within a row; everything else is read off runs.
"""

from rollkit.segments._adapters import flash_attention_kwargs as flash_attention_kwargs
from rollkit.segments._adapters import flash_attn_varlen as flash_attn_varlen
from rollkit.segments._adapters import flash_linear_attention as flash_linear_attention
from rollkit.segments._adapters import grain_columns as grain_columns
from rollkit.segments._adapters import mamba as mamba
from rollkit.segments._adapters import maxtext_columns as maxtext_columns
from rollkit.segments._adapters import packed_seq_params as packed_seq_params
from rollkit.segments._adapters import te_ids_and_positions as te_ids_and_positions
from rollkit.segments._adapters import te_seqlens_and_offsets as te_seqlens_and_offsets
from rollkit.segments._cp import CPPadding as CPPadding
from rollkit.segments._cp import CPShard as CPShard
from rollkit.segments._cp import cp_inverse_reorder as cp_inverse_reorder
from rollkit.segments._cp import cp_pad as cp_pad
from rollkit.segments._cp import cp_partition as cp_partition
from rollkit.segments._cp import cp_reorder as cp_reorder
from rollkit.segments._cp import cp_restore as cp_restore
from rollkit.segments._ids import from_positions as from_positions
from rollkit.segments._ids import segment_ids as segment_ids
from rollkit.segments._ids import segment_ids_from_cu_seqlens as segment_ids_from_cu_seqlens
from rollkit.segments._ids import segment_positions as segment_positions
from rollkit.segments._masks import block_mask as block_mask
from rollkit.segments._masks import dense_mask as dense_mask
from rollkit.segments._masks import splash_segment_ids as splash_segment_ids
from rollkit.segments._runs import Runs as Runs
from rollkit.segments._runs import cu_seqlens as cu_seqlens
from rollkit.segments._runs import cu_seqlens_padded as cu_seqlens_padded
from rollkit.segments._runs import max_seqlen as max_seqlen
from rollkit.segments._runs import offsets as offsets
from rollkit.segments._runs import positions as positions
from rollkit.segments._runs import run_length_fill as run_length_fill
from rollkit.segments._runs import runs as runs
from rollkit.segments._runs import seqlens as seqlens
from rollkit.segments._thd import THD as THD
from rollkit.segments._thd import thd as thd
from rollkit.segments._trees import flashmask_indices as flashmask_indices
from rollkit.segments._trees import magi_ranges as magi_ranges
from rollkit.segments._trees import tree_varlen as tree_varlen
