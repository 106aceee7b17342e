"""`rollkit inspect`."""

from __future__ import annotations

import argparse
from typing import Any

from rollkit._cli import pictures, text
from rollkit._cli.arguments import add_json


def add(commands: Any) -> None:
    """Add the command."""
    inspect = commands.add_parser(
        "inspect",
        help="what is in a folder of shards",
        description="Show what a folder of rollkit pack holds. Sizes of files are compared with its index; "
        "rollkit verify compares their contents.",
    )
    inspect.set_defaults(run=_run)
    inspect.add_argument("folder", metavar="DIR")
    inspect.add_argument("--plot", metavar="PNG", help="draw how full the bins are")
    add_json(inspect)


def _run(options: argparse.Namespace) -> int:
    from rollkit._files import shards

    pictures.check_plot(options.plot)
    index = shards.read_index(options.folder)
    wrong = shards.check_shards(options.folder, index)
    for message in wrong:
        text.complain(message)
    if wrong:
        return text.FAILED
    layout = shards.read_layout(options.folder, index)
    if options.json:
        lengths = text.quantiles(layout.row_lengths)
        text.json_object({**index, "row_lengths": lengths})
    else:
        _show(index, layout.row_lengths)
    if options.plot:
        pictures.plot(options.folder, options.plot)
    return 0


def _show(index: dict[str, Any], lengths: Any) -> None:
    text.table(
        [
            *text.counts(index),
            *text.arguments(index["arguments"]),
            *((("sources" if i == 0 else ""), told) for i, told in enumerate(text.sources(index))),
        ]
    )
    text.heading("Row lengths")
    text.histogram(lengths)
    text.heading("Columns per token")
    derived = index.get("derived", [])
    text.table(
        (name, found["dtype"], text.shape(found["shape"]), *(["derived"] if name in derived else []))
        for name, found in index["columns"].items()
    )
    if index["rows"]:
        text.heading("Columns per row")
        text.table((name, "objects" if kind == "json" else kind) for name, kind in index["rows"].items())
    text.heading("Shards")
    text.table(text.shard_rows(index["shards"]), numbers=True)
