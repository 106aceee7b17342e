"""The generator-output path said again in plain Python: slow and obvious."""

import statistics
from collections import defaultdict
from itertools import groupby
from typing import Any

import numpy as np


def turns(mask: list[Any]) -> list[int]:
    return [len(list(run)) for nonzero, run in groupby(mask, bool) if nonzero]


def metrics(
    responses: list[list[int]],
    rewards: list[Any],
    masks: list[list[Any]] | None = None,
    times: list[float] | None = None,
    splits: dict[str, list[float]] | None = None,
) -> dict[str, float]:
    lengths = [len(row) for row in responses]
    totals = [sum(row) if isinstance(row, list) else row for row in rewards]
    paid = [n for n, reward in zip(lengths, totals, strict=True) if reward > 0]
    unpaid = [n for n, reward in zip(lengths, totals, strict=True) if reward == 0]
    found = {
        "generate/min_num_tokens": min(lengths),
        "generate/max_num_tokens": max(lengths),
        "generate/avg_num_tokens": statistics.fmean(lengths),
        "generate/std_num_tokens": statistics.pstdev(lengths),
        "generate/avg_tokens_non_zero_rewards": statistics.fmean(paid) if paid else 0.0,
        "generate/avg_tokens_zero_rewards": statistics.fmean(unpaid) if unpaid else 0.0,
    }
    if masks is not None:
        sums = [sum(mask) for mask in masks]
        found |= {
            "generate/avg_assistant_tokens": statistics.fmean(sums),
            "generate/min_assistant_tokens": min(sums),
            "generate/max_assistant_tokens": max(sums),
            "generate/std_assistant_tokens": statistics.pstdev(sums),
        }
        runs = [run for mask in masks for run in turns(mask)]
        if runs:
            found |= {
                "generate/tokens_per_turn_mean": statistics.fmean(runs),
                "generate/tokens_per_turn_std": statistics.pstdev(runs),
                "generate/tokens_per_turn_max": max(runs),
            }
    named = {"completion": times or [], **(splits or {})}
    if times and splits:
        named["other"] = [t - sum(parts) for t, *parts in zip(times, *splits.values(), strict=True)]
    for name, seconds in named.items():
        if seconds:
            found |= {
                f"generate/trajectory_time_{name}_mean": statistics.fmean(seconds),
                f"generate/trajectory_time_{name}_p90": percentile_90(seconds),
                f"generate/trajectory_time_{name}_max": max(seconds),
            }
    return found


def percentile_90(values: list[float]) -> float:
    """Linear between the two nearest ranks."""
    ordered = sorted(values)
    at = 0.9 * (len(ordered) - 1)
    below = int(at)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (at - below)


def varied(rewards: list[float], ids: list[Any], live: list[bool] | None = None) -> list[bool]:
    """Whether each row's group has one row, or rewards that differ."""
    groups = defaultdict(list)
    for i, (reward, group) in enumerate(zip(rewards, ids, strict=True)):
        if live is None or live[i]:
            groups[group].append(reward)
    return [len(groups[group]) <= 1 or len(set(groups[group])) > 1 for group in ids]


def collate(
    pad: int,
    prompts: list[list[int]],
    responses: list[list[int]],
    *columns: list[list[float]] | None,
) -> list[Any]:
    """Sequences, attention mask, response mask, and each column right-aligned, as nested lists."""
    rows = [prompt + response for prompt, response in zip(prompts, responses, strict=True)]
    width, tail = max(map(len, rows)), max(map(len, responses))
    result: list[Any] = [
        [[pad] * (width - len(row)) + row for row in rows],
        [[0] * (width - len(row)) + [1] * len(row) for row in rows],
        [[0] * (tail - len(row)) + [1] * len(row) for row in responses],
    ]
    for column in columns:
        result.append(column and [[0.0] * (tail - len(row)) + [float(x) for x in row] for row in column])
    return result


def collate_routes(
    prompts: list[list[int]], responses: list[list[int]], routes: list[np.ndarray[Any, Any]]
) -> list[Any]:
    totals = [len(p) + len(r) for p, r in zip(prompts, responses, strict=True)]
    _, layers, topk = routes[0].shape
    dummy = [list(range(topk))] * layers
    return [
        [dummy] * (max(totals) - total) + found.tolist() + [dummy] * (total - len(found))
        for total, found in zip(totals, routes, strict=True)
    ]
