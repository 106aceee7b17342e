"""`rollkit verify`."""

from __future__ import annotations

import argparse
from typing import Any

from rollkit._cli import text
from rollkit._cli.arguments import add_json


def add(commands: Any) -> None:
    """Add the command."""
    verify = commands.add_parser(
        "verify",
        help="compare a folder of shards with its index",
        description="Compare the size and the SHA-256 of every file that rollkit pack wrote with its index. "
        "One line for each that differs.",
        epilog="The exit status is 0 if all is as it was written, else 1.",
    )
    verify.set_defaults(run=_run)
    verify.add_argument("folder", metavar="DIR")
    add_json(verify)


def _run(options: argparse.Namespace) -> int:
    from rollkit._files import shards

    index = shards.read_index(options.folder)
    wrong = shards.check_shards(options.folder, index, verify=True)
    for message in wrong:
        text.complain(message)
    files, size = len(index["shards"]), sum(shard["bytes"] for shard in index["shards"])
    if options.json:
        text.json_object({"files": files, "bytes": size, "wrong": wrong})
    elif not wrong:
        print(f"{text.plural(files, 'file')} of {text.byte_count(size)}: as they were written")
    return text.FAILED if wrong else 0
