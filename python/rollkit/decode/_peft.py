"""What PEFT's LoRA layers add to a head, read as they are now."""

from __future__ import annotations

from typing import Any, NamedTuple


class LoRA(NamedTuple):
    """A low-rank addition to a head: `hidden @ a.T @ b.T * scaling`."""

    a: Any
    """`[rank, hidden]`."""
    b: Any
    """`[vocab, rank]`; sliced with the head."""
    scaling: float = 1.0


def adapters_of(module: Any) -> list[LoRA]:
    """Return what the active adapters of a layer add, none if they are merged or disabled.

    Raises:
        TypeError: the layer is wrapped by no LoRA.
        ValueError: an adapter is more than a low-rank product, or merged and disabled at once.
    """
    if not hasattr(module, "base_layer"):
        return []
    if not hasattr(module, "lora_A"):
        raise TypeError(
            f"{type(module).__module__}.{type(module).__qualname__} is no LoRA; "
            "merge the adapter, and pass the base layer"
        )
    merged = getattr(module, "merged", False)
    if getattr(module, "disable_adapters", False):
        if merged:
            raise ValueError("adapters are disabled and merged into the weight; call unmerge_adapter() first")
        return []
    if merged:
        return []
    found = (_adapter(module, name) for name in module.active_adapters)
    return [one for one in found if one is not None]


def _adapter(module: Any, name: str) -> LoRA | None:
    """Return an adapter by name; `None` if it is one of other layers."""
    embeds = getattr(module, "lora_embedding_A", {})
    if name not in module.lora_A and name not in embeds:
        return None
    _check_plain(module, name)
    scaling = module.scaling[name]
    if name in module.lora_A:
        return LoRA(module.lora_A[name].weight, module.lora_B[name].weight, scaling)
    # An embedding's product is [hidden, rank] by [rank, vocab].
    return LoRA(module.lora_embedding_B[name].T, embeds[name].T, scaling)


def _check_plain(module: Any, name: str) -> None:
    variant = getattr(module, "lora_variant", {}).get(name)
    if getattr(module, "use_dora", {}).get(name):
        what = "is DoRA, which rescales the weight"
    elif variant is not None:
        what = f"is a {type(variant).__name__}"
    elif name in module.lora_A and getattr(module.lora_B[name], "bias", None) is not None:
        what = "has lora_bias"
    else:
        return
    raise ValueError(f"adapter {name!r} of the head {what}; merge it first (merge_adapter())")
