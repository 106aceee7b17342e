"""Loaders for torch: bins as a data set, collators, and what comes next made on a thread.

    from rollkit import ShuffledSampler
    from rollkit.torch import PackedDataset, prefetch

    bins = PackedDataset(rollouts, capacity=24_576, names="hf")
    loader = StatefulDataLoader(bins, sampler=ShuffledSampler(bins, seed=0))
    for batch in prefetch(loader): ...

A data set that is taken by number works under every sampler, rank split and checkpoint, of torch, torchdata,
accelerate and transformers' `Trainer`. See docs/loaders.md.
"""

from rollkit._loading.prefetch import prefetch as prefetch
from rollkit.torch._collator import Collator as Collator
from rollkit.torch._dataset import PackedDataset as PackedDataset
from rollkit.torch._dataset import collate_one as collate_one
from rollkit.torch._packer import Packer as Packer

__all__ = ["Collator", "PackedDataset", "Packer", "collate_one", "prefetch"]
