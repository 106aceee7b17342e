"""`rollkit head` and `rollkit show`: rollouts as text."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
from collections.abc import Iterator
from typing import Any, Final

import numpy as np

from rollkit._cli import text
from rollkit._cli.arguments import FILES, positive, row
from rollkit._rollouts.columns import Column, level_of
from rollkit._rollouts.fields import FIELDS
from rollkit._rollouts.rollouts import Rollouts
from rollkit._rows.ragged import Ragged

_SHORT: Final = 24
_IDS: Final = ("prompt_token_ids", "response_ids", "input_ids")


def add_head(commands: Any) -> None:
    """Add the command `head`."""
    head = commands.add_parser("head", help="the first rollouts of a file, a line each")
    head.set_defaults(run=_head)
    head.add_argument("source", metavar="FILE", help=FILES)
    head.add_argument("-n", "--rows", type=positive, default=10, metavar="N", help="how many (10)")


def add_show(commands: Any) -> None:
    """Add the command `show`."""
    show = commands.add_parser(
        "show",
        help="one rollout, a line for each token",
        description="Show a rollout: what it has one of, and then its tokens with their masks, "
        "log-probabilities, rewards and what else there is for each. On a terminal, tokens that are not "
        "trained on are dim and those with a reward bold, unless NO_COLOR is set.",
    )
    show.set_defaults(run=_show)
    show.add_argument("source", metavar="FILE", help=FILES)
    show.add_argument("row", type=row, metavar="ROW", help="which one, counted from 0")


def _chunks(source: str, rows: int) -> Iterator[Rollouts]:
    from rollkit._cli.inputs import inputs
    from rollkit._files.paths import sources
    from rollkit._files.read import Reading, chunks_of

    with inputs([source]) as given:
        for found in sources(given):
            yield from filter(len, chunks_of(found, rows, Reading(nonfinite="keep")))


def _head(options: argparse.Namespace) -> int:
    lines: list[text.Row] = []
    left = options.rows
    for chunk in _chunks(options.source, options.rows):
        if not lines:
            names = list(chunk)
            lines.append(("", *map(text.printable, names)))
        chunk = chunk[:left]
        cells = [
            [_cell(entry) for entry in chunk[name]] if name in chunk else [""] * len(chunk) for name in names
        ]
        first = options.rows - left
        lines += [(str(first + i), *line) for i, line in enumerate(zip(*cells, strict=True))]
        left -= len(chunk)
        if not left:
            break
    if not lines:
        raise ValueError(f"no rollouts in {options.source}")
    wide = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
    text.table(lines, width=wide)
    return 0


def _show(options: argparse.Namespace) -> int:
    before = 0
    for chunk in _chunks(options.source, 256):
        if options.row < before + len(chunk):
            at = options.row - before
            _tell(options, chunk[at : at + 1])
            return 0
        before += len(chunk)
    raise IndexError(f"{options.source}: no row {options.row:,}; there are {before:,}")


def _tell(options: argparse.Namespace, rollout: Rollouts) -> None:
    lengths = {name: len(rollout.ragged(name)[0]) if name in rollout else 0 for name in _IDS}
    prompt = lengths["prompt_token_ids"]
    response = lengths["response_ids"] + lengths["input_ids"]
    levels = {name: _level(name, column, prompt, response) for name, column in rollout.items()}
    text.table(
        [
            ("row", f"{options.row:,} of {options.source}"),
            ("tokens", f"{prompt + response:,} (prompt {prompt:,}, response {response:,})"),
            *(
                (text.printable(name), _cell(rollout[name][0], 10 * _SHORT))
                for name, level in levels.items()
                if level == "row"
            ),
        ]
    )
    names = [name for name, level in levels.items() if level != "row" and name not in _IDS]
    parts = ["prompt"] * prompt + ["response" if lengths["response_ids"] else ""] * response
    tokens = [entry for name in _IDS if name in rollout for entry in rollout.ragged(name)[0].tolist()]
    columns = [_spread(rollout.ragged(name)[0], levels[name], prompt, response) for name in names]
    print()
    text.table(
        [
            ("", "part", "token", *map(text.printable, names)),
            *zip(map(str, range(len(tokens))), parts, map(str, tokens), *columns, strict=True),
        ],
        numbers=True,
        styles=["", *_styles(rollout, levels, prompt, response)] if _in_colour() else None,
    )


def _level(name: str, column: Column, prompt: int, response: int) -> str:
    """What this rollout's column has an element for; the row, where that cannot be told."""
    if not isinstance(column, Ragged):
        return "row"
    lengths, prompts, responses = (np.array([count]) for count in (len(column[0]), prompt, response))
    try:
        return level_of(name, lengths, prompts, responses)
    except ValueError:
        return "row"


def _spread(found: Any, level: str, prompt: int, response: int) -> list[str]:
    """A column's elements as text, for each token; empty where it has none."""
    cells = [_cell(entry) for entry in found]
    if level == "response":
        cells = [""] * prompt + cells
    return cells + [""] * (prompt + response - len(cells))


def _styles(rollout: Rollouts, levels: dict[str, str], prompt: int, response: int) -> list[str]:
    trained: Any = np.append(np.zeros(prompt, bool), np.ones(response, bool))
    if levels.get("loss_masks") == "response":
        trained[prompt:] = rollout.ragged("loss_masks")[0] != 0
    elif levels.get("labels", "row") != "row":
        found = rollout.ragged("labels")[0] != FIELDS["labels"].fill
        trained[len(trained) - len(found) :] = found
    rewarded = np.zeros(prompt + response, bool)
    if levels.get("rewards") == "response":
        rewarded[prompt:] = rollout.ragged("rewards")[0] != 0
    return [
        text.BOLD if bold else "" if plain else text.DIM
        for plain, bold in zip(trained, rewarded, strict=True)
    ]


def _in_colour() -> bool:
    return sys.stdout.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def _cell(entry: Any, most: int = _SHORT) -> str:
    """An entry in few letters, on one line."""
    if isinstance(entry, np.ndarray):
        return _array(entry.reshape(-1)[:most].tolist(), entry.shape, most)
    if isinstance(entry, Ragged):  # a list for each element
        return _array(entry[:most].to_list(), (len(entry),), most)
    if isinstance(entry, float | np.floating):
        return f"{float(entry):.4g}"
    if isinstance(entry, np.generic):
        return str(entry)
    if isinstance(entry, str):
        found = text.printable(entry)
    else:
        found = text.printable(json.dumps(entry, ensure_ascii=False, default=str))
    return found if len(found) <= most else found[: most - 1] + "…"


def _array(elements: list[Any], shape: tuple[int, ...], most: int) -> str:
    """How many elements, and the first of them."""
    words, room = [], most - 8
    for element in elements:
        word = f"{element:.4g}" if isinstance(element, float) else str(element)
        room -= len(word) + 1
        if room < 0:
            words.append("…")
            break
        words.append(word)
    size = "×".join(map(str, shape))
    return f"{size}: {' '.join(words)}" if words else size
