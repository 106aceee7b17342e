"""Where rollouts go: into bins, or as a layout made before says."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Unpack

from rollkit import _check
from rollkit._rollouts.sources import Sources
from rollkit._rows.binpack import DEFAULTS, Packing
from rollkit._rows.laid import Laid
from rollkit._rows.layout import Layout

if TYPE_CHECKING:
    from rollkit._rows.trees import TreeLayout


def shares(share_prefixes: object, layout: object, groups: Any, match: Any) -> bool:
    """Whether rollouts are to share prefixes: it is said so, or their layout is of trees."""
    if _check.flag("share_prefixes", share_prefixes):
        return True
    if isinstance(layout, Laid) and not isinstance(layout, Layout):
        return True
    if groups is not None or not (isinstance(match, list | tuple) and not match):
        raise TypeError("groups and match say which rollouts share tokens; pass share_prefixes=True, too")
    return False


def planned(
    called: str,
    sources: Sources,
    capacity: int | None,
    layout: Layout | TreeLayout | None,
    bins: int | None = None,
    **packing: Unpack[Packing],
) -> Layout:
    """Where rollouts go that share nothing."""
    if layout is None:
        if capacity is None:
            raise TypeError(f"{called} needs a capacity, or a layout")
        made = Layout.pack(sources.ordered(sources.lengths), capacity, bins=bins, **packing)
        if packing["oversize"] == "truncate":
            sources.check_cut(made)
        return made
    check_alone(called, capacity, bins, packing)
    if not isinstance(layout, Layout):
        raise TypeError(f"layout must be a Layout, got {type(layout).__name__}; Layout.pack makes one")
    check_rows(sources, layout)
    return layout


def check_alone(called: str, capacity: int | None, bins: int | None, packing: Packing) -> None:
    """Refuse to plan anew what a layout has planned."""
    for name, given in (("capacity", capacity), ("bins", bins)):
        if given is not None:
            article = "a " if name == "capacity" else ""
            raise TypeError(f"{called} takes {article}{name} or a layout, not both: a layout has its {name}")
    for name, value in packing.items():
        if value != DEFAULTS[name]:  # type: ignore[literal-required]
            noun, told = ("an order", "its order") if name in ("order", "seed") else (name, "been planned")
            raise TypeError(f"{called} takes {noun} or a layout, not both: a layout has {told}")


def check_rows(sources: Sources, layout: Layout | TreeLayout) -> None:
    """Check that a layout made before was made for these rollouts, by their lengths."""
    got, wanted = sources.ordered(sources.lengths), layout.row_lengths
    if len(got) != len(wanted):
        raise ValueError(f"there are {len(got)} rollouts, the layout has {len(wanted)} rows")
    if (odd := got != wanted).any():
        row = int(odd.argmax())
        raise ValueError(
            f"row {row} has {got[row]} tokens (prompt and response), the layout has {wanted[row]} for it"
        )
