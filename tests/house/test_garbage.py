"""Every public callable, each argument in turn replaced by garbage: it is refused by name, or taken.

Which callables there are, and their parameters, is read off the package; see `tests/house/garbage.py` for the
valid arguments that the others keep. A new parameter without a default needs a word there.
"""

from __future__ import annotations

import inspect
import warnings
import zlib
from typing import Any

import pytest
from tests.house.garbage import EXEMPT, HOSTILE, INSTEAD, RAW, REFUSALS, THEIRS, Target, targets
from tests.thorough import by_level

TARGETS = {target.name: target for target in targets()}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", TARGETS)
def test_the_valid_call_is_valid(name: str) -> None:
    target = TARGETS[name]
    try:
        target.make()(**target.arguments())
    except ModuleNotFoundError as error:
        pytest.skip(str(error))


def tried(target: Target, parameter: str) -> dict[str, Any]:
    """The values to try: all, or so many that each is tried somewhere."""
    step = by_level(6, 1)
    first = zlib.crc32(f"{target.name}.{parameter}".encode()) % step
    return dict(list(HOSTILE.items())[first::step])


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", TARGETS)
def test_garbage_is_refused_by_name(name: str) -> None:
    target = TARGETS[name]
    bad: list[str] = []
    for parameter in target.parameters:
        if parameter.kind in (parameter.POSITIONAL_ONLY, parameter.VAR_POSITIONAL):
            continue
        if (name, parameter.name) in EXEMPT:
            continue
        called = "extra" if parameter.kind is inspect.Parameter.VAR_KEYWORD else parameter.name
        for value, make in tried(target, called).items():
            arguments = {**target.arguments(), called: make()}
            arguments.pop(INSTEAD.get((name, called), ""), None)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                try:
                    problem = outcome(target, arguments)
                except ModuleNotFoundError as error:
                    pytest.skip(str(error))
                if problem:
                    bad.append(f"{called}={value}: {problem}")
    assert not bad, "\n".join(bad)


def outcome(target: Target, arguments: dict[str, Any]) -> str | None:
    """What is wrong with how a call ends; None if it returns, or refuses in its own words."""
    try:
        target.make()(**arguments)
    except REFUSALS as error:
        if target.is_drop_in():
            return None
        said = str(error)
        raw = [words for words in RAW if words in said]
        return f"{type(error).__name__} in others' words: {said}" if raw or not said else None
    except BaseException as error:  # a panic is no Exception
        if target.is_drop_in() and isinstance(error, THEIRS):
            return None
        if isinstance(error, KeyboardInterrupt | ModuleNotFoundError):  # what is not installed skips
            raise
        return repr(error)
    return None
