"""What is left of a product by default has every value of every axis."""

from __future__ import annotations

from itertools import product

import pytest
from tests import thorough
from tests.thorough import by_level, combinations, examples

AXES = ["abcde", [0, 1], [{}, {"unhashable": 1}]], [range(3), range(6)], ["xyz"]


@pytest.mark.parametrize("axes", AXES, ids=str)
def test_every_value_is_in_one(axes: list[list[object]], monkeypatch: pytest.MonkeyPatch) -> None:
    whole = list(product(*axes))
    monkeypatch.setattr(thorough, "LEVEL", 0)
    few = combinations(*axes)
    assert len(few) == max(map(len, axes))
    assert all(one in whole for one in few)
    for at, axis in enumerate(axes):
        assert all(any(one[at] == value for one in few) for value in axis)
    monkeypatch.setattr(thorough, "LEVEL", 1)
    assert combinations(*axes) == whole


def test_axes_of_one_length_do_not_go_in_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(thorough, "LEVEL", 0)
    assert {one[1:] for one in combinations("abcd", [0, 1], [0, 1])} == set(product([0, 1], [0, 1]))


def test_levels(monkeypatch: pytest.MonkeyPatch) -> None:
    for level, count, tried in ((0, 1, 30), (1, 5, 120), (2, 9, 3000), (3, 9, 3000)):
        monkeypatch.setattr(thorough, "LEVEL", level)
        assert by_level(1, 5, 9) == count
        assert examples(120) == tried
