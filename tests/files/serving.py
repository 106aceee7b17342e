"""A web server on the loopback that serves a folder: by ranges, or without; and in the shape of S3."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote


class Server(ThreadingHTTPServer):
    """Serves `folder` at `url`, and in `bucket` for S3.

    Attributes:
        ranges: whether it has them.
        asked: the path and range of each request.
        cut: answers end after so many bytes.
    """

    folder: Path
    ranges = True
    cut: int | None = None

    def __init__(self, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.folder = folder
        self.asked: list[tuple[str, str | None]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def do_GET(self) -> None:
        path, asked = unquote(self.path.partition("?")[0]), self.headers.get("Range")
        self.server.asked.append((self.path, asked))
        file = self.server.folder / path.removeprefix("/bucket").lstrip("/")
        if not file.is_file():
            self.answer(404, b"")
            return
        data, headers, status = file.read_bytes(), {}, 200
        headers["Last-Modified"] = formatdate(int(file.stat().st_mtime), usegmt=True)
        if asked is not None and self.server.ranges:
            first, last = (int(number) for number in asked.removeprefix("bytes=").split("-"))
            if first >= len(data):
                self.answer(416, b"")
                return
            last = min(last, len(data) - 1)
            headers["Content-Range"] = f"bytes {first}-{last}/{len(data)}"
            data, status = data[first : last + 1], 206
        self.answer(status, data, headers)

    def answer(self, status: int, data: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {**(headers or {}), "Content-Length": str(len(data))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data[: self.server.cut])
        self.close_connection = self.server.cut is not None


@contextmanager
def served(folder: Path) -> Iterator[Server]:
    """Serve a folder as long as the block runs."""
    with Server(folder) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join()
