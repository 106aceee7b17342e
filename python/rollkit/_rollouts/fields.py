"""The fields of a rollout: one row a field. Unknown columns need none, they pass through."""

from dataclasses import dataclass
from typing import Any, Final

import numpy as np


@dataclass(frozen=True, eq=False, repr=False, slots=True)
class Field:
    """How a known column is stored and batched.

    Attributes:
        dtype: what its numbers are kept as; None keeps what comes.
        per: what a row has one element for: `"prompt"`, `"response"`, `"sequence"` (prompt and
            response) tokens, `"response or sequence"` tokens, by the lengths of the rows, `"token or row"`
            of the response, or nothing (`"row"`).
        short: rows may end before the last token: engines send no routes for it, nor for what they add
            to a response without a look by the model.
        fill: what tokens get that have no element: padding, and what is not the response.
        whole: floats are refused: these are numbers of something.
        lists: each element is a list of its own length.
    """

    dtype: np.dtype[Any] | None
    per: str
    short: bool = False
    fill: int = 0
    whole: bool = False
    lists: bool = False

    @property
    def level(self) -> str | None:
        """What the name alone says: which tokens a row of elements is of; None where its length tells."""
        return {"token or row": "response", "response or sequence": None}.get(self.per, self.per)

    @property
    def is_per_token(self) -> bool:
        """Whether a row always has an element per token."""
        return "row" not in self.per


_INT32 = np.dtype(np.int32)
_UINT8 = np.dtype(np.uint8)
_FLOAT32 = np.dtype(np.float32)
_INT64 = np.dtype(np.int64)

FIELDS: Final[dict[str, Field]] = {
    "prompt_token_ids": Field(_INT32, "prompt", whole=True),
    "response_ids": Field(_INT32, "response", whole=True),
    "input_ids": Field(_INT32, "sequence", whole=True),
    "loss_masks": Field(_UINT8, "response"),
    "rewards": Field(_FLOAT32, "token or row"),
    "rollout_logprobs": Field(_FLOAT32, "response"),
    "rollout_expert_indices": Field(None, "sequence", short=True, whole=True),
    "labels": Field(_INT64, "response or sequence", fill=-100, whole=True),
    "loss_weights": Field(_FLOAT32, "response"),
    "values": Field(_FLOAT32, "response"),
    "returns": Field(_FLOAT32, "response"),
    "old_logprobs": Field(_FLOAT32, "response"),
    "ref_logprobs": Field(_FLOAT32, "response"),
    "route_masks": Field(_UINT8, "sequence", fill=1),
    "model_versions": Field(_INT32, "response", fill=-1, whole=True),
    "sampling_masks": Field(_INT32, "response", whole=True, lists=True),
    "sampling_mask": Field(_INT32, "response", whole=True, lists=True),
    "kept_token_ids": Field(_INT32, "response", whole=True, lists=True),
    "is_last_step": Field(np.dtype(bool), "row"),
}


def narrow(name: str, dtype: np.dtype[Any]) -> np.dtype[Any]:
    """The dtype a column has in a batch unless asked otherwise."""
    field = FIELDS.get(name)
    if field is not None and field.dtype is not None:
        return field.dtype
    return _FLOAT32 if dtype == np.float64 else dtype


def fill_of(name: str, inner: tuple[int, ...] = ()) -> Any:
    """What a column's tokens get that have no element, unless asked otherwise. Elements have shape `inner`.

    A row of routes names no expert twice, which dropless dispatch cannot take: experts 0, 1, … in every
    layer. Such rows are marked by 1 in `route_masks`.
    """
    if name == "rollout_expert_indices" and inner and inner[-1] > 1:
        return range(inner[-1])  # immutable, so that its element is made once
    field = FIELDS.get(name)
    return 0 if field is None else field.fill
