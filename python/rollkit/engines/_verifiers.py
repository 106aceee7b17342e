"""What environments of verifiers return: `from_verifiers`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from typing import Any

import numpy as np

from rollkit._check import Int64s
from rollkit._errors import at, refusal
from rollkit._frameworks import AnyArray, as_array
from rollkit._rollouts.rollouts import Rollouts
from rollkit._rows.ragged import Ragged
from rollkit.engines._columns import lists, rollouts_of, split, stop_reasons
from rollkit.engines._fields import (
    FLOAT32,
    UINT8,
    as_list,
    check_lengths,
    field,
    in_all,
    ints,
    listed,
    numbers,
    results_of,
    tokens_of,
)
from rollkit.engines._routes import COLUMN, Sent, add_routes
from rollkit.engines._trl import first_flags

KIND = "a Trace, with 'nodes', or a rollout, with 'trajectory'"


def from_verifiers(traces: Any, *, rewards: Any = None, masks: Any = None) -> Rollouts:
    """Rollouts of verifiers' traces, a row a branch; of its older rollouts, a row a step.

    A trace is a tree of messages, each with the tokens that it adds. A branch is a way from a root to a leaf,
    and one training sample; its response begins with the first token that was sampled. Branches of attempts
    to compact a conversation that were not gone on from are left out, as verifiers leaves them.

    Args:
        traces: `Trace`s of `verifiers.v1`, or the dicts of a `traces.jsonl`; or of verifiers before, the
            `"outputs"` of a run (or the dict that holds them), whose `trajectory` has steps with `tokens`.
        rewards: one per row, or one per response token. Default: the trace's.
        masks: one per response token, or one per row. Default: which tokens were sampled.

    Returns:
        Rollouts with `prompt_token_ids`, `response_ids` (int32), `loss_masks` (uint8), `rewards`,
        `trajectory_ids` (the trace's id), and of what there is `rollout_logprobs` (0 for what was not
        sampled), `rollout_expert_indices`, `sampling_masks` (no ids for what was not sampled), `stop_reasons`
        (of the last response, or the trace's stop condition) and `instance_ids` (the task's key). Steps have
        `is_last_step`, for `merge_steps`.

    Raises:
        ValueError: a field is in some rows and not in others, or has more or fewer entries than there are
            tokens; the row is named.
        TypeError: something is no such trace.

    Fields are those of verifiers of September 2026 (`verifiers/v1/trace.py`, `verifiers/types.py`).

    Example:
        >>> prompt = {"parent": None, "token_ids": [1, 2], "mask": [False, False], "logprobs": []}
        >>> reply = {"parent": 0, "token_ids": [3, 7], "mask": [False, True], "logprobs": [-0.5]}
        >>> rollouts = from_verifiers([{"id": "t", "nodes": [prompt, reply], "reward": 1.0}])
        >>> rollouts["prompt_token_ids"].to_list(), rollouts["rollout_logprobs"].to_list()
        ([[1, 2, 3]], [[-0.5]])
    """
    if isinstance(traces, Mapping) and "outputs" in traces:
        traces = traces["outputs"]
    found = results_of("traces", traces)
    if found and field(found[0], "nodes") is None and field(found[0], "trajectory") is not None:
        return _of_steps(found, rewards, masks)
    owners: list[Any] = []
    paths: list[list[Any]] = []
    for i, trace in enumerate(found):
        nodes = listed(f"traces[{i}]", trace, "nodes", KIND)
        branches = list(_branches(i, nodes))
        paths += branches
        owners += [trace] * len(branches)
    columns = _tokens(paths)
    _add_logprobs(columns, paths)
    firsts = first_flags(columns["masks"])
    prompts, responses = split(columns.pop("ids"), firsts)
    flags = columns.pop("masks")
    columns |= {"prompt_token_ids": prompts, "response_ids": responses, "loss_masks": split(flags, firsts)[1]}
    if "rollout_logprobs" in columns:
        columns["rollout_logprobs"] = split(columns["rollout_logprobs"], firsts)[1]
    _add_routes(columns, paths)
    _add_sampling(columns, paths, firsts)
    _add_rows(columns, owners, [_reason(trace, path) for trace, path in zip(owners, paths, strict=True)])
    return rollouts_of(columns, _rewards(owners) if rewards is None else rewards, masks)


def _branches(number: int, nodes: Sequence[Any]) -> Iterator[list[Any]]:
    """The ways from roots to leaves, in the order of the leaves."""
    parents = [field(node, "parent") for node in nodes]
    for at_node, parent in enumerate(parents):
        if parent is not None and not (isinstance(parent, int) and 0 <= parent < at_node):
            text = (
                f"traces[{number}].nodes[{at_node}].parent is {parent!r}; a parent comes before its children"
            )
            raise ValueError(text)
    inner = {parent for parent in parents if parent is not None}
    links = [field(node, "semantic_parents") or () for node in nodes]
    accepted = {
        field(link, "node") for found in links for link in found if field(link, "type") == "compaction"
    }
    for leaf in range(len(nodes)):
        attempt = any(field(link, "type") == "compaction_attempt" for link in links[leaf])
        if leaf in inner or (attempt and leaf not in accepted):
            continue
        path, node = [], leaf
        while node is not None:
            path.append(nodes[node])
            node = parents[node]
        yield path[::-1]


def _joined(column: str, row: int, path: Sequence[Any], name: str) -> list[Any]:
    """A field of all nodes of a branch, end to end; of those that lack it, nothing."""
    found = [field(node, name) for node in path]
    return list(chain.from_iterable(as_list(column, row, value) for value in found if value is not None))


def _tokens(paths: Sequence[Sequence[Any]]) -> dict[str, Any]:
    ids = ints(
        "response_ids", [_joined("response_ids", i, path, "token_ids") for i, path in enumerate(paths)]
    )
    rows = [_joined("loss_masks", i, path, "mask") for i, path in enumerate(paths)]
    masks = numbers("loss_masks", rows, UINT8)
    odd = np.flatnonzero(masks.lengths != ids.lengths)
    if len(odd):
        row = int(odd[0])
        text = f" has {masks.lengths[row]} elements of 'mask' for {ids.lengths[row]} tokens"
        raise refusal(ValueError, text, column="loss_masks", row=row)
    return {"ids": ids, "masks": masks}


def _add_logprobs(columns: dict[str, Any], paths: Sequence[Sequence[Any]]) -> None:
    """Nodes have one for each token that was sampled; the others get 0."""
    name, masks = "rollout_logprobs", columns["masks"]
    rows = [_joined(name, i, path, "logprobs") for i, path in enumerate(paths)]
    if not any(rows):
        return
    found = numbers(name, rows, FLOAT32)
    before = np.append(0, np.cumsum(masks.values != 0))  # the sampled tokens before each
    sampled = before[masks.offsets[1:]] - before[masks.offsets[:-1]]
    odd = np.flatnonzero(found.lengths != sampled)
    if len(odd):
        row = int(odd[0])
        text = f" has {found.lengths[row]} log-probabilities for {sampled[row]} sampled tokens"
        raise refusal(ValueError, text, column=name, row=row)
    values = np.zeros(len(masks.values), np.float32)
    values[masks.values != 0] = found.values
    columns[name] = Ragged(values, masks.offsets)


def _add_routes(columns: dict[str, Any], paths: Sequence[Sequence[Any]]) -> None:
    sent = []
    for row, path in enumerate(paths):
        nodes = [node for node in path if len(field(node, "token_ids") or ())]
        routes = [field(node, "routed_experts") for node in nodes]
        there = [one is not None for one in routes]
        if any(there) and not all(there):
            text = f" has routes of {sum(there)} of its {len(there)} messages; all or none are needed"
            raise refusal(ValueError, text, column=COLUMN, row=row)
        sent.append(Sent(_end_to_end(row, routes) if all(there) and there else None))
    add_routes(columns, "routed_experts", sent, columns["prompt_token_ids"].lengths)


def _end_to_end(row: int, routes: Sequence[Any]) -> AnyArray:
    with at(column=COLUMN, row=row):
        try:
            return np.concatenate([np.asarray(as_array(one)) for one in routes])
        except ValueError as error:
            raise ValueError(f"routes of messages do not fit together: {error}") from None


def _add_sampling(columns: dict[str, Any], paths: Sequence[Sequence[Any]], firsts: Int64s) -> None:
    """Nodes have a list for each token that was sampled; the others have an empty one."""
    name = "sampling_masks"
    found = [[field(node, "sampling_mask") for node in path] for path in paths]
    if all(mask is None for row in found for mask in row):
        return
    rows = []
    for row, (path, masks) in enumerate(zip(paths, found, strict=True)):
        whole: list[Any] = []
        for node, mask in zip(path, masks, strict=True):
            flags = field(node, "mask") or ()
            sampled = np.array([sum(flags)])
            with at(row=row):
                ids = lists(name, "sampling_mask", [mask or [[]] * int(sampled[0])], sampled)[0]
            kept = iter(ids)
            whole += [next(kept) if flag else [] for flag in flags]
        rows.append(whole[int(firsts[row]) :])
    columns[name] = lists(name, "sampling_mask", rows, columns["response_ids"].lengths)


def _reason(trace: Any, path: Sequence[Any]) -> Any:
    reasons = (field(node, "finish_reason") for node in reversed(path))
    return next((reason for reason in reasons if reason is not None), field(trace, "stop_condition"))


def _add_rows(columns: dict[str, Any], owners: Sequence[Any], reasons: Sequence[Any]) -> None:
    stop_reasons(columns, "finish_reason", reasons)
    ids = [field(trace, "id") for trace in owners]
    if in_all("trajectory_ids", "id", ids):
        columns["trajectory_ids"] = ids
    tasks = [_task(field(trace, "task")) for trace in owners]
    if in_all("instance_ids", "task.key", tasks):
        columns["instance_ids"] = tasks


def _task(task: Any) -> Any:
    """What says which task it is: its key, or else its hash, or the number of its row."""
    places = ((task, "key"), (task, "hash"), (field(task, "data"), "idx"), (task, "idx"))
    return next((found for owner, name in places if (found := field(owner, name)) is not None), None)


def _rewards(owners: Sequence[Any]) -> Any:
    found = [_reward(trace) for trace in owners]
    return found if in_all("rewards", "reward", found) else None


def _reward(trace: Any) -> Any:
    """A trace's reward; on disk there are its parts."""
    found, parts = field(trace, "reward"), field(trace, "rewards")
    if found is not None or not isinstance(parts, Mapping):
        return found
    return sum(_part(part) for part in parts.values() if part is not None)


def _part(part: Any) -> Any:
    score = field(part, "score")
    if score is None:
        return part
    weight = field(part, "weight")
    return score * (1.0 if weight is None else weight)


def _of_steps(outputs: Sequence[Any], rewards: Any, masks: Any) -> Rollouts:
    """Rollouts of verifiers before traces: `trajectory` has a step for each turn."""
    steps: list[Any] = []
    owners: list[tuple[int, Any]] = []
    for i, output in enumerate(outputs):
        found = listed(f"traces[{i}]", output, "trajectory", KIND)
        steps += found
        owners += [(i, output)] * len(found)
    tokens = [field(step, "tokens") for step in steps]

    def of(name: str, column: str) -> list[Any]:
        return tokens_of(column, f"tokens.{name}", [field(one, name) for one in tokens])

    columns: dict[str, Any] = {
        "prompt_token_ids": ints("prompt_token_ids", of("prompt_ids", "prompt_token_ids")),
        "response_ids": ints("response_ids", of("completion_ids", "response_ids")),
    }
    lengths = columns["response_ids"].lengths
    columns["loss_masks"] = numbers("loss_masks", of("completion_mask", "loss_masks"), UINT8)
    check_lengths("loss_masks", columns["loss_masks"].lengths, lengths)
    found = [field(one, "completion_logprobs") for one in tokens]
    if in_all("rollout_logprobs", "tokens.completion_logprobs", found):
        columns["rollout_logprobs"] = numbers("rollout_logprobs", found, FLOAT32)
        check_lengths("rollout_logprobs", columns["rollout_logprobs"].lengths, lengths)
    routes = [field(one, "routed_experts") for one in tokens]
    sent = [Sent(one, start=int(one.get("start") or 0) if isinstance(one, Mapping) else 0) for one in routes]
    add_routes(columns, "tokens.routed_experts", sent, columns["prompt_token_ids"].lengths)
    stop_reasons(columns, "stop_condition", [field(output, "stop_condition") for _, output in owners])
    ids = [field(output, "example_id") for _, output in owners]
    if in_all("instance_ids", "example_id", ids):
        columns["instance_ids"] = ids
    whose = [number for number, _ in owners]
    ids = [field(output, "trajectory_id") for _, output in owners]
    columns["trajectory_ids"] = ids if in_all("trajectory_ids", "trajectory_id", ids) else whose
    columns["is_last_step"] = np.array([a != b for a, b in zip(whose, [*whose, -1][1:], strict=True)], bool)
    if rewards is None:
        scored = [field(output, "reward") for _, output in owners]
        rewards = scored if in_all("rewards", "reward", scored) else None
    return rollouts_of(columns, rewards, masks)
