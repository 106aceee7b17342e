"""A panic fails the test that it comes up in: `tests/conftest.py` counts them."""

from __future__ import annotations

from typing import Any

import pytest
from tests import conftest

from rollkit import _native


def test_a_panic_that_was_swallowed_fails_the_test(monkeypatch: pytest.MonkeyPatch) -> None:
    item: Any = None
    counts = iter([3, 4, 5, 5, 5])
    with monkeypatch.context() as patched:
        patched.setattr(_native, "panics", lambda: next(counts))
        phase = conftest.pytest_runtest_call(item)
        next(phase)
        with pytest.raises(pytest.fail.Exception, match="1 panic"):
            phase.send(None)
        phase = conftest.pytest_runtest_call(item)
        next(phase)
        with pytest.raises(StopIteration):
            phase.send(None)
