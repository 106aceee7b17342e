"""Masks by names of other frameworks, which mask nothing here: a warning."""

from collections.abc import Collection
from typing import Final

from rollkit._errors import warn

OTHER_MASKS: Final = (
    "loss_mask",
    "assistant_masks",
    "assistant_mask",
    "assistant_tokens_mask",
    "completion_mask",
    "response_mask",
    "response_masks",
    "action_mask",
)


def warn_of_other_masks(columns: Collection[str]) -> None:
    """Warn where nothing says which tokens count, so that all of a response do, but such a mask is there."""
    if "loss_masks" in columns or "labels" in columns:
        return
    other = next((name for name in OTHER_MASKS if name in columns), None)
    if other is not None:
        warn(
            f"column {other!r} masks nothing, and all of each response counts: masks are called loss_masks "
            f'here; rename it: {{"{other}": "loss_masks"}}'
        )
