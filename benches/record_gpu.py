"""Measure the sampler on a CUDA device: `python benches/record_gpu.py`. Without one it says so.

The kernel, plain torch operations and, if it is installed, FlashInfer's sampling draw from the same
logits in turn; the limit is a copy of the bytes of those logits on the device. Times are medians, each of
several calls between two waits for the device, since one call is shorter than a wait. What a case is called
says how many bytes of logits a second the kernel came to, and the copy, which moves each byte twice.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
from collections.abc import Callable, Iterator
from typing import Any

import torch

from record import Case, Run, measure, report
from rollkit.decode import AllowedSet, _cuda, sample
from rollkit.decode import _torch as operations
from rollkit.decode._request import make_request

CALLS = 20
SHAPES = ((16, 2049), (256, 2049), (16, 65_536), (256, 65_536), (64, 151_936))
FILTERS: dict[str, dict[str, Any]] = {
    "no filter": {},
    "top-p 0.9": {"top_p": 0.9},
    "top-k 50": {"top_k": 50},
    "top-k 50, top-p 0.9": {"top_k": 50, "top_p": 0.9},
}


def on_device(function: Callable[[], object]) -> Run:
    """Call several times, then wait."""

    def run() -> None:
        for _ in range(CALLS):
            function()
        torch.cuda.synchronize()

    return run


def by_flashinfer(logits: Any, options: dict[str, Any]) -> Callable[[], object] | None:
    """Draw as FlashInfer does, from probabilities or logits, with noise of its own."""
    if importlib.util.find_spec("flashinfer") is None:
        return None
    peer = importlib.import_module("flashinfer.sampling")
    k, p = options.get("top_k"), options.get("top_p")
    if k and p:
        return lambda: peer.top_k_top_p_sampling_from_logits(logits, k, p, filter_apply_order="top_k_first")
    if k:
        return lambda: peer.top_k_sampling_from_probs(logits.softmax(-1), k)
    if p:
        return lambda: peer.top_p_sampling_from_probs(logits.softmax(-1), p)
    return lambda: peer.sampling_from_logits(logits)


def contenders(logits: Any, options: dict[str, Any], filters: dict[str, Any]) -> dict[str, Run]:
    """Return ours, and what it is beside."""
    request = make_request(logits, **options, **filters)
    target = torch.empty_like(logits)
    runs = {
        "rollkit": on_device(lambda: sample(logits, **options, **filters)),
        "torch operations": on_device(lambda: operations.draw(request)),
        "copy": on_device(lambda: target.copy_(logits)),
    }
    peer = by_flashinfer(logits, filters)
    if peer is not None:
        runs["FlashInfer"] = on_device(peer)
    return runs


def gpu() -> Iterator[Case]:
    """Float32 logits to tokens, at temperature 1 as the peer draws."""
    if not torch.cuda.is_available():
        print("no GPU: nothing measured")
        return
    device = torch.device("cuda", torch.cuda.current_device())
    if not _cuda.has_kernel(device):
        print(f"no kernel for {torch.cuda.get_device_name()}: nothing measured")
        return
    for rows, columns in SHAPES:
        logits = 3 * torch.randn(rows, columns, device=device)
        options: dict[str, Any] = {
            "allowed": AllowedSet.full(columns),
            "seeds": torch.arange(rows, device=device),
            "positions": 0,
            "logprobs": None,
        }
        for name, filters in FILTERS.items():
            runs = contenders(logits, options, filters)
            what = f"{CALLS} × sample on {torch.cuda.get_device_name()}, B = {rows}, C = {columns}, {name}"
            yield Case(f"{what}, {logits.nbytes * CALLS / 1e9:.2f} GB", runs, "time beside a copy")


def timed(found: Case) -> dict[str, float]:
    """Medians in seconds; adds achieved bandwidth to what the case is called."""
    seconds = measure(found)
    size = float(found.what.rpartition(", ")[2].split()[0])
    found.what += f" of logits: {size / seconds['rollkit']:.0f} GB/s, copied {2 * size / seconds['copy']:.0f}"
    return seconds


def main() -> None:
    """Run all cases, print a table, and keep it if there is anything in it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--no-write", action="store_true", help="only print")
    options = parser.parse_args()
    found = list(gpu())
    if found:
        report("gpu", found, timed, write=not options.no_write)


if __name__ == "__main__":
    main()
