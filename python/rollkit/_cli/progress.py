"""How far a command is: one line on the terminal, which goes when it is done."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Iterable, Iterator
from typing import Any, Final

from rollkit._files.watch import Watch, unwatched

_SECONDS: Final = 0.1

_shown = ""


class Progress:
    """Passes items through, and shows how many."""

    def __call__(self, items: Iterable[Any], label: str, total: int | None) -> Iterator[Any]:
        after = 0.0
        for done, item in enumerate(items):
            if time.monotonic() >= after:
                _show(f"{label}: {done:,} chunks" if total is None else f"{label}: {done:,} of {total:,}")
                after = time.monotonic() + _SECONDS
            yield item
        clear()


def watching(quiet: bool) -> Watch:
    """What shows progress where a terminal is there to see it."""
    return Progress() if not quiet and sys.stderr is not None and sys.stderr.isatty() else unwatched


def clear() -> None:
    """Take the line away, before there is another."""
    _show("")


def _show(text: str) -> None:
    global _shown
    if (text or _shown) and sys.stderr is not None:
        text = text[: shutil.get_terminal_size().columns - 1]
        sys.stderr.write(f"\r{text.ljust(len(_shown))}" + ("" if text else "\r"))
        sys.stderr.flush()
        _shown = text
