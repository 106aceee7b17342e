"""Where bytes are: a file, those of a folder or a glob, what a URL names."""

from __future__ import annotations

import io
import os
import re
import stat
from typing import TYPE_CHECKING, Any, Final, Protocol

import numpy as np
from numpy.typing import NDArray

from rollkit._errors import refusal

if TYPE_CHECKING:
    from pathlib import Path

PathLike = str | os.PathLike[str]
Bytes = NDArray[np.uint8]

JSONL: Final = (".jsonl", ".ndjson", ".json")
COMPRESSED: Final = {".gz": "gzip", ".zst": "zstd"}
PARQUET: Final = (".parquet",)
ARROW: Final = (".arrow", ".feather", ".ipc", ".arrows")
TENSORS: Final = (".safetensors",)
KINDS: Final = (*JSONL, *PARQUET, *ARROW, *TENSORS)

BLOCK: Final = 4 << 20
"""Bytes read at a time: large enough that calls cost nothing, small enough to stay in a cache."""

INDEX: Final = "index.json"
"""What a run of `rollkit pack` writes last: a folder that has it is complete."""
WORK: Final = ".rollkit"
"""The hidden folder in it: lock, plan, spool, records of finished shards. It goes when the run ends."""


MARK: Final = "rollkit"
"""The key of what rollkit says in the metadata of a file."""


class Saved(dict[str, Any]):
    """Columns as `save` wrote them: what they hold says nothing more about what they are."""


class Source(Protocol):
    """Bytes that can be read from the beginning, more than once.

    Attributes:
        name: of the file; its end says what kind it is. `str` of a source is what errors call it.
    """

    @property
    def name(self) -> str:
        """The name of the file."""

    def state(self) -> tuple[object, ...]:
        """What changes when it is written to; nothing where that cannot be told."""

    def open(self) -> io.RawIOBase:
        """Open it, unbuffered."""

    def size(self, file: io.RawIOBase) -> int | None:
        """How many bytes an open file has; None for a pipe."""

    def arrow(self, pa: Any) -> Any:
        """Open it for Arrow, without a map: one of a file that gets shorter ends the process."""


class File:
    """A file here.

    Args:
        path: where it is.
        called: what errors call it; the path by default.
    """

    def __init__(self, path: Path, called: str | None = None) -> None:
        self.path = path
        self._called = called

    def __str__(self) -> str:
        return str(self.path) if self._called is None else self._called

    @property
    def name(self) -> str:
        """The name of the file."""
        return self.path.name

    def state(self) -> tuple[object, ...]:
        """What changes when it is written to; a pipe, which is read while it is, has nothing such."""
        return state_of(self.path)

    def open(self) -> io.FileIO:
        """Open it, unbuffered."""
        return self.path.open("rb", buffering=0)

    def size(self, file: io.RawIOBase) -> int | None:
        """How many bytes an open file has; None for a pipe."""
        status = os.fstat(file.fileno())
        return status.st_size if stat.S_ISREG(status.st_mode) else None

    def arrow(self, pa: Any) -> Any:
        """Open it for Arrow."""
        return pa.OSFile(str(self.path))


def state_of(path: Path) -> tuple[object, ...]:
    """What changes when a file is written to; a pipe, which is read while it is, has nothing such."""
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):
        return ()
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


def kind_of(name: str) -> tuple[str, str | None]:
    """The ending that says what kind a file is, in lower case, and how it is compressed."""
    stem, ending = os.path.splitext(name)
    compression = COMPRESSED.get(ending.lower())
    kind = ending if compression is None else os.path.splitext(stem)[1]
    return kind.lower(), compression


def is_known(name: str) -> bool:
    """Whether a file is of a kind that is read."""
    kind, compression = kind_of(name)
    return kind in (KINDS if compression is None else JSONL)


def unknown_kind(name: object, path: object) -> ValueError:
    """What is said of a file of no known kind."""
    text = f"unknown kind of file {os.path.splitext(str(name))[1]!r}; expected {', '.join(KINDS)}"
    return refusal(ValueError, f"{text} (JSONL also .gz, .zst)", path=path)


def local_path(path: PathLike) -> Path:
    """A path; refuses a URL, which would be a local folder of that name."""
    if not isinstance(path, str | os.PathLike):
        raise TypeError(f"expected a path, got {type(path).__name__}")
    from pathlib import Path  # a sixth of the time it takes to import rollkit

    name = os.fspath(path)
    if isinstance(name, bytes):
        name = os.fsdecode(name)
    if not name:
        raise ValueError("a path is empty; give the name of a file")
    scheme = URL.match(name)
    if scheme is not None:
        text = f"URLs of {scheme[1]} are not taken here; copy the file here first, or write to a folder"
        raise refusal(ValueError, text, path=name)
    return Path(name)


URL: Final = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):/+(?<=//)")


def changed(path: object) -> ValueError:
    """What is said of a file that something wrote to while it was read."""
    text = "changed while it was read; read it again when nothing writes to it"
    return refusal(ValueError, text, path=path)


def read_bytes(file: io.RawIOBase, count: int) -> Bytes:
    """The next bytes of a file, fewer at its end, in memory that NumPy takes in huge pages."""
    data = np.empty(count, np.uint8)
    done = 0
    while done < count and (got := file.readinto(data[done:].data)):
        done += got
    return data[:done]
