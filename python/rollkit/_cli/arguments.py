"""What the commands' arguments may be."""

from __future__ import annotations

import argparse
import sys
from typing import Any, NoReturn

from rollkit._cli.text import closed, complain
from rollkit._rollouts.columns import LEVELS, LISTS

FILES = "JSONL (.gz, .zst), Parquet, Arrow or .safetensors files, folders and globs of them, or - for JSONL \
on the standard input"


class Parser(argparse.ArgumentParser):
    """A parser that says what is wrong in one line.

    Attributes:
        origin: where the arguments are from, if not from the command line.
    """

    origin = ""

    def print_help(self, file: Any = None) -> None:
        """Print the help, and say so where that fails, of which `argparse` says nothing."""
        _print(self.format_help().rstrip("\n"), file)

    def error(self, message: str) -> NoReturn:
        """Say what is wrong with the arguments."""
        complain(f"{self.origin}{message}; {self.prog} --help says what there is")
        self.exit(2)


class Version(argparse.Action):
    """Print the version, which takes the package to know."""

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        from rollkit import __version__

        _print(f"rollkit {__version__}")
        parser.exit()


def _print(text: str, file: Any = None) -> None:
    """Print what ends the command: an error of it is raised here, not as the interpreter ends."""
    if sys.stdout is None:
        raise closed()
    print(text, file=file, flush=True)


def add_json(parser: Any) -> None:
    """Let a command write JSON."""
    parser.add_argument("--json", action="store_true", help="write JSON")


def add_reading(parser: Any) -> None:
    """Let a command say how files are read."""
    add = parser.add_argument
    add("--rename", action="append", type=rename, metavar="OLD=NEW", help="rename a column; repeatable")
    add(
        "--nonfinite",
        choices=("raise", "keep", "null"),
        help="what becomes of NaN and Infinity in JSONL (raise)",
    )


def positive(text: str) -> int:
    """A whole number of at least 1."""
    return at_least(1, text)


def row(text: str) -> int:
    """The number of a row, from 0."""
    return at_least(0, text)


def seed(text: str) -> int:
    """A seed, from 0."""
    return at_least(0, text)


def at_least(least: int, text: str) -> int:
    """A whole number."""
    try:
        number = int(text.replace("_", ""))
    except ValueError:
        number = least - 1
    if number < least:
        raise argparse.ArgumentTypeError(f"expected a whole number of at least {least}, got {text!r}")
    return number


def rename(text: str) -> tuple[str, str]:
    """The two names of a column."""
    old, _, new = text.partition("=")
    if not (old and new):
        raise argparse.ArgumentTypeError(f"expected OLD=NEW, got {text!r}")
    return old, new


def level(text: str) -> tuple[str, str]:
    """A column's name, and what it has an element for."""
    name, equals, found = text.rpartition("=")
    if not (name and equals and found.removesuffix(LISTS) in LEVELS):
        known = ", ".join([*LEVELS, f"or one with {LISTS} behind it"])
        raise argparse.ArgumentTypeError(f"expected NAME=LEVEL, with a level of {known}, got {text!r}")
    return name, found
