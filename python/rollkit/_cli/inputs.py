"""The sources of a command."""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from rollkit._files.source import BLOCK, File

STDIN = "-"


@contextmanager
def inputs(paths: Sequence[str]) -> Iterator[list[str | File]]:
    """Paths as they are, and the standard input as a file that can be read twice, as long as it is needed."""
    if STDIN not in paths:
        yield list(paths)
        return
    if paths.count(STDIN) > 1:
        raise ValueError("- is given twice, and the standard input comes once")
    if sys.stdin is None:
        raise OSError("standard input is closed; give a file instead of -")
    with tempfile.TemporaryDirectory(prefix="rollkit-") as folder:
        copy = Path(folder) / "stdin.jsonl"
        with copy.open("wb") as file:
            shutil.copyfileobj(sys.stdin.buffer, file, BLOCK)
        yield [File(copy, called=STDIN) if path == STDIN else path for path in paths]
