"""Runs of `rollkit pack`, each a process of its own, forked from one that has imported all of it.

Run by `test_kills.py`, as a process. A line of JSON on the standard input begins a run: `arguments`, and
`most`, the bytes that a file may have. A line with its process answers; and to an empty line, how it ended.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import sys
import traceback
from typing import Any, NoReturn

import safetensors.numpy  # noqa: F401

from rollkit import _program
from rollkit._cli import commands
from rollkit._files import stream  # noqa: F401


def run(arguments: list[str], most: int | None, told: int) -> NoReturn:
    status = 70
    try:
        os.dup2(told, 2)
        sys.stderr = os.fdopen(2, "w", closefd=False)
        if most is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))
        status = commands.main(arguments)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(status)


def began(job: dict[str, Any]) -> tuple[int, int]:
    """The process of a run, and where what it tells can be read."""
    mine, theirs = os.pipe()
    process = os.fork()
    if process == 0:
        run(job["arguments"], job["most"], theirs)
    os.close(theirs)
    return process, mine


def answer(value: Any) -> None:
    sys.stdout.write(json.dumps(value) + "\n")
    sys.stdout.flush()


def main() -> None:
    # As in the program while it is imported; a shell may have started this to ignore Ctrl-C.
    signal.signal(signal.SIGINT, _program._end)
    for line in iter(sys.stdin.readline, ""):
        process, mine = began(json.loads(line))
        answer(process)
        sys.stdin.readline()
        with open(mine) as file:
            told = file.read()
        _, status = os.waitpid(process, 0)
        answer([os.waitstatus_to_exitcode(status), told])


if __name__ == "__main__":
    main()
