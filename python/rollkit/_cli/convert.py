"""`rollkit convert`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from rollkit._cli import text
from rollkit._cli.arguments import FILES, add_reading, positive
from rollkit._cli.progress import watching


def add(commands: Any) -> None:
    """Add the command."""
    convert = commands.add_parser(
        "convert",
        help="write rollouts as another kind of file",
        description="Read rollouts, and write them as one file of the kind that its name says: .arrow, "
        ".feather, .ipc, .parquet, .safetensors or .jsonl. What the kind cannot hold as it is is refused. "
        "Memory stays bounded, whatever the size of the input: sources are read twice, in chunks.",
    )
    convert.set_defaults(run=_run)
    convert.add_argument("sources", nargs="+", metavar="SRC", help=f"{FILES}; URLs too")
    convert.add_argument("out", metavar="DST", help="the file; one that is there is replaced at once")
    convert.add_argument("--column", action="append", metavar="NAME", help="take this column; repeatable")
    add_reading(convert)
    convert.add_argument(
        "--chunk-rows", type=positive, default=256, metavar="R", help="rows read at a time (256)"
    )
    convert.add_argument("--quiet", action="store_true", help="no progress, no summary")


def _run(options: argparse.Namespace) -> int:
    from rollkit._cli.inputs import inputs
    from rollkit._files.atomic import ended_by_sigterm
    from rollkit._files.convert import convert
    from rollkit._files.paths import sources
    from rollkit._files.read import Reading
    from rollkit._files.save import writer_of
    from rollkit._files.source import local_path

    out: Path = local_path(options.out)
    writer_of(out)  # before the standard input is copied
    how = Reading("raise", options.nonfinite or "raise", options.column, dict(options.rename or ()))
    with ended_by_sigterm(), inputs(options.sources) as given:
        rows = convert(sources(given), out, how, rows=options.chunk_rows, watch=watching(options.quiet))
    if not options.quiet:
        size = text.byte_count(out.stat().st_size)
        text.table([("rows", f"{rows:,}"), ("written to", f"{options.out} ({size})")])
    return 0
