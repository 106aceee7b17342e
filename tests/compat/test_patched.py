"""`patched`, with modules that stand for a framework's."""

from __future__ import annotations

import pickle
import sys
import threading
from types import ModuleType
from typing import Any
from unittest.mock import Mock

import pytest
import torch

from rollkit.compat import patched, trl

HOME = "trl.trainer.utils"


def pad() -> str:
    return "theirs"


@pytest.fixture(autouse=True)
def _no_other_homes(monkeypatch: pytest.MonkeyPatch) -> None:
    """TRL may be installed, and imported by then."""
    for home in ("trl.trainer.sft_trainer", "trl.data_utils"):
        monkeypatch.setitem(sys.modules, home, None)


@pytest.fixture
def theirs(monkeypatch: pytest.MonkeyPatch) -> tuple[Any, Any]:
    """The home of the originals, and a module that imported one by another name."""
    home, user = ModuleType(HOME), ModuleType("user_of_trl")
    vars(home).update(pad=pad, other=len)
    vars(user).update(their_pad=pad)
    for module in (home, user):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    return home, user


def test_replaces_every_reference_and_restores(theirs: tuple[Any, Any]) -> None:
    home, user = theirs
    original = home.pad  # not this module's `pad`, which is replaced as well
    late: Any = ModuleType("late_user_of_trl")
    with patched("trl") as names:
        assert names == ("pad",)
        assert home.pad is user.their_pad
        assert home.pad.__wrapped__ is trl.pad
        assert home.other is len
        with pytest.raises(ValueError, match="padding_side"):
            home.pad([torch.ones(1)], padding_side="top")
        late.pad, late.own = home.pad, trl.pad
        sys.modules[late.__name__] = late
    del sys.modules[late.__name__]
    assert home.pad is user.their_pad is late.pad is pad is original
    assert late.own is trl.pad


def test_a_class_is_replaced_by_one_that_pickles(
    theirs: tuple[Any, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What asks whether an object is of it must be told so, and a worker process must get it."""

    class DataCollatorForLanguageModeling:
        pass

    home: Any = ModuleType("trl.trainer.sft_trainer")
    home.DataCollatorForLanguageModeling = theirs[1].collator = DataCollatorForLanguageModeling
    home.pad = theirs[0].pad
    monkeypatch.setitem(sys.modules, home.__name__, home)
    with patched("trl") as names:
        assert names == ("pad", "DataCollatorForLanguageModeling")
        found = home.DataCollatorForLanguageModeling(pad_token_id=3)
        assert home.DataCollatorForLanguageModeling is theirs[1].collator
        assert isinstance(found, trl.DataCollatorForLanguageModeling)
        sent = pickle.loads(pickle.dumps(found))
        assert type(sent) is trl.DataCollatorForLanguageModeling
        assert sent.pad_token_id == 3
    assert home.DataCollatorForLanguageModeling is theirs[1].collator is DataCollatorForLanguageModeling


def test_restores_after_an_error(theirs: tuple[Any, Any]) -> None:
    with pytest.raises(KeyError), patched("trl"):
        raise KeyError
    assert theirs[0].pad is pad


def test_the_last_one_out_restores(theirs: tuple[Any, Any]) -> None:
    home, _ = theirs
    original = home.pad
    inside, leave = threading.Event(), threading.Event()

    def other() -> None:
        with patched("trl"), patched("trl"):
            inside.set()
            leave.wait(10)

    with patched("trl") as names:
        thread = threading.Thread(target=other)
        thread.start()
        assert inside.wait(10)
    assert home.pad is not original
    leave.set()
    thread.join()
    assert home.pad is original
    assert names == ("pad",)


def test_refusals(monkeypatch: pytest.MonkeyPatch) -> None:
    with (
        pytest.raises(ValueError, match=r"^name must be one of 'flash_attn', 'skyrl', .*, got 'nemo'$"),
        patched("nemo"),
    ):
        pass
    monkeypatch.setitem(sys.modules, HOME, None)
    with pytest.raises(ImportError, match=rf"^patched\('trl'\) replaces functions of {HOME}, which cannot"):
        patched("trl").__enter__()
    monkeypatch.setitem(sys.modules, HOME, ModuleType(HOME))
    with pytest.raises(ImportError, match=rf"^patched\('trl'\) found none of its functions in {HOME}"):
        patched("trl").__enter__()


def test_skyrl_logs_to_the_logger_that_its_test_patches(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its homes beyond the first need not be there."""

    def validate_generator_output(*_: Any) -> None:
        raise AssertionError

    utils: Any = ModuleType("skyrl.train.utils.trainer_utils")
    utils.validate_generator_output, utils.logger = validate_generator_output, Mock()
    for module in (ModuleType("skyrl.train.generators.utils"), utils):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    output = {"prompt_token_ids": [[1]], "response_ids": [[2]], "rewards": [1.0], "loss_masks": [[0]]}
    with patched("skyrl") as names:
        assert names == ("validate_generator_output",)
        utils.validate_generator_output(1, output)
    utils.logger.warning.assert_called_once()
    assert utils.validate_generator_output is validate_generator_output
