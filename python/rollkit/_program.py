"""Ctrl-C while the command line is being imported ends it as it does later: in one line, with status 130."""

import os
import sys
from contextlib import suppress
from typing import Any


def _is_program() -> bool:
    """Whether this process is `rollkit` or `python -m rollkit`, and not one that uses the package."""
    name: list[str] = getattr(sys, "argv", None) or [""]
    if name[0] == "-m":  # as long as packages above the module are imported
        return ("-m", "rollkit") in zip(sys.orig_argv, sys.orig_argv[1:], strict=False)
    return os.path.basename(name[0]).removesuffix(".exe") == "rollkit"


def _end(*_: Any) -> None:
    with suppress(OSError):
        os.write(2, b"rollkit: interrupted\n")
    os._exit(130)


def _guard() -> None:
    """Take Ctrl-C over, until all is imported."""
    if not _is_program():
        return
    import signal  # whose constants take a fortieth of the time it takes to import rollkit

    with suppress(ValueError):  # not in the main thread
        if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            signal.signal(signal.SIGINT, _end)


def release() -> None:
    """Give Ctrl-C back."""
    import signal

    with suppress(ValueError):
        if signal.getsignal(signal.SIGINT) is _end:
            signal.signal(signal.SIGINT, signal.default_int_handler)


_guard()
