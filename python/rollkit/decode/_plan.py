"""What `sample` was asked for, checked, as every backend takes it."""

from __future__ import annotations

import numbers
from dataclasses import dataclass
from typing import Any, Final

from rollkit.decode.allowed import AllowedSet

OFF: Final = {"top_k": 0, "top_p": 1.0, "min_p": 0.0}


@dataclass(frozen=True, slots=True)
class Plan:
    """The arguments of `sample`; parameters are numbers, or arrays of one per row."""

    cond: Any
    uncond: Any
    allowed: AllowedSet
    full: bool
    cfg_scale: Any
    temperature: Any
    top_k: Any
    top_p: Any
    min_p: Any
    seeds: Any
    positions: Any
    noise: Any
    order: str
    logprobs: str
    return_kept: bool

    def off(self, name: str) -> bool:
        """Whether a filter is off for all rows, told without looking at arrays."""
        value = getattr(self, name)
        return isinstance(value, numbers.Number) and value == OFF[name]

    def compact(self, matrix: Any) -> Any:
        """Return the allowed columns of a matrix shaped like the logits."""
        return self.allowed.compact(matrix) if self.full and matrix is not None else matrix
