"""`Ragged.from_rows(item=)` and `_native.pick_numbers` against comprehensions."""
# ruff: noqa: E501

from __future__ import annotations

import gc
import sys
from collections import OrderedDict, namedtuple
from collections.abc import Callable
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.rows.test_list import bits
from tests.thorough import examples

import rollkit
from rollkit import _native

# Arguments of wrong types are tried too.
Ragged: Any = rollkit.Ragged
pick_numbers: Any = _native.pick_numbers

F32, F64 = np.dtype(np.float32), np.dtype(np.float64)


@dataclass
class Plain:
    """As vLLM's `Logprob`: attributes in a dict."""

    logprob: Any
    rank: int | None = None


@dataclass
class Defaulted:
    """The class has the attribute too."""

    rank: int = 0
    logprob: Any = 0.0


@dataclass(slots=True)
class Slots:
    rank: int
    logprob: Any


class Inherited(Slots):
    """Slots of a base, and a dict."""


class Property:
    def __init__(self, value: Any) -> None:
        self.value = value

    @property
    def logprob(self) -> Any:
        return self.value


class Asked:
    """Has a `__getattr__`, as pydantic's models have."""

    def __init__(self, value: Any) -> None:
        self.value = value

    def __getattr__(self, name: str) -> Any:
        if name == "logprob":
            return self.value
        raise AttributeError(name)


def materialised(value: Any) -> Any:
    """An object whose dict exists, as after pickling."""
    found = Plain(value)
    assert found.__dict__["logprob"] is value
    return found


def late(value: Any) -> Any:
    """An object that got the attribute after others."""
    found = SimpleNamespace(a=1, b=2)
    found.logprob = value
    return found


Pair = namedtuple("Pair", ["logprob", "id"])

NAMED: dict[str, Callable[[Any], Any]] = {
    "dataclass": Plain,
    "defaulted": lambda x: Defaulted(1, x),
    "slots": lambda x: Slots(1, x),
    "inherited": lambda x: Inherited(1, x),
    "property": Property,
    "getattr": Asked,
    "materialised": materialised,
    "namespace": lambda x: SimpleNamespace(logprob=x),
    "late": late,
    "named tuple": lambda x: Pair(x, 7),
    "dict": lambda x: {"token": "a", "logprob": x, "bytes": None},
    "dict of other text": lambda x: {"".join(["log", "prob"]): x},
    "ordered dict": lambda x: OrderedDict(token="a", logprob=x),
    "wide dict": lambda x: {**{f"k{i}": i for i in range(50)}, "logprob": x},
    "dict of all kinds": lambda x: {1: 2, None: 3, "logprob": x},
    "dict with a hole": lambda x: holed(x),
}

ENTRIES: dict[str, Callable[[Any], Any]] = {
    "tuple": lambda x: (x, 1, None),
    "list": lambda x: [x, 1, None],
    "named tuple": lambda x: Pair(x, 7),
}


def holed(value: Any) -> dict[Any, Any]:
    found = {"a": 1, "b": 2, "logprob": value}
    del found["a"]
    return found


def get(element: Any, item: Any) -> Any:
    if isinstance(item, int):
        return element[item]
    return element[item] if isinstance(element, dict) else getattr(element, item)


def oracle(rows: Any, item: Any, dtype: np.dtype[Any]) -> list[Any]:
    return [np.array([get(element, item) for element in row], dtype) for row in rows]


def check(found: tuple[Any, Any], wanted: list[Any], dtype: np.dtype[Any]) -> None:
    values, offsets = found
    assert values.dtype == dtype
    assert offsets.tolist() == [0, *np.cumsum([len(row) for row in wanted])]
    np.testing.assert_array_equal(bits(values), bits(np.concatenate([*wanted, np.empty(0, dtype)])))


numbers = st.floats(-9, 0, width=32) | st.integers(-9, 9) | st.booleans() | st.floats(-9, 0).map(np.float32)
shapes = st.lists(st.lists(numbers, max_size=70), max_size=4)


@given(st.data(), shapes, st.sampled_from([F32, F64]))
@settings(max_examples=examples(120), deadline=None)
def test_named_numbers_equal_a_comprehension(data: st.DataObject, rows: Any, dtype: Any) -> None:
    kinds = data.draw(st.lists(st.sampled_from(list(NAMED)), min_size=1, max_size=2))
    made = [[NAMED[kinds[(i + j) % len(kinds)]](x) for j, x in enumerate(row)] for i, row in enumerate(rows)]
    shape = data.draw(st.sampled_from([list, tuple]))
    check(pick_numbers(shape(made), "logprob", dtype), oracle(made, "logprob", dtype), dtype)


@pytest.mark.parametrize("kind", NAMED)
def test_every_kind_alone_and_in_blocks(kind: str) -> None:
    rows = [[NAMED[kind](float(i)) for i in range(count)] for count in (0, 1, 31, 32, 33, 100)]
    check(pick_numbers(rows, "logprob", F32), oracle(rows, "logprob", F32), F32)
    assert Ragged.from_rows(rows, item="logprob").dtype == F64


@given(st.data(), shapes, st.sampled_from([0, -3]))
@settings(max_examples=examples(60), deadline=None)
def test_entries_equal_a_comprehension(data: st.DataObject, rows: Any, item: int) -> None:
    kinds = data.draw(st.lists(st.sampled_from(["tuple", "list"]), min_size=1, max_size=2))
    made = [[ENTRIES[kinds[j % len(kinds)]](x) for j, x in enumerate(row)] for row in rows]
    check(pick_numbers(made, item, F32), oracle(made, item, F32), F32)
    ids = [[(None, 5, 2**31 - 1) for _ in row] for row in rows]
    assert Ragged.from_rows(ids, np.int32, item=2).to_list() == [[2**31 - 1] * len(row) for row in rows]


def test_a_named_tuple_has_entries_and_names() -> None:
    assert Ragged.from_rows([[Pair(0.5, 7)]], item=-1).to_list() == [[7]]
    assert Ragged.from_rows([[Pair(0.5, 7)]], item="id").to_list() == [[7]]


keys = (
    st.integers(-5, 5) | st.integers(2**29, 2**31) | st.sampled_from([2**62, 2**64, "a", "b", None, (1, 2)])
)


@given(st.data(), st.sampled_from(["dataclass", "slots", "property", "dict", None]))
@settings(max_examples=examples(120), deadline=None)
def test_keyed_numbers_equal_a_comprehension(data: st.DataObject, kind: str | None) -> None:
    make: Callable[[Any], Any] = (lambda x: x) if kind is None else NAMED[kind]
    element = st.tuples(st.lists(keys, min_size=1, max_size=40, unique=True), st.integers(0, 99))
    drawn = data.draw(st.lists(st.lists(element, max_size=40), max_size=3))
    rows = [[{key: make(float(i)) for i, key in enumerate(found)} for found, _ in row] for row in drawn]
    chosen = [[found[at % len(found)] for found, at in row] for row in drawn]
    item = None if kind is None else "logprob"
    values = [
        [entry[key] for entry, key in zip(*pair, strict=True)] for pair in zip(rows, chosen, strict=True)
    ]
    wanted = [np.array([x if item is None else get(x, item) for x in row], F32) for row in values]
    check(pick_numbers(rows, item, F32, keys=chosen), wanted, F32)


def test_keys_that_are_equal_and_not_the_same() -> None:
    big = [10**6 + i for i in range(70)]
    rows = [[{int(str(key)): -1.0, 5: -2.0} for key in big]]
    assert pick_numbers(rows, None, F32, keys=[big])[0].tolist() == [-1.0] * 70
    assert pick_numbers(rows, None, F32, keys=[tuple(map(np.int64, big))])[0].tolist() == [-1.0] * 70
    texts = [[{"a": -1.0, "b": -2.0}, {"b": -3.0, "a": -4.0}, {"a": -5.0}]]
    wanted = pick_numbers(texts, None, F32, keys=[["".join("b"), "".join("b"), "a"]])[0]
    assert wanted.tolist() == [-2.0, -3.0, -5.0]
    assert pick_numbers([[{True: -1.0}, {2.0: -2.0}]], None, F32, keys=[[1, 2]])[0].tolist() == [-1.0, -2.0]


def test_what_comes_first_decides_the_dtype_and_all_widen() -> None:
    assert Ragged.from_rows([[(1,), (True,)]], item=0).dtype == np.int64
    assert Ragged.from_rows([[(1,), (0.5,)]], item=0).dtype == F64
    assert Ragged.from_rows([[(np.int8(1),), (300,)]], item=0).to_list() == [[1, 300]]
    assert Ragged.from_rows([], item=0).dtype == np.int64
    assert Ragged.from_rows([[], []], np.float16, item="x").dtype == np.float16
    assert Ragged.from_rows([[(0.5,)]], np.float16, item=0).dtype == np.float16


class Clearing:
    """Empties the list it is in when it is asked."""

    def __init__(self, home: list[Any]) -> None:
        self.home = home

    @property
    def logprob(self) -> float:
        self.home.clear()
        gc.collect()
        return -1.0


def test_a_property_that_changes_the_list_is_read_of_what_there_was() -> None:
    home: list[Any] = []
    home += [Slots(1, -0.5), Clearing(home), *(Slots(1, float(-i)) for i in range(40))]
    values, _ = pick_numbers([home], "logprob", F32)
    assert values.tolist() == [-0.5, -1.0, *(float(-i) for i in range(40))]
    assert home == []
    later = [Slots(1, -0.5)]
    with pytest.raises(ValueError, match=r"^row 1 changed while it was read$"):
        pick_numbers([[Clearing(later)], later], "logprob", F32)


class Equal:
    """A key that changes its dict when it is compared."""

    def __init__(self, home: dict[Any, Any]) -> None:
        self.home = home

    def __hash__(self) -> int:
        return hash(7)

    def __eq__(self, other: object) -> bool:
        self.home.pop("x", None)
        return False


def test_a_key_that_changes_the_dict() -> None:
    home: dict[Any, Any] = {"x": 1.0}
    home[Equal(home)] = 2.0
    home[7] = 3.0
    assert pick_numbers([[home]], None, F32, keys=[[7]])[0].tolist() == [3.0]


class Raising:
    def __init__(self, error: type[BaseException]) -> None:
        self.error = error

    @property
    def logprob(self) -> float:
        raise self.error("broken")


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, ZeroDivisionError])
def test_what_an_attribute_raises_goes_on_and_says_where(error: type[BaseException]) -> None:
    with pytest.raises(error, match="broken") as caught:
        pick_numbers([[], [Slots(1, -1.0), Raising(error)]], "logprob", F32)
    assert caught.value.__notes__ == ["while 'logprob' was read of row 1, position 1"]


def test_references_are_given_back() -> None:
    value, entry = -12345.678, Plain(-0.5)
    number, key = Slots(1, value), 10**9
    rows: list[Any] = [[{key: number, 1: entry} for _ in range(100)], [{key: number}]]
    watched = [value, number, entry, key, rows[0][0], rows[0]]
    before = [sys.getrefcount(found) for found in watched]
    for _ in range(20):
        pick_numbers(rows, "logprob", F32, keys=[[key] * 100, (key,)])
        pick_numbers([[number] * 100, (number, entry)], "logprob", F32)
        with pytest.raises(ValueError, match="no entry"):
            pick_numbers(rows, "logprob", F32, keys=[[key] * 100, [3]])
        with pytest.raises(TypeError, match="no attribute"):
            pick_numbers([[number, entry]], "nothing", F32)
    assert [sys.getrefcount(found) for found in watched] == before


def test_classes_that_come_and_go() -> None:
    for number in range(50):
        made: Any = type("Made", (), {"__slots__": ("a",) * (number % 2) + ("logprob",)})
        found = made()
        found.logprob = float(number)
        assert pick_numbers([[found] * 40], "logprob", F32)[0].tolist() == [number] * 40
        del made, found
        gc.collect()


def test_a_slot_or_value_that_is_not_set() -> None:
    for made in (Slots.__new__(Slots), Plain.__new__(Plain)):
        with pytest.raises(TypeError, match=r"row 0, position 1: .* has no attribute 'logprob'"):
            pick_numbers([[type(made)(1, 1), made]], "logprob", F32)


def test_an_attribute_of_the_class_counts() -> None:
    assert pick_numbers([[Defaulted.__new__(Defaulted)] * 2], "logprob", F32)[0].tolist() == [0.0, 0.0]


# fmt: off
REFUSED: list[tuple[Callable[[], Any], type[Exception], str]] = [
    (lambda: Ragged.from_rows([[1]], item=0.5), TypeError, "item must be an int or a str, got float"),
    (lambda: Ragged.from_rows([[1]], item=True), TypeError, "item must be an int or a str, got bool"),
    (lambda: Ragged.from_rows([[(1,)]], item=2**70), OverflowError, f"item is {2**70}, beyond int64"),
    (lambda: Ragged.from_rows("ab", item=0), TypeError, "rows must be a sequence, got str"),
    (lambda: Ragged.from_rows([1], item=0), TypeError, "row 0 is int, expected a list, tuple or array"),
    (lambda: Ragged.from_rows([np.zeros((2, 2))], item=0), TypeError, "row 0 is ndarray, expected a list, tuple or array"),
    (lambda: Ragged.from_rows([[], [(1,), 2]], item=0), TypeError, "row 1, position 1: 2 has no entries; a tuple or list expected"),
    (lambda: Ragged.from_rows([[(1,), (1, 2)]], item=1), ValueError, "row 0, position 0: a tuple of 1 has no entry 1"),
    (lambda: Ragged.from_rows([[(1, 2), [1]]], item=-2), ValueError, "row 0, position 1: a list of 1 has no entry -2"),
    (lambda: Ragged.from_rows([[("a",)]], item=0), TypeError, "row 0, position 0: 'a' is not a number"),
    (lambda: Ragged.from_rows([[(0.5,), (None,)]], item=0), TypeError, "row 0, position 1: None is not a number"),
    (lambda: Ragged.from_rows([[([1],)]], item=0), ValueError, "row 0, position 0: a number expected, got a list of 1"),
    (lambda: Ragged.from_rows([[(300,)]], np.uint8, item=0), OverflowError, "row 0, position 0: 300 does not fit uint8"),
    (lambda: Ragged.from_rows([[{"a": 1}, {}]], item="a"), ValueError, "row 0, position 1: a dict without 'a'"),
    (lambda: Ragged.from_rows([[1.5]], item="logprob"), TypeError, "row 0, position 0: 1.5 has no attribute 'logprob'"),
    (lambda: pick_numbers([[{}]], 0.5, F32, keys=[[1]]), TypeError, "item must be an int or a str, got float"),
    (lambda: pick_numbers([[{}]], None, F32), TypeError, "item must be an int or a str, got NoneType"),
    (lambda: pick_numbers([[{}]], "a", F32, keys=[]), ValueError, "keys has 0 rows, rows has 1"),
    (lambda: pick_numbers([[{}], [{}]], "a", F32, keys=[[1], 2]), TypeError, "row 1 of keys is int, expected a list or tuple"),
    (lambda: pick_numbers([[{1: 2}, {}]], None, F32, keys=[[1]]), ValueError, "row 0 has 2 elements for 1 tokens"),
    (lambda: pick_numbers([[{1: 2}, None]], None, F32, keys=[[1, 1]]), TypeError, "row 0, position 1: a dict by token expected, got None"),
    (lambda: pick_numbers([[{1: 2}, {5: 1, 6: 1, 7: 1, 8: 1, 9: 1}]], None, F32, keys=[[1, 3]]), ValueError, "row 0, position 1: no entry for token 3 among 5, 6, 7, 8, …"),
    (lambda: pick_numbers([[{}]], None, F32, keys=[[3]]), ValueError, "row 0, position 0: no entry for token 3 among nothing"),
]
# fmt: on


@pytest.mark.parametrize(("call", "kind", "message"), REFUSED, ids=[message for *_, message in REFUSED])
def test_refusals(call: Callable[[], Any], kind: type[Exception], message: str) -> None:
    with pytest.raises(kind) as caught:
        call()
    assert type(caught.value) is kind
    assert caught.value.args[0] == message
