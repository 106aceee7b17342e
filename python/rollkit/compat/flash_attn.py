"""flash-attn's `bert_padding`: padded batches to token streams and back, differentiable.

Same names, arguments and results as `flash_attn.bert_padding`, without flash-attn (and so on the CPU).
"""

from __future__ import annotations

from typing import Any

from rollkit._extras import extra
from rollkit.compat._values import need_tensors, need_values


def index_first_axis(input: Any, indices: Any) -> Any:
    """Take rows of a tensor.

    Args:
        input: `[N, …]`, two axes or more.
        indices: `[M]` int64.

    Returns:
        `[M, …]`.

    Example:
        >>> import torch
        >>> index_first_axis(torch.tensor([[1.0], [2.0], [3.0]]), torch.tensor([2, 0])).flatten().tolist()
        [3.0, 1.0]
    """
    need_tensors(input=input, indices=indices)
    assert input.ndim >= 2, f"input must have two axes or more, got shape {tuple(input.shape)}"
    return input.index_select(0, indices)


def index_put_first_axis(values: Any, indices: Any, first_axis_dim: int) -> Any:
    """Put rows at places of a tensor that is 0 elsewhere.

    Args:
        values: `[M, …]`, two axes or more.
        indices: `[M]` integers.
        first_axis_dim: N.

    Returns:
        `[N, …]`.

    Example:
        >>> import torch
        >>> index_put_first_axis(torch.tensor([[1.0], [2.0]]), torch.tensor([2, 0]), 3).flatten().tolist()
        [2.0, 0.0, 1.0]
    """
    need_tensors(values=values, indices=indices)
    assert indices.ndim == 1, f"indices must have one axis, got shape {tuple(indices.shape)}"
    shape = tuple(values.shape)
    assert len(shape) >= 2, f"values must have two axes or more, got shape {shape}"
    out = values.new_zeros((first_axis_dim, *shape[1:]))
    return out.index_copy(0, indices.long(), values)


def index_first_axis_residual(input: Any, indices: Any) -> tuple[Any, Any]:
    """Take rows of a tensor, and pass it on beside them: what a residual connection adds to later.

    Args:
        input: `[N, …]`, two axes or more.
        indices: `[M]` integers.

    Returns:
        `[M, …]`, and the input: in the same memory, as it is laid out. The gradients of both add up.

    Example:
        >>> import torch
        >>> rows, rest = index_first_axis_residual(torch.tensor([[1.0], [2.0]]), torch.tensor([1]))
        >>> rows.tolist(), rest.tolist()
        ([[2.0]], [[1.0], [2.0]])
    """
    return index_first_axis(input, indices), input.view_as(input)


def rearrange(tensor: Any, pattern: str, **axes_lengths: int) -> Any:
    """`einops.rearrange`, which flash-attn's module has too and verl imports from there.

    Args:
        tensor: a tensor.
        pattern: its axes before and after, as einops reads them.
        **axes_lengths: lengths of axes that the pattern names.

    Returns:
        The tensor with axes as after the arrow.

    Raises:
        ModuleNotFoundError: einops is not installed.
    """
    return extra("einops", "einops").rearrange(tensor, pattern, **axes_lengths)


def unpad_input(
    hidden_states: Any, attention_mask: Any, unused_mask: Any = None
) -> tuple[Any, Any, Any, int, Any]:
    """Take the tokens of a batch that a mask selects.

    Args:
        hidden_states: `[B, T, …]`.
        attention_mask: `[B, T]` bool or integers, 1 where a token is.
        unused_mask: `[B, T]`, 1 where a token has a place but is not used.

    Returns:
        `[tokens, …]`; int64 `[tokens]`, their places in the flattened batch; int32 `[B + 1]` cu_seqlens;
        the longest row, a Python int; and int32 `[B]`, the used tokens of each row.

    Example:
        >>> import torch
        >>> mask = torch.tensor([[1, 1, 0], [0, 1, 0]])
        >>> _, indices, cu_seqlens, longest, used = unpad_input(torch.zeros(2, 3, 4), mask)
        >>> indices.tolist(), cu_seqlens.tolist(), longest, used.tolist()
        ([0, 1, 4], [0, 2, 3], 2, [2, 1])
    """
    torch = extra("torch", "torch")
    need_tensors(hidden_states=hidden_states)
    need_values("attention_mask", attention_mask)
    attention_mask = attention_mask.detach()  # counts have no gradient
    placed = attention_mask if unused_mask is None else attention_mask + unused_mask
    lengths = placed.sum(dim=-1, dtype=torch.int32)
    used = attention_mask.sum(dim=-1, dtype=torch.int32)
    return (*_unpadded(torch, hidden_states, placed.flatten(), lengths), used)


def unpad_input_for_concatenated_sequences(
    hidden_states: Any, attention_mask_in_length: Any
) -> tuple[Any, Any, Any, int]:
    """Take the tokens of a batch whose rows hold several sequences, end to end from their first column.

    Args:
        hidden_states: `[B, T, …]`.
        attention_mask_in_length: `[B, T]` integers: each row lists the lengths of its sequences, then 0.

    Returns:
        `[tokens, …]`; int64 `[tokens]`, their places in the flattened batch; int32 `[sequences + 1]`
        cu_seqlens; and the longest sequence, a Python int.

    Example:
        >>> import torch
        >>> lengths = torch.tensor([[2, 1, 0, 0], [3, 0, 0, 0]])
        >>> _, indices, cu_seqlens, longest = unpad_input_for_concatenated_sequences(
        ...     torch.zeros(2, 4, 1), lengths
        ... )
        >>> indices.tolist(), cu_seqlens.tolist(), longest
        ([0, 1, 2, 4, 5, 6], [0, 2, 3, 6], 3)
    """
    torch = extra("torch", "torch")
    need_tensors(hidden_states=hidden_states)
    need_values("attention_mask_in_length", attention_mask_in_length)
    lengths = attention_mask_in_length.detach()
    columns = torch.arange(lengths.shape[-1], device=lengths.device)
    placed = columns < lengths.sum(dim=-1, keepdim=True)
    return _unpadded(torch, hidden_states, placed.flatten(), lengths[lengths != 0])


def pad_input(hidden_states: Any, indices: Any, batch: int, seqlen: int) -> Any:
    """Put tokens back where they were in a batch, and 0 elsewhere: undoes `unpad_input`.

    Args:
        hidden_states: `[tokens, …]`, two axes or more.
        indices: `[tokens]` integers, places in the flattened batch.
        batch: B.
        seqlen: T.

    Returns:
        `[B, T, …]`.

    Example:
        >>> import torch
        >>> pad_input(torch.tensor([[1.0], [2.0]]), torch.tensor([0, 3]), 2, 2).squeeze(-1)
        tensor([[1., 0.],
                [0., 2.]])
    """
    return index_put_first_axis(hidden_states, indices, batch * seqlen).unflatten(0, (batch, seqlen))


def _unpadded(torch: Any, hidden: Any, placed: Any, lengths: Any) -> tuple[Any, Any, Any, int]:
    indices = torch.nonzero(placed, as_tuple=False).flatten()
    sums = torch.nn.functional.pad(torch.cumsum(lengths, dim=0, dtype=torch.int32), (1, 0))
    return index_first_axis(hidden.flatten(0, 1), indices), indices, sums, int(lengths.max())
