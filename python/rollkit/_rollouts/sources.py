"""What batches are made of: the token columns of one or several sources, their rows counted through."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from rollkit._check import Int64s
from rollkit._rollouts.fields import FIELDS, narrow
from rollkit._rollouts.rollouts import Rollouts, as_column, is_rows, token_columns
from rollkit._rows.parts import Parts
from rollkit._rows.place import parts_of

Source = Rollouts | Mapping[str, Any]
"""Rollouts, or a `GeneratorOutput`-shaped dict: token columns as lists, arrays or tensors."""


@dataclass(frozen=True, slots=True)
class Sources:
    """The columns of all sources, rows counted through."""

    prompts: Parts | None
    responses: Parts
    tokens: dict[str, Parts]
    rows: dict[str, Any]

    @classmethod
    def of(cls, rollouts: Source | Sequence[Source]) -> Sources:
        if not hasattr(rollouts, "__iter__"):
            raise TypeError(
                "rollouts must be Rollouts, a GeneratorOutput-shaped dict or a sequence of them, got "
                f"{type(rollouts).__name__}"
            )
        sources = [rollouts] if isinstance(rollouts, Rollouts | Mapping) else list(rollouts)
        if not sources:
            raise ValueError("rollouts is empty; give at least one part")
        columns = [_columns(i, source) for i, source in enumerate(sources)]
        tokens: dict[str, Parts] = {}
        rows: dict[str, Any] = {}
        for i, part in enumerate(columns):
            if part.keys() != columns[0].keys():
                odd = ", ".join(map(repr, sorted(part.keys() ^ columns[0].keys())))
                raise ValueError(f"rollouts[{i}] and rollouts[0] differ in columns: {odd}")
        for name in columns[0]:
            found = [part[name] for part in columns]
            if _per_token(name, found):
                try:
                    tokens[name] = _named_parts(name, found)
                    continue
                except (TypeError, ValueError):
                    if name in FIELDS:
                        raise  # others may be lists of texts or of objects, one per row
            rows[name] = _joined_rows(name, found)
        prompts = tokens.pop("prompt_token_ids", None)
        main = "response_ids" if "response_ids" in tokens else "input_ids"
        if main not in tokens:
            raise ValueError("rollouts need a column 'response_ids' (or 'input_ids') of token ids")
        if main == "input_ids" and prompts is not None:
            raise ValueError("'input_ids' holds whole sequences; 'prompt_token_ids' goes with 'response_ids'")
        responses = tokens.pop(main)
        if prompts is not None and len(prompts.lengths) != len(responses.lengths):
            raise ValueError(
                f"'prompt_token_ids' has {len(prompts.lengths)} rows, {main!r} has {len(responses.lengths)}"
            )
        for name, entries in rows.items():
            if len(entries) != len(responses.lengths):
                raise ValueError(
                    f"column {name!r} has {len(entries)} rows, {main!r} has {len(responses.lengths)}"
                )
        return cls(prompts, responses, tokens, rows)

    @property
    def prompt_lengths(self) -> Int64s:
        if self.prompts is None:
            return np.zeros_like(self.responses.lengths)
        return self.prompts.lengths

    @property
    def lengths(self) -> Int64s:
        """Tokens of each rollout: prompt and response."""
        return self.prompt_lengths + self.responses.lengths

    def level(self, name: str) -> str:
        """What a token column has an element for: `"response"`, `"sequence"` or `"prompt"` tokens."""
        found = self.tokens[name].lengths
        known = FIELDS.get(name)
        if known is not None and known.short:
            odd = (found > self.lengths) | ((found == 0) & (self.lengths > 1))
            if not odd.any():
                return "sequence"
            row = int(odd.argmax())
            raise ValueError(
                f"column {name!r}: row {row} has {found[row]} elements for {self.lengths[row]} tokens; "
                "expected one per token of prompt and response, the last ones may be missing"
            )
        levels = {
            "response": self.responses.lengths,
            "sequence": self.lengths,
            "prompt": self.prompt_lengths,
        }
        own = None if known is None else known.per.replace("token or row", "response")
        for level, lengths in levels.items():
            if own in (None, level) and np.array_equal(found, lengths):
                return level
        if len(found) != len(self.lengths):
            raise ValueError(f"column {name!r} has {len(found)} rows, there are {len(self.lengths)}")
        row = int((found != self.responses.lengths).argmax())
        raise ValueError(
            f"column {name!r}: row {row} has {found[row]} elements; its prompt has "
            f"{self.prompt_lengths[row]} tokens, its response {self.responses.lengths[row]}"
            + ("" if name in FIELDS else "; to carry rows that are no tokens along, wrap each in a dict")
        )


def _columns(index: int, source: Source) -> dict[str, Any]:
    if isinstance(source, Rollouts):
        return dict(source.columns)
    if not isinstance(source, Mapping):
        raise TypeError(
            f"rollouts must be Rollouts or GeneratorOutput-shaped dicts; part {index} is "
            f"{type(source).__name__}"
        )
    return token_columns(source)


def _per_token(name: str, found: Sequence[Any]) -> bool:
    """Whether a column has an element per token in all parts. One without rows does not tell."""
    known = FIELDS.get(name)
    if known is not None and known.per in ("prompt", "response", "sequence"):
        return True
    rectangle = known is not None and known.per == "token or row"
    kinds = {
        is_rows(column) or (rectangle and isinstance(column, np.ndarray) and column.ndim > 1)
        for column in found
        if len(column)
    }
    if len(kinds) > 1:
        raise TypeError(f"column {name!r} has rows of elements in some parts and one entry per row in others")
    return kinds == {True}


def _named_parts(name: str, found: Sequence[Any]) -> Parts:
    """The buffers of one column. Lists, which have none, are converted to the column's dtype here."""
    known = FIELDS.get(name)
    dtype = None if known is None else known.dtype
    parts: list[Parts] = []
    where = f"column {name!r}"
    try:
        for i, column in enumerate(found):
            where = f"column {name!r} of rollouts[{i}]" if len(found) > 1 else f"column {name!r}"
            parts.append(parts_of(column, dtype))
        dtypes = {part.dtype for part in parts if part.lengths.any()}
        if len(dtypes) > 1:
            wanted = narrow(name, np.result_type(*dtypes))
            for i, part in enumerate(parts):
                where = f"column {name!r} of rollouts[{i}]"
                parts[i] = part.astype(wanted)
        where = f"column {name!r}"
        return Parts.join(parts)
    except (TypeError, ValueError, OverflowError) as error:
        raise type(error)(f"{where}: {error}") from None


def _joined_rows(name: str, found: Sequence[Any]) -> Any:
    columns = [as_column(name, column) for column in found]
    if all(isinstance(column, np.ndarray) for column in columns):
        return columns[0] if len(columns) == 1 else np.concatenate(columns)
    return [entry for column in columns for entry in column]
