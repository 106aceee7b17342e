"""What trainers call the arrays of a batch: one word for names and dtypes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from rollkit import _check
from rollkit._arrays.ops import ops_of
from rollkit._errors import refusal
from rollkit._rollouts.fields import FIELDS, fill_of
from rollkit._rollouts.labels import labels, nonzero, to_predecessors
from rollkit._rows.edges import followers
from rollkit._rows.laid import Laid
from rollkit._rows.layout import Layout
from rollkit._rows.lists import Lists

Names = str | Mapping[str, str]
"""A word of `KNOWN`, or `{old: new}`."""


@dataclass(frozen=True, eq=False, repr=False, slots=True)
class Named:
    """Arrays by name, and their layout: what `labels` reads."""

    arrays: Mapping[str, Any]
    layout: Layout

    def __getitem__(self, name: str) -> Any:
        return self.arrays[name]


def check_names(names: Any) -> Names:
    """Return `names` if it is a known word, or a mapping."""
    if isinstance(names, Mapping):
        for old, new in names.items():
            if not isinstance(old, str) or not isinstance(new, str):
                raise TypeError(f"names must map names to names, got {type(new).__name__} for {old!r}")
        return names
    return _check.choice("names", names, tuple(KNOWN))


def renamed(arrays: Mapping[str, Any], layout: Laid, names: Names) -> dict[str, Any]:
    """The arrays under the names, and with the dtypes, of a trainer; see `Batch.rename`."""
    names = check_names(names)
    if not isinstance(layout, Layout):
        check_shared_names(names)
        return _by_mapping(arrays, names) if isinstance(names, Mapping) else dict(arrays)
    if isinstance(names, Mapping):
        return _by_mapping(arrays, names)
    for name in ("input_ids", "positions", "segment_ids"):
        if name not in arrays and names != "rollkit":
            there = ", ".join(map(repr, arrays))
            raise ValueError(f"names={names!r} is for a batch with its own names; no {name!r} among {there}")
    return KNOWN[names](Named(arrays, layout))


def check_shared_names(names: Names) -> None:
    """Refuse what trainers would read as segments, of a batch that shares prefixes."""
    if isinstance(names, Mapping):
        if names.get("predecessors", "predecessors") != "predecessors":
            raise ValueError(
                "names renames 'predecessors', which a slice of the batch finds by its name; keep it"
            )
    elif names != "rollkit":
        raise ValueError(
            f"names={names!r} is for batches of segments, and this one shares prefixes; rename its arrays by "
            "{old: new}, give the model a mask of rollkit.segments, and take the loss of next_token_logprobs"
        )


def _by_mapping(arrays: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    if odd := [name for name in names if name not in arrays]:
        raise ValueError(f"names has {odd[0]!r}, which is no array; there are {', '.join(map(repr, arrays))}")
    found = {names.get(name, name): array for name, array in arrays.items()}
    if len(found) != len(arrays):
        new = [names.get(name, name) for name in arrays]
        twice = next(name for name in new if new.count(name) > 1)
        raise ValueError(f"names gives two arrays the name {twice!r}")
    return found


def _check_free(names: str, made: Iterable[str], columns: Mapping[str, Any]) -> None:
    """Refuse a column that is called what a trainer calls an array that is made: one would hide the other."""
    for name in made:
        if name in columns:
            text = f"column {name!r}: names={names!r} makes this array itself; rename or leave out the column"
            raise refusal(ValueError, text, column=name, label="")


def _own(batch: Named) -> dict[str, Any]:
    return dict(batch.arrays)


def _hugging_face(batch: Named) -> dict[str, Any]:
    _check_positions(batch.layout)
    _check_free("hf", ("position_ids",), batch.arrays)
    found = _by_mapping(batch.arrays, {"positions": "position_ids"})
    if "labels" in found:
        own = ops_of(found["labels"])
        chosen = own.from_host(followers(batch.layout), found["labels"])
        found["labels"] = own.where(chosen, found["labels"], FIELDS["labels"].fill)
        if "loss_masks" in found:
            counts = nonzero(own, found["loss_masks"], found["labels"])
            found["labels"] = own.where(counts, found["labels"], FIELDS["labels"].fill)
    else:
        found["labels"] = labels(batch)
    for name in {"input_ids", "position_ids", "attention_mask", "labels"} & found.keys():
        found[name] = ops_of(found[name]).cast(found[name], np.int64)
    return found


def _check_positions(layout: Layout) -> None:
    """Refuse pieces whose positions go on from the piece before: models see one segment there."""
    if layout.begins is None:
        return
    order = np.arange(len(layout.starts)) if layout.order is None else layout.order
    order = order[layout.lengths[order] > 0]
    starts, begins, lengths = layout.starts[order], layout.begins[order], layout.lengths[order]
    width = max(layout.width, 1)
    near = (starts[:-1] + lengths[:-1] == starts[1:]) & (starts[1:] % width != 0)
    odd = near & (begins[:-1] + lengths[:-1] == begins[1:])
    rows = layout.pieces_of_rows()[0][order]
    odd &= rows[:-1] != rows[1:]
    if odd.any():
        at = int(odd.argmax())
        raise ValueError(
            f"names='hf': positions go on from row {rows[at]} to row {rows[at + 1]}, and models of Hugging "
            "Face tell segments apart by them; lay these pieces on different lines"
        )


def _grain(batch: Named) -> dict[str, Any]:
    found: dict[str, Any] = {}
    made: dict[str, Any] = {}
    for name, array in batch.arrays.items():
        if name not in ("segment_ids", "positions", "attention_mask"):
            found[name] = array
            if isinstance(array, Lists):
                continue
            beside = {f"{name}_segment_ids": batch["segment_ids"], f"{name}_positions": batch["positions"]}
            found |= beside
            made |= beside
    _check_free("grain", made, batch.arrays)
    return found


def _maxtext(batch: Named) -> dict[str, Any]:
    tokens, segments = batch["input_ids"], batch["segment_ids"]
    own = ops_of(tokens)
    targets = labels(batch, -1, shift=True)
    counts = targets != -1
    found = {
        "inputs": own.cast(tokens, np.int32),
        "inputs_position": batch["positions"],
        "inputs_segmentation": segments,
        "targets": own.int32(own.where(counts, targets, 0)),
        "targets_position": batch["positions"],
        "targets_segmentation": ops_of(segments).where(_beside(counts, segments), segments, 0),
    }
    taken = ("input_ids", "segment_ids", "positions")
    rest = {name: array for name, array in batch.arrays.items() if name not in taken}
    _check_free("maxtext", found, rest)
    return found | {name: _beside_targets(batch, name, array) for name, array in rest.items()}


def _beside_targets(batch: Named, name: str, array: Any) -> Any:
    """What belongs to a token moves with it, to where it is the target; routes belong to what goes in."""
    if isinstance(array, Lists):
        text = f"lists per token are not shifted; select or drop {name!r} before names='maxtext'"
        raise refusal(ValueError, text, column=name, label="")
    if name in ("rollout_expert_indices", "route_masks", "attention_mask"):
        return array
    return to_predecessors(ops_of(array), batch.layout, array, fill_of(name))


def _beside(flags: Any, like: Any) -> Any:
    """Flags as an array of the framework of another, where that is another."""
    own, theirs = ops_of(flags), ops_of(like)
    return flags if own is theirs else theirs.from_host(own.to_host(flags), like)


KNOWN: Final[dict[str, Callable[[Named], dict[str, Any]]]] = {
    "rollkit": _own,
    "hf": _hugging_face,
    "grain": _grain,
    "maxtext": _maxtext,
}


def flash_kwargs(layout: Laid, like: Any) -> dict[str, Any]:
    """What varlen kernels of transformers take of a batch; see `Batch.flash_kwargs`."""
    if not isinstance(layout, Layout):
        raise TypeError(
            "rows of a batch that shares prefixes are no segments; segments.tree_varlen(batch.layout) makes "
            "one varlen call of them"
        )
    filled = layout.lengths > 0
    starts = layout.starts[filled]
    lines = np.arange(0, layout.size + 1, layout.width) if layout.width else np.zeros(1, np.int64)
    bounds = np.unique(np.concatenate([starts, starts + layout.lengths[filled], lines]))
    if layout.size > np.iinfo(np.int32).max:
        raise OverflowError(f"{layout.size} elements are beyond int32, which attention kernels take")
    seqlens = ops_of(like).from_host(bounds.astype(np.int32), like)
    longest = int(np.diff(bounds).max(initial=0))
    return {
        "cu_seq_lens_q": seqlens,
        "cu_seq_lens_k": seqlens,
        "max_length_q": longest,
        "max_length_k": longest,
    }
