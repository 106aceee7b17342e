"""Steps of an agent whose contexts are edited, made from steps whose contexts are not."""

from __future__ import annotations

import numpy as np

from rollkit import Ragged, Rollouts


def edited(steps: Rollouts) -> Rollouts:
    """Drop the first half of what an agent wrote from all that it is shown later, as if it were its thoughts.

    Args:
        steps: rows of a trajectory are adjacent, and each begins with those before.
    """
    prompts, responses = steps.ragged("prompt_token_ids"), steps.ragged("response_ids")
    shown, before, dropped = [], None, np.zeros(0, np.int64)
    for prompt, count, trajectory in zip(prompts, responses.lengths, steps["trajectory_ids"], strict=True):
        if trajectory != before:
            before, dropped = trajectory, np.zeros(0, np.int64)
        shown.append(np.delete(prompt, dropped))
        dropped = np.append(dropped, len(prompt) + np.arange(count // 2))  # where this one wrote
    return steps.with_columns(prompt_token_ids=Ragged.from_rows(shown, prompts.dtype))
