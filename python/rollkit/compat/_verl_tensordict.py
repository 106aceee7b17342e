"""Rollouts as the jagged `TensorDict` of verl's v1 trainer, and back, over the same memory."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import numpy as np

from rollkit import _native
from rollkit._check import Int64s, same_ints
from rollkit._errors import at, refusal
from rollkit._extras import extra
from rollkit._frameworks import Tensor, framework_of
from rollkit._rollouts.columns import Column, level_of
from rollkit._rollouts.fields import FIELDS
from rollkit._rollouts.rewards import last_tokens
from rollkit._rollouts.rollouts import Rollouts
from rollkit._rollouts.sources import Source, as_rollouts
from rollkit._rows.layout import Layout
from rollkit._rows.parts import Parts, place_parts
from rollkit._rows.ragged import Ragged, trusted
from rollkit.compat._jagged import jagged, tensor_of, values_of

_THEIRS: Final = {
    "prompt_token_ids": "prompts",
    "response_ids": "responses",
    "loss_masks": "response_mask",
    "rewards": "rm_scores",
    "rollout_logprobs": "rollout_log_probs",
    "rollout_expert_indices": "routed_experts",
    "instance_ids": "uid",
}
_OURS: Final = {theirs: ours for ours, theirs in _THEIRS.items()}
_INT64: Final = np.dtype(np.int64)


def to_tensordict(rollouts: Source) -> Any:
    """View rollouts as verl's v1 trainer holds them: a `TensorDict` of jagged nested tensors.

    Columns get verl's names: `prompts`, `responses`, `response_mask`, `rollout_log_probs`, `routed_experts`,
    `rm_scores` (of `rewards`) and `uid` (of `instance_ids`); others keep their own. Rows of elements become
    nested tensors and numbers per row tensors, both over the same memory and in the dtype that they have;
    texts and objects a `NonTensorStack`. Nested tensors whose rows are as long share their offsets, so that
    torch takes them in one expression.

    Made anew are what verl's workers read besides: `input_ids` of prompt and response and `position_ids`,
    both int64, and `loss_mask`, which is `response_mask`; not where there is a column of the name. So are
    `rm_scores` of a reward per row, which lands on the last token of the response, and `routed_experts` that
    end before the last token, whose missing rows are 0 as verl's.

    Args:
        rollouts: `Rollouts`, or what can be taken for some.

    Returns:
        A `tensordict.TensorDict` with one batch dimension, the rows.

    Raises:
        TypeError: a column has a list for each element, or a dtype that torch has none like, or is of another
            framework; it is named.
        ValueError: a known column is not of its tokens' lengths, a reward has no token to land on, or two
            columns would have one name.

    Example:
        >>> rollouts = Rollouts({
        ...     "prompt_token_ids": [[1, 2], [3]],
        ...     "response_ids": [[4], [5, 6]],
        ...     "loss_masks": [[1], [1, 0]],
        ...     "instance_ids": ["a", "b"],
        ... })
        >>> data = to_tensordict(rollouts)
        >>> sorted(data.keys())
        ['input_ids', 'loss_mask', 'position_ids', 'prompts', 'response_mask', 'responses', 'uid']
        >>> data["input_ids"].values(), data["input_ids"].offsets()
        (tensor([1, 2, 4, 3, 5, 6]), tensor([0, 3, 6]))
        >>> data["responses"].values().data_ptr() == rollouts["response_ids"].values.ctypes.data
        True
    """
    tensordict = extra("tensordict", "torch")
    rollouts = as_rollouts(rollouts)
    columns = _with_theirs(rollouts.columns)
    outs = _Tensors(tensordict)
    found = {}
    for name, column in columns.items():
        theirs = _their_name(name, columns)
        with at(column=name):
            found[theirs] = outs.of_axes(column) if _has_axes(name, column) else outs.of(column)
    if "response_mask" in found:
        found.setdefault("loss_mask", found["response_mask"])
    return tensordict.TensorDict(found, batch_size=[len(rollouts)])


def from_tensordict(data: Mapping[str, Any]) -> Rollouts:
    """View a jagged `TensorDict`, such as verl's v1 trainer and TransferQueue hold, as rollouts.

    Names become rollkit's, as `to_tensordict` has them; others stay, those of what `to_tensordict` makes
    anew among them (`rollouts.drop("input_ids", "position_ids", "loss_mask")` leaves these out). Nothing is
    copied but nested tensors with holes, and objects: a `NonTensorStack` becomes a list, and `NonTensorData`,
    which is of every row, a list of it.

    Args:
        data: a `TensorDict` with one batch dimension, or a dict of such columns.

    Raises:
        TypeError: a column is neither a tensor nor non-tensor data; it is named.
        ValueError: the batch is padded: it has an `attention_mask` that is not nested; or it has not one
            batch dimension.

    Example:
        >>> import torch
        >>> jagged = torch.nested.nested_tensor_from_jagged
        >>> data = {"responses": jagged(torch.tensor([4, 5, 6]), torch.tensor([0, 1, 3])), "uid": ["a", "b"]}
        >>> rollouts = from_tensordict(data)
        >>> rollouts
        Rollouts(2 rows: response_ids int64, instance_ids list)
        >>> rollouts["response_ids"].values.ctypes.data == data["responses"].values().data_ptr()
        True
    """
    if not isinstance(data, Mapping) and not (hasattr(data, "batch_size") and hasattr(data, "get")):
        raise TypeError(f"data must be a TensorDict, or a dict of columns, got {type(data).__name__}")
    if len(batch_size := getattr(data, "batch_size", (0,))) != 1:
        raise ValueError(f"data must have one batch dimension, its rows; got batch_size {list(batch_size)}")
    mask = data.get("attention_mask", None)
    if mask is not None and not getattr(mask, "is_nested", False):
        text = (
            "it is not nested, so this batch is padded; from_tensordict takes jagged columns: "
            "response_to_nested takes the padding off"
        )
        raise refusal(ValueError, text, column="attention_mask")
    columns = {}
    for theirs in data.keys():  # noqa: SIM118 - iterating over a TensorDict gives rows
        name = _OURS.get(theirs, theirs)
        if name in columns or (name != theirs and name in data.keys()):  # noqa: SIM118 - likewise
            raise _both(theirs, name, name)
        with at(column=str(theirs)):
            columns[name] = _column_of(data.get(theirs))
    return Rollouts(columns)


def _with_theirs(columns: Mapping[str, Column]) -> dict[str, Any]:
    """The columns, with what verl's workers read besides, and as long as they take them for."""
    found: dict[str, Any] = dict(columns)
    prompts, responses = found.get("prompt_token_ids"), found.get("response_ids")
    if "rewards" in found and not isinstance(found["rewards"], Ragged):
        found["rewards"] = _token_rewards(found["rewards"], responses)
    if isinstance(prompts, Ragged) and isinstance(responses, Ragged):
        for name in FIELDS.keys() & found.keys():
            lengths = found[name].lengths if isinstance(found[name], Ragged) else None
            level_of(name, lengths, prompts.lengths, responses.lengths)
        if "input_ids" not in found:
            found["input_ids"] = _joined(prompts, responses)
    sequences = found.get("input_ids")
    if isinstance(sequences, Ragged):
        if "position_ids" not in found:
            found["position_ids"] = _positions(sequences)
        if "rollout_expert_indices" in found:
            found["rollout_expert_indices"] = _whole(found["rollout_expert_indices"], sequences)
    return found


def _their_name(name: str, columns: Mapping[str, Any]) -> str:
    theirs = _THEIRS.get(name, name)
    if theirs != name and theirs in columns:
        raise _both(name, theirs, theirs)
    return theirs


def _both(one: str, other: str, name: str) -> ValueError:
    text = f"columns {one!r} and {other!r} would both be {name!r}; drop or rename one"
    return refusal(ValueError, text, column=one, label="")


def _token_rewards(rewards: Any, responses: Any) -> Ragged:
    """Rewards per row, each on the last token of its response."""
    if not isinstance(responses, Ragged):
        text = (
            "there is one per row, and no 'response_ids' whose last token it would be on; give one per token"
        )
        raise refusal(ValueError, text, column="rewards")
    numbers, layout = np.asarray(rewards), Layout.concat(responses.lengths)
    with at(column="rewards"):
        placed = last_tokens(numbers, layout)
        values = place_parts(Parts.one_each(numbers), placed, 0, dtype=np.float32)
    return trusted(values, layout.offsets())


def _joined(prompts: Ragged, responses: Ragged) -> Ragged:
    """Prompt and response of each row, end to end."""
    offsets = _native.offsets_from_lengths(prompts.lengths + responses.lengths)
    starts = np.concatenate([offsets[:-1], offsets[:-1] + prompts.lengths])
    both = Parts.join([prompts.parts(), responses.parts()], ["prompt_token_ids", "response_ids"])
    layout = Layout.at((int(offsets[-1]),), starts, both.lengths)
    return trusted(place_parts(both, layout, 0, dtype=_INT64), offsets)


def _positions(sequences: Ragged) -> Ragged:
    layout = Layout.concat(sequences.lengths)
    return trusted(layout.positions().astype(np.int64), layout.offsets())


def _whole(routes: Any, sequences: Ragged) -> Any:
    """Routes of every token: verl looks them up by the token's place."""
    if not isinstance(routes, Ragged) or same_ints(routes.lengths, sequences.lengths):
        return routes
    layout = Layout.concat(sequences.lengths)
    begun = Layout.at(layout.shape, layout.starts, routes.lengths)
    return trusted(place_parts(routes.parts(), begun, 0), layout.offsets())


def _has_axes(name: str, column: Any) -> bool:
    """Whether there is a position per axis: verl has the tokens behind the axes then."""
    return name == "position_ids" and isinstance(column, Ragged) and len(column.inner) == 1


class _Tensors:
    """Columns as a `TensorDict` holds them."""

    def __init__(self, tensordict: Any) -> None:
        self.tensordict = tensordict
        self.offsets: list[tuple[Int64s, Any]] = []
        """Those of the nested tensors so far: on the host, and where the values are."""

    def of(self, column: Any) -> Any:
        if isinstance(column, Ragged):
            if column.of_lists:
                raise TypeError(
                    "it has a list for each element, which no jagged tensor holds; drop it, or save it"
                )
            return self._jagged(values_of(column), column)
        if isinstance(column, np.ndarray) and column.dtype.kind not in "USO":
            return tensor_of(column)
        entries = column.tolist() if isinstance(column, np.ndarray) else column
        return self.tensordict.NonTensorStack(*entries)

    def of_axes(self, column: Ragged) -> Any:
        """Positions `[tokens, axes]`, which `from_tensordict` has turned, turned back."""
        flat: Any = column.flat
        values = tensor_of(flat.T) if isinstance(flat, np.ndarray) else flat.T
        return self._jagged(values, column, jagged_dim=2)

    def _jagged(self, values: Tensor, column: Ragged, jagged_dim: int = 1) -> Tensor:
        return jagged(values, self._offsets(column, values.device), column.lengths, jagged_dim)

    def _offsets(self, column: Ragged, device: Any) -> Tensor:
        own = column.offsets - column.offsets[0]
        for offsets, tensor in self.offsets:
            if tensor.device == device and same_ints(offsets, own):
                return tensor
        tensor = extra("torch", "torch").from_numpy(own).to(device)
        self.offsets.append((own, tensor))
        return tensor


def _column_of(found: Any) -> Any:
    """What a column of rollouts is made of."""
    if framework_of(found) == "torch":
        turned = found.is_nested and found.layout == extra("torch", "torch").jagged and found._ragged_idx == 2
        if turned and found.lengths() is None and found.dim() == 3:
            return Ragged(found.values().T, found.offsets().cpu().numpy().astype(np.int64))
        return found
    if not hasattr(found, "batch_size"):
        return found
    tensordict = extra("tensordict", "torch")
    if isinstance(found, tensordict.NonTensorStack):
        return found.tolist()
    if not isinstance(found, tensordict.NonTensorData) or len(found.batch_size) != 1:
        raise TypeError(
            f"it is a {type(found).__name__} of batch_size {list(found.batch_size)}; rollouts hold tensors "
            "and non-tensor data of the rows: drop it, or make it a NonTensorStack of a dict per row"
        )
    rows = found.batch_size[0]
    of_rows = isinstance(found.data, np.ndarray) and found.data.shape[:1] == (rows,)
    return list(found.data) if of_rows else [found.data] * rows
