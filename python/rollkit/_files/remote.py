"""What URLs name, read by ranges through `obstore` (extra `remote`)."""

from __future__ import annotations

import errno
import io
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, Final
from urllib.parse import unquote, urlsplit, urlunsplit

from rollkit._errors import refusal
from rollkit._extras import extra
from rollkit._files.source import BLOCK, changed

SCHEMES: Final = ("s3", "gs", "az", "http", "https")

_MOST: Final = 64 << 20
"""Bytes asked for at a time: an answer is in memory beside what it is copied to."""
_LEAST: Final = 64 << 10
"""Bytes asked for at least: fewer take as long."""
_RETRY: Final = {"max_retries": 3, "retry_timeout": timedelta(seconds=60)}


class Remote:
    """An object of a store, or what a web server has.

    Keys, regions and endpoints are what the environment says: `AWS_…`, `GOOGLE_…`, `AZURE_…`.

    Args:
        url: where it is. Errors call it by its URL without the query, which may hold a signature.
    """

    def __init__(self, url: str) -> None:
        self._called = re.sub(r"(?<=://)[^/]*@", "", re.split("[?#]", url)[0])
        try:
            parts = urlsplit(url)
            _ = parts.port
        except ValueError as error:
            raise refusal(ValueError, f"no URL: {error}", path=self._called) from None
        self._secret = parts.query
        self._key = unquote(parts.path).lstrip("/")
        self._check(parts)
        self._obstore = extra("obstore", "remote")
        _refuse_fork(self._called)
        options: dict[str, Any] = {"retry_config": _RETRY}
        if parts.scheme.lower() in ("http", "https"):
            options["client_options"] = {"allow_http": True}
        root = urlunsplit((parts.scheme, parts.netloc, "", parts.query, ""))
        with self.telling():
            self._store = extra("obstore.store", "remote").from_url(root, **options)

    def _check(self, parts: Any) -> None:
        scheme = parts.scheme.lower()
        if scheme not in SCHEMES:
            text = f"URLs of {scheme} are not read; those of {', '.join(SCHEMES)} are"
        elif not parts.netloc or not self._key or self._key.endswith("/"):
            text = "names no file; a URL is of one file, such as s3://bucket/rollouts.parquet"
        elif self._secret and scheme not in ("http", "https"):
            text = "a URL of a store has no query; what it asks for is in the environment"
        else:
            return
        raise refusal(ValueError, text, path=self._called)

    def __str__(self) -> str:
        return self._called

    @property
    def name(self) -> str:
        """The name of the file."""
        return self._key.rpartition("/")[2]

    def state(self) -> tuple[object, ...]:
        """Nothing that is asked for: each answer says of which object it is."""
        return (self._called,)

    def open(self) -> io.RawIOBase:
        """Open it: bytes come as they are read."""
        return _Object(self)

    def size(self, file: io.RawIOBase) -> int | None:
        """How many bytes it has."""
        return file.size if isinstance(file, _Object) else None

    def arrow(self, pa: Any) -> Any:
        """Open it for Arrow, which takes fewer bytes than it asked for as the end."""
        return pa.PythonFile(io.BufferedReader(self.open(), _LEAST), "r")

    def get(self, begin: int | None = None, end: int | None = None) -> Any:
        """Ask for it, or for a range of its bytes."""
        options = None if begin is None else {"range": (begin, end)}
        return self._obstore.get(self._store, self._key, options=options)

    @contextmanager
    def telling(self) -> Iterator[None]:
        """Say in one line, and without what is secret, what a store or server says."""
        try:
            yield
        except OSError as error:  # obstore's own, of what is not there
            number = error.errno or (errno.ENOENT if isinstance(error, FileNotFoundError) else errno.EIO)
            raise OSError(number, self._words(error), self._called) from None
        except extra("obstore.exceptions", "remote").BaseError as error:
            raise OSError(errno.EIO, self._words(error), self._called) from None

    def _words(self, error: Exception) -> str:
        line = str(error).partition("\n")[0].strip()
        return line.replace(f"?{self._secret}", "") if self._secret else line


class _Object(io.RawIOBase):
    """An object as a file. A request brings more bytes than are read, and many if it follows another."""

    def __init__(self, remote: Remote) -> None:
        super().__init__()
        self._remote = remote
        self._at = self._ended = self._begin = 0  # next byte, end of the last read, begin of the window
        with remote.telling():
            self._window, self._meta = _read(self._first())
        self.size: int = self._meta["size"]

    def _first(self) -> Any:
        """The beginning, or all of what is empty or of a server that has no ranges."""
        try:
            return self._remote.get(0, BLOCK)
        except extra("obstore.exceptions", "remote").BaseError:
            return self._remote.get()

    def readable(self) -> bool:
        """It is."""
        return True

    def seekable(self) -> bool:
        """It is."""
        return True

    def tell(self) -> int:
        """Where the next byte is."""
        return self._at

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Go to a byte."""
        self._at = offset + {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self.size}[whence]
        return self._at

    def readinto(self, buffer: Any) -> int:
        """Read as many bytes as there are, up to those that the buffer has room for."""
        room = memoryview(buffer).cast("B")
        count = min(len(room), self.size - self._at, _MOST)
        if count <= 0:
            return 0
        if not self._begin <= self._at < self._begin + len(self._window):
            self._fetch(count)
        data = self._window[self._at - self._begin :][:count]
        if not len(data):
            text = f"ends after {self._at:,} of {self.size:,} bytes"
            raise OSError(errno.EIO, text, str(self._remote))
        room[: len(data)] = data
        self._at += len(data)
        self._ended = self._at
        return len(data)

    def _fetch(self, count: int) -> None:
        least = BLOCK if self._at == self._ended else _LEAST
        end = min(self._at + max(count, least), self.size)
        with self._remote.telling():
            data, meta = _read(self._remote.get(self._at, end))
        if any(meta[key] != self._meta[key] for key in ("size", "e_tag", "last_modified")):
            raise changed(self._remote)
        self._window, self._begin = data, self._at


def _read(answer: Any) -> tuple[memoryview, Any]:
    """The bytes of an answer, and what it says of the object: before 0.7 not once its bytes are taken."""
    meta = answer.meta
    return memoryview(answer.bytes()), meta


_PROCESS: list[int] = []


def _refuse_fork(called: str) -> None:
    """Refuse what would hang: threads of obstore's do not live on in a process that was forked."""
    if not _PROCESS:
        _PROCESS.append(os.getpid())
    if _PROCESS[0] != os.getpid():
        text = "URLs were read before this process was forked, and cannot be any more; start it by spawn"
        raise refusal(ValueError, text, path=called)
