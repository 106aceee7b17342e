"""Options from a file: those of the command line by their names, in TOML."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import Any

from rollkit._cli.arguments import Parser
from rollkit._errors import at, refusal
from rollkit._files.source import local_path


def read_config(path: str, parser: Parser, options: Mapping[str, argparse.Action]) -> dict[str, Any]:
    """The options that a file has, each as `parser` takes it.

    Args:
        path: the file.
        parser: of a command that takes one or more sources.
        options: what may be in the file, by name.

    Raises:
        ValueError: it is no TOML, or has what is no option.
    """
    import tomllib

    with local_path(path).open("rb") as file, at(path=path, kind=ValueError):
        table = tomllib.load(file)
    words = []
    for key, value in table.items():
        name = key.replace("-", "_")
        if name not in options:
            known = ", ".join(option.replace("_", "-") for option in options)
            raise refusal(ValueError, f"no option {key!r}; there are {known}", path=path)
        with at(path=path):
            words += _words(key, value, options[name])
    parser.origin = f"{path}: "
    found = vars(parser.parse_args(["-", *words]))
    parser.origin = ""
    return {name: value for name, value in found.items() if name in options}


def _words(key: str, value: Any, option: argparse.Action) -> list[str]:
    """An option as on the command line."""
    flag = option.option_strings[-1]
    if option.nargs == 0:
        if not isinstance(value, bool):
            raise ValueError(f"{key} is {value!r}, expected true or false")
        return [flag] if value else []
    if isinstance(option, argparse._AppendAction):
        if isinstance(value, dict):
            value = [f"{name}={entry}" for name, entry in value.items()]
        if not isinstance(value, list):
            raise ValueError(f"{key} is {value!r}, expected an array or a table")
        return [f"{flag}={entry}" for entry in value]
    if not isinstance(value, str | int) or isinstance(value, bool):
        raise ValueError(f"{key} is {value!r}, expected a text or a whole number")
    return [f"{flag}={value}"]
