"""The fields of a rollout: one row a field. Unknown columns need none, they pass through."""

from dataclasses import dataclass
from typing import Any, Final

import numpy as np


@dataclass(frozen=True, slots=True)
class Field:
    """How a known column is stored and batched.

    Attributes:
        dtype: what its numbers are kept as; None keeps what comes.
        per: what a row has one element for: `"prompt"`, `"response"`, `"sequence"` (prompt and
            response) tokens, `"token or row"` of the response, or nothing (`"row"`).
        short: rows may end before the last token: engines send no routes for it, nor for what they add
            to a response without a look by the model.
        whole: floats are refused: these are numbers of something.
    """

    dtype: np.dtype[Any] | None
    per: str
    short: bool = False
    whole: bool = False


_INT32 = np.dtype(np.int32)
_UINT8 = np.dtype(np.uint8)
_FLOAT32 = np.dtype(np.float32)

FIELDS: Final[dict[str, Field]] = {
    "prompt_token_ids": Field(_INT32, "prompt", whole=True),
    "response_ids": Field(_INT32, "response", whole=True),
    "input_ids": Field(_INT32, "sequence", whole=True),
    "loss_masks": Field(_UINT8, "response"),
    "rewards": Field(_FLOAT32, "token or row"),
    "rollout_logprobs": Field(_FLOAT32, "response"),
    "rollout_expert_indices": Field(None, "sequence", short=True, whole=True),
    "is_last_step": Field(np.dtype(bool), "row"),
}

PER_TOKEN_LISTS: Final = ("sampling_mask", "sampling_masks", "kept_token_ids")
"""Columns that have a list for each token, whose lengths may be equal by chance: no inner dimension."""


def narrow(name: str, dtype: np.dtype[Any]) -> np.dtype[Any]:
    """The dtype a column has in a batch unless asked otherwise."""
    field = FIELDS.get(name)
    if field is not None and field.dtype is not None:
        return field.dtype
    return _FLOAT32 if dtype == np.float64 else dtype
