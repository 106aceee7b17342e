"""A process that says what it does line by line, and may hang or die."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import subprocess
import threading
import time
from typing import Any

Event = dict[str, Any]


class Child:
    """A process, what it has begun, and what it says."""

    def __init__(self, command: list[str], device: str) -> None:
        self._process = subprocess.Popen(
            command, stdout=subprocess.PIPE, text=True, env=_environment(device), start_new_session=True
        )
        self._events: queue.Queue[Event | None] = queue.Queue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def next(self, until: float) -> Event:
        """What is said next.

        Args:
            until: when, by `time.monotonic`, it is no longer waited for.

        Raises:
            TimeoutError: nothing was said.
            EOFError: the process has ended.
        """
        try:
            event = self._events.get(timeout=max(0.0, until - time.monotonic()))
        except queue.Empty:
            raise TimeoutError from None
        if event is None:
            self._process.wait()
            raise EOFError
        return event

    def end(self) -> int:
        """End the process and what it has begun, compilers say; return its status."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        status = self._process.wait()
        self._reader.join(timeout=5)
        return status

    def _read(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as out:
            for line in out:
                self._events.put(json.loads(line))
        self._events.put(None)


def _environment(device: str) -> dict[str, str]:
    found = dict(os.environ, XLA_PYTHON_CLIENT_PREALLOCATE="false", HF_HUB_OFFLINE="1")
    if device == "cpu":
        found |= {"TRITON_INTERPRET": "1", "JAX_PLATFORMS": "cpu", "OMP_NUM_THREADS": "1"}
    return found
