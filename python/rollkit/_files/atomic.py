"""Files that are whole or absent."""

from __future__ import annotations

import os
import signal
import stat
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, BinaryIO

from rollkit._errors import refusal

if TYPE_CHECKING:
    from pathlib import Path


@contextmanager
def replacing(path: Path) -> Iterator[tuple[BinaryIO, Path]]:
    """A file to write to, under a passing name beside `path`; it takes its place if the block ends well."""
    place = path.__class__(os.path.realpath(path))  # where a link leads, which stays a link
    mode = None
    if place.exists():
        mode = place.stat().st_mode
        if not stat.S_ISREG(mode):
            raise refusal(ValueError, "there is something that is no file; choose another name", path=path)
    temporary = place.with_name(f".rollkit-{os.getpid()}-{os.urandom(4).hex()}{place.suffix}")
    try:
        with naming(path), temporary.open("xb") as file:
            if mode is not None:
                temporary.chmod(stat.S_IMODE(mode))
            yield file, temporary
            file.flush()
            os.fsync(file.fileno())
        replace(temporary, place)
    except OSError as error:
        if error.filename == str(temporary):
            error.filename = str(path)
        raise
    finally:
        with suppress(FileNotFoundError):
            temporary.unlink()


@contextmanager
def ended_by_sigterm() -> Iterator[None]:
    """Let SIGTERM end a command as Ctrl-C does, with nothing left that is half written."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def end(number: int, frame: object) -> None:
        raise SystemExit(128 + number)

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL if before is None else before)


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Name the file that an error of the system is about: that a disk is full is told without."""
    try:
        yield
    except OSError as error:
        if error.filename is None:
            error.filename = str(path)
        raise


def replace(temporary: Path, path: Path) -> None:
    """Rename in one step, and have the name on disk too."""
    os.replace(temporary, path)
    with suppress(OSError, AttributeError):  # Windows opens no folders
        handle = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
