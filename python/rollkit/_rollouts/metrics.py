"""What a batch of rollouts looks like: token, turn and time statistics, from columns."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from rollkit import _check
from rollkit._check import Int64s
from rollkit._frameworks import AnyArray, as_array
from rollkit._rollouts.columns import as_column, mask_column, row_lengths, turns_of, uneven
from rollkit._rollouts.rewards import row_rewards
from rollkit._rollouts.sources import Source, as_rollouts, columns_in, sources_of
from rollkit._rows.ragged import Ragged, trusted

Metrics = dict[str, float]

_FLOAT64 = np.dtype(np.float64)


def turn_lengths(loss_masks: Ragged | Sequence[Any]) -> Ragged:
    """Lengths of the turns of each row: the maximal runs of non-zero mask elements.

    What the model generated has mask 1 and what the environment added has 0, so a run is a turn. A row
    that is masked whole has none.

    Args:
        loss_masks: one mask per row: a `Ragged` of bools, ints or floats, or rows (lists, arrays,
            tensors).

    Returns:
        `[turns]` int64 values, one row per mask.

    Raises:
        TypeError: the masks are no numbers, or have inner dimensions.

    Example:
        >>> turn_lengths([[1, 1, 0, 1], [0, 0], [1]]).to_list()
        [[2, 1], [], [1]]
    """
    masks = mask_column(loss_masks)
    lengths, offsets, _ = turns_of(masks)
    return trusted(lengths, offsets)


def rollout_metrics(
    rollouts: Source | Sequence[Source],
    *,
    time_splits: Mapping[str, ArrayLike] | None = None,
    generator_metrics: Iterable[Mapping[str, Any] | None] = (),
    current: int | None = None,
) -> Metrics:
    """Summarise rollouts for a tracker, in one pass over the mask and the row lengths.

    The keys and formulas are those of SkyRL's `get_rollout_metrics` (NovaSky-AI/SkyRL, August 2026).

    Args:
        rollouts: `Rollouts`, a `GeneratorOutput`-shaped dict, or a sequence of them whose rows count
            through. `response_ids` and `rewards` (per row or per token) are needed; used where present:
            `loss_masks`, `trajectory_generation_times` (seconds per row), `env_metrics` (a dict per row) with
            `env_classes`.
        time_splits: parts of the generation times by name (`"llm"`, `"env"`), `[rows]` seconds each;
            what they leave is reported as `"other"`. By default a dict's `trajectory_time_splits`.
        generator_metrics: what generators measured themselves, a dict each. By the name of a key, its
            values are averaged (`avg`, `mean`), or the least (`min`) or greatest (`max`) is taken, or
            they are summed. Keys that are measured here, and values that are no numbers, are left out.
        current: the number of the weights that are trained now, for `model_versions`; the newest that there
            is by default.

    Returns:
        * `generate/{min,max,avg,std}_num_tokens`: of the responses; `std` divides by the row count.
        * `generate/avg_tokens_{non_zero,zero}_rewards`: of rows with a reward above 0, and of 0; 0.0 if
          there are none.
        * `generate/{avg,min,max,std}_assistant_tokens`: the sum of each row's mask.
        * `generate/tokens_per_turn_{mean,std,max}`: see `turn_lengths`; absent without turns.
        * `generate/trajectory_time_{completion,…}_{mean,p90,max}`.
        * `generate/staleness_{mean,max}` and `generate/versions_per_response_mean`: where there are
          `model_versions`, how many versions older than `current` the weights were that sampled a token, and
          how many sampled one response.
        * `environment/…`: numbers of `env_metrics`, averaged by key within each environment class.

    Raises:
        ValueError: there are no rows, columns differ in row count, or `env_metrics` and `env_classes` do.
        TypeError: rewards are no numbers; the row is named.
        KeyError: a column is missing.

    Example:
        >>> metrics = rollout_metrics({
        ...     "response_ids": [[1, 2, 3], [4]],
        ...     "rewards": [1.0, 0.0],
        ...     "loss_masks": [[1, 0, 1], [1]],
        ... })
        >>> metrics["generate/avg_num_tokens"], metrics["generate/tokens_per_turn_max"]
        (2.0, 1)
    """
    sources = sources_of(rollouts)
    columns = columns_in(sources)[0] if len(sources) == 1 else as_rollouts(sources).columns
    masks = columns.get("loss_masks")
    metrics = measure(
        row_lengths(columns["response_ids"]),
        row_rewards(columns["rewards"]),
        masks=None if masks is None else mask_column(masks),
        times=columns.get("trajectory_generation_times"),
        time_splits=_check.mapping("time_splits", time_splits) or _time_splits(sources),
        env_metrics=columns.get("env_metrics"),
        env_classes=columns.get("env_classes"),
    )
    if "model_versions" in columns:
        metrics |= _staleness(as_column("model_versions", columns["model_versions"]), current)
    return merge_extra(metrics, generator_metrics)


def _staleness(versions: Any, current: int | None) -> Metrics:
    """How old the weights were that sampled tokens; tokens below 0 were not sampled."""
    if not isinstance(versions, Ragged):
        raise TypeError("column 'model_versions': expected an element per token, got one per row")
    flat = versions.flat.astype(np.int64)
    sampled = flat >= 0
    if not sampled.any():
        return {}
    newest = int(flat.max()) if current is None else _check.integer("current", current)
    if flat.max() > newest:
        raise ValueError(f"column 'model_versions': version {flat.max()} is newer than current={newest}")
    old = newest - flat[sampled]
    rows = np.repeat(np.arange(len(versions)), versions.lengths)[sampled]
    pairs = np.unique(np.stack([rows, flat[sampled]]), axis=1).shape[1]
    return {
        "generate/staleness_mean": float(old.mean()),
        "generate/staleness_max": int(old.max()),
        "generate/versions_per_response_mean": pairs / len(np.unique(rows)),
    }


def _time_splits(sources: Sequence[Any]) -> dict[str, list[float]]:
    """What the dicts among the sources have under `trajectory_time_splits`, their rows counted through."""
    splits: dict[str, list[float]] = {}
    for source in sources:
        if isinstance(source, Mapping):
            for name, seconds in (source.get("trajectory_time_splits") or {}).items():
                splits.setdefault(name, []).extend(seconds)
    return splits


def measure(
    lengths: Int64s,
    rewards: AnyArray,
    *,
    masks: Ragged | None = None,
    times: Any = None,
    time_splits: Mapping[str, Any] | None = None,
    env_metrics: Any = None,
    env_classes: Any = None,
) -> Metrics:
    """`rollout_metrics` of what it needs: response lengths and rewards per row, and the mask."""
    for name, rows in (("rewards", rewards), ("loss_masks", masks)):
        if rows is not None and len(rows) != len(lengths):
            raise uneven(name, len(rows), "response_ids", len(lengths))
    metrics = _tokens(lengths, rewards)
    if masks is not None:
        metrics |= _assistant(masks)
    splits = time_splits or {}
    has_times = times is not None and len(times) > 0
    for name, found in (("completion", times), *splits.items()):
        metrics |= _times(name, found)
    if has_times and splits:
        rest = np.array(as_array(times), _FLOAT64)
        for found in splits.values():
            rest = rest - np.array(as_array(found), _FLOAT64)
        metrics |= _times("other", rest)
    if env_metrics is not None and env_classes is not None:
        metrics |= _environments(env_metrics, env_classes)
    return metrics


def merge_extra(metrics: Metrics, parts: Iterable[Mapping[str, Any] | None]) -> Metrics:
    """Add what generators measured themselves, by the meaning that a key's name has.

    A key with `avg` or `mean` in it is averaged, one with `min` or `max` takes that, any other is summed.
    """
    extra: dict[str, list[float]] = {}
    for part in _check.items("generator_metrics", parts):
        for key, value in _check.mapping("an item of generator_metrics", part).items():
            if key not in metrics and isinstance(value, int | float):
                extra.setdefault(key, []).append(value)
    return metrics | {key: _aggregate(key, values) for key, values in extra.items()}


def _tokens(lengths: Int64s, rewards: AnyArray) -> Metrics:
    if not len(lengths):
        raise ValueError("there are no rollouts to measure")
    paid, unpaid = rewards > 0.0, rewards == 0.0
    return {
        "generate/min_num_tokens": lengths.min().item(),
        "generate/max_num_tokens": lengths.max().item(),
        "generate/avg_num_tokens": lengths.mean().item(),
        "generate/std_num_tokens": lengths.std().item(),
        "generate/avg_tokens_non_zero_rewards": lengths[paid].mean().item() if paid.any() else 0.0,
        "generate/avg_tokens_zero_rewards": lengths[unpaid].mean().item() if unpaid.any() else 0.0,
    }


def _assistant(masks: Ragged) -> Metrics:
    turns, _, counts = turns_of(masks)
    tokens = counts if _is_flags(masks) else _mask_sums(masks)
    metrics = {
        "generate/avg_assistant_tokens": tokens.mean().item(),
        "generate/min_assistant_tokens": tokens.min().item(),
        "generate/max_assistant_tokens": tokens.max().item(),
        "generate/std_assistant_tokens": tokens.std().item(),
    }
    if len(turns):
        metrics["generate/tokens_per_turn_mean"] = turns.mean().item()
        metrics["generate/tokens_per_turn_std"] = turns.std().item()
        metrics["generate/tokens_per_turn_max"] = turns.max().item()
    return metrics


def _is_flags(masks: Ragged) -> bool:
    """Whether a mask's sum is the number of its non-zero elements."""
    if masks.dtype == bool or not masks.flat.size:
        return True
    return masks.dtype.kind == "u" and int(masks.flat.max()) <= 1


def _mask_sums(masks: Ragged) -> AnyArray:
    """Sums one after the other, as `sum` makes them; for floats that is another rounding than NumPy's."""
    if masks.dtype.kind == "f":
        return np.array([sum(row.tolist()) for row in masks])
    return np.array([row.sum() for row in masks], np.int64)


def _times(name: str, times: Any) -> Metrics:
    if times is None or not np.size(as_array(times)):
        return {}
    seconds = _check.floats(f"times of {name!r}", times)
    return {
        f"generate/trajectory_time_{name}_mean": seconds.mean().item(),
        f"generate/trajectory_time_{name}_p90": np.percentile(seconds, 90).item(),
        f"generate/trajectory_time_{name}_max": seconds.max().item(),
    }


def _environments(env_metrics: Sequence[Any], env_classes: Sequence[Any]) -> Metrics:
    if len(env_classes) < len(env_metrics):
        raise ValueError(f"env_metrics has {len(env_metrics)} rows, env_classes has {len(env_classes)}")
    by_class: dict[Any, list[Any]] = {}
    for name, found in zip(env_classes, env_metrics, strict=False):
        by_class.setdefault(name, []).append(found)
    # Environments registered with SkyRL-Gym may have their own aggregation.
    gym = sys.modules.get("skyrl_gym.metrics")
    metrics: Metrics = {}
    for name, rows in by_class.items():
        found = _averages(rows) if gym is None else gym.aggregate_for_environment(name, rows)
        metrics |= {f"environment/{key}": value for key, value in found.items()}
    return metrics


def _averages(rows: Iterable[Mapping[str, Any]]) -> Metrics:
    values: dict[str, list[float]] = {}
    for row in rows:
        for key, value in row.items():
            if isinstance(value, int | float):
                values.setdefault(key, []).append(float(value))
    return {key: sum(found) / len(found) for key, found in values.items()}


def _aggregate(key: str, values: list[float]) -> float:
    if "avg" in key or "mean" in key:
        return sum(values) / len(values)
    if "min" in key:
        return min(values)
    return max(values) if "max" in key else sum(values)
