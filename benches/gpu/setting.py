"""Where a part runs and how much it tries, and how results of a device are compared with the host's."""

from __future__ import annotations

import importlib
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rollkit import Batch
from rollkit._arrays.ops import ops

Array = NDArray[Any]


@dataclass
class Setting:
    """What a part is told.

    Attributes:
        device: `"cuda"` or `"cpu"`, where rollkit's operations for devices are run all the same.
        share: of the cases that a GPU tries.
        until: when, by `time.monotonic`, cases are no longer begun.
    """

    device: str
    share: float
    until: float

    @property
    def on_gpu(self) -> bool:
        """Whether this is the machine that parts are for."""
        return self.device == "cuda"

    def count(self, most: int, least: int = 1) -> int:
        """How many of `most` cases are tried."""
        return max(least, min(most, round(most * self.share)))

    def tries(self, most: int, least: int = 1) -> Iterator[int]:
        """Numbers of cases, until there are enough of them or it is late."""
        for number in range(self.count(most, least)):
            if number >= least and time.monotonic() > self.until:
                return
            yield number


class Faults:
    """What went wrong, the first of each kind: time on a GPU is short, one fault is not to hide others."""

    MOST = 20

    def __init__(self, setting: Setting) -> None:
        self.setting = setting
        self.first: dict[str, str] = {}
        self.count = 0

    @contextmanager
    def of(self, kind: str) -> Iterator[None]:
        """Keep what goes wrong in here; on a CPU, and after `MOST` faults, let it through."""
        try:
            yield
        except Exception as error:
            self.count += 1
            self.first.setdefault(kind, f"{kind}: {type(error).__name__}: {str(error)[:600]}")
            if not self.setting.on_gpu or self.count >= self.MOST:
                raise AssertionError("; ".join(self.first.values())) from error

    def check(self) -> None:
        """Raise if there were any."""
        if self.first:
            raise AssertionError(
                f"{self.count} faults, the first of each kind: {'; '.join(self.first.values())}"
            )


@contextmanager
def own_operations(setting: Setting, *frameworks: str) -> Iterator[None]:
    """Let arrays of the host's memory go the way of those on a device: a CPU stands in for one."""
    modules = [importlib.import_module(f"rollkit._arrays.{framework}") for framework in frameworks]
    kept = [module.is_host for module in modules]
    try:
        if not setting.on_gpu:
            for module in modules:
                module.is_host = lambda array: False  # type: ignore[attr-defined]
        yield
    finally:
        for module, is_host in zip(modules, kept, strict=True):
            module.is_host = is_host  # type: ignore[attr-defined]


def placed(setting: Setting, framework: str, array: Array) -> Any:
    """A NumPy array as one of a framework, on the device; JAX has one only where there is a GPU."""
    return ops(framework).from_numpy(array, setting.device if setting.on_gpu else None, {})


def moved(setting: Setting, framework: str, batch: Batch) -> Batch:
    """A batch of NumPy's arrays as one of a framework, on the device."""
    return batch.to(framework, device=setting.device if setting.on_gpu else None)


def on_host(array: Any) -> Array:
    """The values of an array of any framework and device."""
    if isinstance(array, np.ndarray):
        return array
    framework = "torch" if type(array).__module__.startswith("torch") else "jax"
    return np.asarray(ops(framework).to_host(array))


def check_bits(got: Any, wanted: Any, what: str) -> None:
    """Refuse an array that is not the other, bit for bit."""
    found, right = on_host(got), on_host(wanted)
    alike = found.shape == right.shape and found.dtype == right.dtype
    if alike and found.tobytes() == right.tobytes():
        return
    at = "" if not alike else f", first at {_first_odd(found, right)}"
    raise AssertionError(
        f"{what}: got {found.dtype} {found.shape}, wanted {right.dtype} {right.shape}{at}\n{found}\n{right}"
    )


def _first_odd(found: Array, wanted: Array) -> int:
    size = found.dtype.itemsize
    a, b = (np.ascontiguousarray(x).reshape(-1).view(np.uint8).reshape(-1, size) for x in (found, wanted))
    return int((a != b).any(1).argmax())


def check_near(got: Any, wanted: Any, most: float, what: str) -> float:
    """Refuse an array that is off by more than `most` of the other's largest value; return how far it is."""
    found, right = (on_host(array).astype(np.float64) for array in (got, wanted))
    if found.shape != right.shape:
        raise AssertionError(f"{what}: got shape {found.shape}, wanted {right.shape}")
    if not found.size:
        return 0.0
    off = float(abs(found - right).max()) / max(float(abs(right).max()), 1e-30)
    if not off <= most:  # NaN neither
        at = np.unravel_index(int(np.nan_to_num(abs(found - right), nan=np.inf).argmax()), found.shape)
        raise AssertionError(f"{what}: off by {off:.3g} of the largest value, more than {most:g}, at {at}")
    return off
