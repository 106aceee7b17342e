"""One profile for hypothesis: modest, and without a deadline, since machines that run tests are shared.

A panic in Rust fails the test that it comes up in, whoever swallows its exception.
"""

from collections.abc import Generator

import pytest
from hypothesis import HealthCheck, settings
from tests.thorough import examples

from rollkit import _native

settings.register_profile(
    "rollkit", max_examples=examples(120), deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("rollkit")


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, None, None]:
    """Fail a test during which there was a panic, though it may pass otherwise."""
    before = _native.panics()
    try:
        return (yield)
    finally:
        if (count := _native.panics() - before) > 0:
            pytest.fail(f"{count} panic(s) in rollkit._native; see stderr", pytrace=False)
