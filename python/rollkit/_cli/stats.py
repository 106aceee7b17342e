"""`rollkit stats`: what rollouts are, in numbers."""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Iterable
from typing import Any

import numpy as np

from rollkit._check import Int64s
from rollkit._cli import text
from rollkit._cli.arguments import FILES, add_json, add_reading
from rollkit._frameworks import AnyArray
from rollkit._rollouts.columns import Column, level_of
from rollkit._rollouts.rollouts import Rollouts
from rollkit._rows.ragged import Ragged


def add(commands: Any) -> None:
    """Add the command."""
    stats = commands.add_parser(
        "stats",
        help="rows, tokens, lengths, rewards and columns of files",
        description="Say what rollouts are in numbers. Memory stays bounded, but for the lengths of rows.",
    )
    stats.set_defaults(run=_run)
    stats.add_argument("sources", nargs="+", metavar="FILE", help=FILES)
    add_reading(stats)
    add_json(stats)


class Stats:
    """Numbers of rollouts, which come chunk by chunk."""

    def __init__(self) -> None:
        self.rows = 0
        self._dtypes: dict[str, dict[str, None]] = defaultdict(dict)
        self._counts: dict[str, int] = defaultdict(int)
        self._lengths: dict[str, list[Int64s]] = defaultdict(list)
        self._rewards: list[AnyArray] = []
        self._masked = [0, 0]  # elements that are not 0, and all

    def add(self, chunk: Rollouts) -> None:
        """Count rows."""
        self.rows += len(chunk)
        for name, column in chunk.items():
            self._counts[name] += len(column)
            kind = "objects" if isinstance(column, list) else str(column.dtype)
            inner = column.inner if isinstance(column, Ragged) else ()
            self._dtypes[name][f"{kind} {text.shape(list(inner))}" if inner else kind] = None
            if isinstance(column, Ragged):
                self._lengths[name].append(column.lengths)
        if "rewards" in chunk:
            self._rewards.append(_per_row(chunk["rewards"]))
        masks = chunk.columns.get("loss_masks")
        if isinstance(masks, Ragged):
            self._masked[0] += int(np.count_nonzero(masks.flat))
            self._masked[1] += len(masks.flat)

    def found(self) -> dict[str, Any]:
        """The numbers."""
        prompts, responses = self._whole("prompt_token_ids"), self._whole("response_ids", "input_ids")
        found: dict[str, Any] = {
            "rows": self.rows,
            "tokens": int(prompts.sum() + responses.sum()),
            "lengths": {
                name: text.quantiles(lengths)
                for name, lengths in (
                    ("prompt", prompts),
                    ("response", responses),
                    ("all", prompts + responses),
                )
            },
        }
        if self._masked[1]:
            found["masks"] = {"trained": self._masked[0], "of": self._masked[1]}
        if self._rewards:
            found["rewards"] = _rewards(np.concatenate(self._rewards))
        found["columns"] = {
            name: {
                "dtype": ", ".join(dtypes),
                "per": self._level(name, prompts, responses),
                "rows": self._counts[name],
            }
            for name, dtypes in self._dtypes.items()
        }
        return found

    def _whole(self, *names: str) -> Int64s:
        for name in names:
            if self._counts[name] == self.rows and self._lengths[name]:
                return np.concatenate(self._lengths[name])
        return np.zeros(self.rows, np.int64)

    def _level(self, name: str, prompts: Int64s, responses: Int64s) -> str:
        """What a column has an element for; "element" where rows are as long as they like."""
        if name not in self._lengths:
            return "row"
        try:
            level = level_of(name, np.concatenate(self._lengths[name]), prompts, responses)
        except ValueError:
            return "element"
        return level if level == "row" else f"{level} token"


def _per_row(rewards: Column) -> AnyArray:
    """The reward of each row, NaN where there is none."""
    if isinstance(rewards, Ragged):
        sums = np.append(0, np.cumsum(rewards.flat, dtype=np.float64))
        found: AnyArray = np.diff(sums[rewards.offsets - rewards.offsets[0]])
        return found
    entries = (
        [np.nan if entry is None else entry for entry in rewards] if isinstance(rewards, list) else rewards
    )
    return np.asarray(entries).astype(np.float64)


def _rewards(rewards: AnyArray) -> dict[str, Any]:
    known = rewards[~np.isnan(rewards)]
    found: dict[str, Any] = {"rows": len(known), "missing": len(rewards) - len(known)}
    if len(known):
        found |= {name: float(getattr(known, name)()) for name in ("mean", "std", "min", "max")}
        found["positive"] = float((known > 0).mean())
    return found


def _run(options: argparse.Namespace) -> int:
    from rollkit._cli.inputs import inputs
    from rollkit._files.paths import sources
    from rollkit._files.read import Reading, chunks_of
    from rollkit._files.stream import no_rollouts

    stats = Stats()
    how = Reading(nonfinite=options.nonfinite or "raise", rename=dict(options.rename or ()))
    with inputs(options.sources) as given:
        files = sources(given)
        for file in files:
            for chunk in filter(len, chunks_of(file, 256, how)):
                stats.add(chunk)
    if not stats.rows:
        raise no_rollouts(files)
    found = {"files": len(files), **stats.found()}
    if options.json:
        text.json_object(found)
    else:
        _show(found)
    return 0


def _show(found: dict[str, Any]) -> None:
    text.table(_totals(found))
    text.heading("Lengths")
    text.table(_quantiles(found["lengths"]), numbers=True)
    text.heading("Columns")
    rows = found["rows"]
    text.table(
        (
            text.printable(name),
            column["dtype"],
            f"per {column['per']}",
            *([f"in {column['rows']:,} of {rows:,} rows"] if column["rows"] != rows else []),
        )
        for name, column in found["columns"].items()
    )


def _totals(found: dict[str, Any]) -> Iterable[text.Row]:
    for name in ("files", "rows", "tokens"):
        yield name, f"{found[name]:,}"
    if "masks" in found:
        trained, of = found["masks"]["trained"], found["masks"]["of"]
        yield "trained on", f"{trained:,} tokens ({trained / of:.1%} of the masks)".replace("%", " %")
    if "rewards" in found:
        rewards = found["rewards"]
        missing = f", {rewards['missing']:,} without" if rewards["missing"] else ""
        if rewards["rows"]:
            told = "mean {mean:.4g}, std {std:.4g}, {min:.4g} to {max:.4g}".format(**rewards)
            yield "rewards", f"{told}, {rewards['positive']:.1%}".replace("%", " %") + f" above 0{missing}"
        else:
            yield "rewards", f"none{missing}"


def _quantiles(lengths: dict[str, dict[str, float]]) -> Iterable[text.Row]:
    yield "", *next(iter(lengths.values()))
    for name, found in lengths.items():
        yield name, *(f"{value:,.1f}".removesuffix(".0") for value in found.values())
