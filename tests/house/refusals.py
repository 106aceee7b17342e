"""How the tables of refusals are checked."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest


def check_refusal(call: Callable[[], Any], kind: type[Exception], message: str) -> None:
    """The error is of this very type, and its message is this one line."""
    with pytest.raises(kind) as caught:
        call()
    assert type(caught.value) is kind
    assert caught.value.args[0] == message
    assert "\n" not in message
