"""Ray on this machine, for tests; its workers import the package that is tested."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import pytest

import rollkit

_PYTHON: Final = Path(rollkit.__file__).parents[1]
PATHS: Final = os.pathsep.join(
    [str(_PYTHON), str(_PYTHON.parent), *filter(None, [os.environ.get("PYTHONPATH")])]
)
"""What `PYTHONPATH` is for processes that import the package, and the tests."""


@contextmanager
def paths() -> Iterator[None]:
    """Processes that are started meanwhile import the package."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", PATHS)
        yield


@contextmanager
def one_machine(ray: Any) -> Iterator[None]:
    """A Ray of two CPUs, and a connection to it."""
    with paths():
        ray.init(
            address="local",  # and not another one that runs here
            num_cpus=2,
            include_dashboard=False,
            log_to_driver=False,
            logging_level=logging.ERROR,
            object_store_memory=1 << 28,
        )
        yield
        ray.shutdown()
