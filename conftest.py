"""What needs a package that is not installed is skipped, where it asks for it.

So the tests that need no framework run where there is none (`make test-python`), and no test has to say what
it needs; where all is installed, nothing is skipped.
"""

from __future__ import annotations

import doctest
import importlib.util
import sys
from collections.abc import Generator
from typing import Any

import pytest

OPTIONAL = (
    "datasets",
    "grain",
    "jax",
    "matplotlib",
    "obstore",
    "pyarrow",
    "ray",
    "safetensors",
    "tensordict",
    "torch",
    "torchdata",
    "transformers",
    "triton",
)


def missing(error: BaseException | None) -> str | None:
    """Return the optional package that is not installed, if that is what the error says."""
    if isinstance(error, doctest.UnexpectedException):
        error = error.exc_info[1]
    if isinstance(error, ModuleNotFoundError):
        package = (error.name or "").partition(".")[0]
        return package if package in OPTIONAL and importlib.util.find_spec(package) is None else None
    return missing(error.__cause__) if error is not None else None


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(collector: pytest.Collector) -> Generator[None, Any, Any]:
    """Skip a module that needs what is not there."""
    report = yield
    call = getattr(report, "call", None)
    error = None if call is None or call.excinfo is None else call.excinfo.value
    package = missing(error)
    if package is not None:
        forget(error)
        report.outcome, report.longrepr = "skipped", (str(collector.path), 1, f"Skipped: needs {package}")
    return report


@pytest.hookimpl(wrapper=True)
def pytest_runtest_setup(item: pytest.Item) -> Generator[None, Any, Any]:
    """Skip a test whose fixtures need what is not there."""
    return (yield from skipping())


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, Any, Any]:
    """Skip a test that needs what is not there."""
    return (yield from skipping())


def forget(error: BaseException | None) -> None:
    """Remove the modules that could not be imported whole: pytest leaves them, and others would find them."""
    while error is not None:
        trace = error.__traceback__
        while trace is not None:
            if trace.tb_frame.f_code.co_name == "<module>":
                sys.modules.pop(trace.tb_frame.f_globals["__name__"], None)
            trace = trace.tb_next
        error = error.__cause__


def skipping() -> Generator[None, Any, Any]:
    """Run a phase of a test; skip the test if it needs what is not there."""
    try:
        return (yield)
    except Exception as error:
        package = missing(error)
        if package is None:
            raise
        pytest.skip(f"needs {package}")
