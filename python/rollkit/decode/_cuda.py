"""Which draws of torch are one Triton kernel's, rather than plain torch operations'."""

from __future__ import annotations

from functools import cache
from typing import Any

from rollkit._errors import warn
from rollkit._extras import extra
from rollkit._frameworks import implementation
from rollkit.decode._operations import Draws
from rollkit.decode._request import Request

torch = extra("torch", "torch")

KERNEL = "rollkit.decode._triton"


def kernel_for(request: Request) -> Draws | None:
    """Return the kernel, if it can draw what is asked for."""
    if not (is_common(request) and has_kernel(request.cond.device)):
        return None
    kernel: Draws = implementation(KERNEL)
    return kernel


def is_common(request: Request) -> bool:
    """Whether the kernel is made for this: plain tensors of logits, rows without gaps, noise by key.

    Torch operations take all else. They also are what a compiler can trace, and what gradients of
    log-probabilities go through.
    """
    cond, uncond = request.cond, request.uncond
    branches = [cond] if uncond is None else [cond, uncond]
    plain = all(
        type(branch) is torch.Tensor  # no subclass: it need not have the memory that it seems to
        and branch.dtype in (torch.float32, torch.float16, torch.bfloat16)
        and branch.stride(1) == 1
        and branch.device == cond.device
        for branch in branches
    )
    eager = not torch.compiler.is_compiling() and not _has_gradient(request)
    return plain and eager and request.noise is None


def _has_gradient(request: Request) -> bool:
    return torch.is_grad_enabled() and any(getattr(part, "requires_grad", False) for part in request.arrays())


@cache
def has_kernel(device: Any) -> bool:
    """Whether the kernel runs on a device: Triton of 3.2 or later, and NVIDIA's chips from Ampere on."""
    if device.type != "cuda" or torch.version.hip or torch.cuda.get_device_capability(device) < (8, 0):
        return False
    try:
        import triton

        if tuple(map(int, triton.__version__.split(".")[:2])) < (3, 2):
            return False
        triton.runtime.driver.active.get_current_target()
    except ModuleNotFoundError:
        return False
    except Exception as error:  # Triton finds no C compiler, say, which it needs to launch anything
        text = f"sample draws with plain torch operations, as Triton does not run here: {error}"
        warn(text, RuntimeWarning)
        return False
    return True
