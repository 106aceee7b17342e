"""Why a rollout ended: the words of engines, and which of them say that it finished."""

from __future__ import annotations

import enum
from collections.abc import Iterable, Mapping
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from rollkit._errors import refusal
from rollkit._rollouts.columns import Column
from rollkit._rows.ragged import Ragged

# Who says what: vLLM and OpenAI stop, tool_calls, function_call; SGLang {"type": "stop"}; Anthropic end_turn,
# stop_sequence, tool_use; TGI eos_token; TensorRT-LLM end_id, stop_words; llama.cpp eos, word.
FINISHED: Final = frozenset({
    "stop", "eos", "eos_token", "end_id", "end_turn", "stop_sequence", "stop_words", "stop_token", "word",
    "tool_calls", "tool_call", "tool_use", "function_call", "completed",
})  # fmt: skip

# vLLM and OpenAI length, content_filter, abort, error; Anthropic max_tokens, pause_turn, refusal,
# model_context_window_exceeded; TensorRT-LLM timeout, cancelled, not_finished; llama.cpp limit;
# rollkit's own `generate` cancelled, nan, masked.
CUT: Final = frozenset({
    "length", "max_tokens", "max_new_tokens", "max_length", "max_output_tokens", "limit",
    "context_length", "model_context_window_exceeded", "abort", "aborted", "cancelled", "canceled",
    "timeout", "timed_out", "error", "content_filter", "safety", "refusal", "pause_turn",
    "not_finished", "incomplete", "nan", "masked",
})  # fmt: skip


Words = str | Iterable[str | None] | None


def finished(reasons: Column, *, keep: Words, cut: Words) -> NDArray[np.bool_]:
    """`[rows]` bool: the rollout came to its own end.

    Raises:
        ValueError: a reason is of no known engine, and neither in `keep` nor in `cut`; its row is named.
    """
    ends = dict.fromkeys(FINISHED, True) | dict.fromkeys(CUT, False)
    ends |= dict.fromkeys(_words("cut", cut), False) | dict.fromkeys(_words("keep", keep), True)
    if isinstance(reasons, Ragged):
        raise refusal(TypeError, "expected a word per row, got rows of elements", column="stop_reasons")
    found = np.empty(len(reasons), bool)
    for row, reason in enumerate(reasons):
        end = ends.get(_word(reason))
        if end is None:
            raise refusal(ValueError, _unknown(reason), column="stop_reasons", row=row)
        found[row] = end
    return found


def _words(name: str, given: Any) -> list[Any]:
    """The words of an option: one, or several."""
    if given is None or isinstance(given, str):
        return [_word(given)]
    if not isinstance(given, Iterable):
        raise TypeError(f"{name} must be stop reasons, such as ('eos',), got {type(given).__name__}")
    return [_word(reason) for reason in list(given)]  # at once: what is too many has no memory


def _word(reason: Any) -> Any:
    """A reason as the table has it: in small letters, of SGLang's dict its type, of an enum its name."""
    if isinstance(reason, Mapping):
        reason = reason.get("type")
    if isinstance(reason, enum.Enum):
        reason = reason.name
    if reason is None or isinstance(reason, str):
        return reason if reason is None else reason.lower()
    return f"<{reason.item() if isinstance(reason, np.generic) else reason!r}>"  # NaN is no word "nan"


def _unknown(reason: Any) -> str:
    return (
        f" is {reason!r}, which is not known to say that a rollout finished, nor that it was cut off; "
        f"pass keep=({reason!r},) or cut=({reason!r},)"
    )
