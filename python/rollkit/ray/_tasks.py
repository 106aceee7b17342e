"""`map` over Ray: `Tasks`."""

from __future__ import annotations

import os
import socket
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import cache
from itertools import islice
from pathlib import Path
from typing import Any, Final

from rollkit._errors import refusal
from rollkit._extras import extra
from rollkit._files.atomic import ended_by_sigterm

LOCAL: Final = "local"
_PATIENCE: Final = 10
"""Seconds that a cluster has to answer."""
_GRACE: Final = 3
"""Seconds that tasks have to end by themselves before Ray is asked to end them."""


class Tasks:
    """Calls a function with each of some items, each call a task of Ray's; what they return comes in order.

    Ray calls again what a node or a process did not finish. Where a call fails, or nobody asks on, those that
    run are waited for, and ended after three seconds, so that none writes after it.

    Args:
        ahead: calls at a time; twice the CPUs of the cluster by default, so that none waits for its turn.
    """

    def __init__(self, ahead: int | None = None) -> None:
        self._ray = extra("ray", "ray")
        if not self._ray.is_initialized():  # else Ray starts one of its own
            raise ValueError("there is no connection to Ray; call ray.init(…) first")
        self._ahead = ahead or max(2, 2 * int(self._ray.cluster_resources().get("CPU", 1)))

    def __call__(self, function: Callable[[Any], Any], items: Iterable[Any]) -> Iterator[Any]:
        """Yield `function(item)` of each."""
        ray, coming = self._ray, iter(items)
        call = [ray.put(function)]  # in a list, so that a task gets the ref
        running = deque(_called().remote(call, item) for item in islice(coming, self._ahead))
        try:
            while running:
                found = self._result(running[0])
                running.popleft()
                running.extend(_called().remote(call, item) for item in islice(coming, 1))
                yield found
        finally:
            self._end(list(running))

    def _result(self, ref: Any) -> Any:
        try:
            return self._ray.get(ref)
        except self._ray.exceptions.RayTaskError as error:
            raise error.cause from None
        except self._ray.exceptions.RayError as error:
            raise OSError(f"Ray did not finish a task: {str(error).splitlines()[0]}") from error

    def _end(self, running: list[Any]) -> None:
        # Cancelling a task in the instant in which it returns aborts the process that asks (a check of Ray's,
        # "Tried to complete task that was not pending", in 2.60): so short tasks are waited for.
        running = self._left(running, _GRACE)
        while running:  # Ray ends a task unless it is just about to begin: so it is asked again
            for ref in running:
                self._ray.cancel(ref, force=True)
            running = self._left(running, 1)

    def _left(self, running: list[Any], seconds: float) -> list[Any]:
        return self._ray.wait(running, num_returns=len(running), timeout=seconds)[1] if running else []


@cache
def _called() -> Any:
    return extra("ray", "ray").remote(_call)


_KEPT: dict[str, Callable[[Any], Any]] = {}
"""The function that this process called last: of many rows, reading it takes longer than calling it."""


def _call(held: list[Any], item: Any) -> Any:
    (ref,) = held
    number = ref.hex()  # and not the ref, which would keep what it is of in the store
    if number not in _KEPT:
        _KEPT.clear()
        _KEPT[number] = extra("ray", "ray").get(ref)
    return _KEPT[number](item)


@contextmanager
def connected(address: str) -> Iterator[None]:
    """A connection to Ray for a command: to a cluster, or to a Ray of its own, which ends with it.

    Args:
        address: of a cluster, as `ray.init` takes it; `"local"` starts one on this machine.
    """
    ray = extra("ray", "ray")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # else Ray warns of what it will do
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
    if address == LOCAL:
        quiet["include_dashboard"] = False
    try:
        _check_reached(address)
        ray.init(address=address, **quiet)
    except (OSError, RuntimeError, ValueError) as error:
        raise OSError(f"no Ray at {address!r}: {str(error).splitlines()[0]}") from error
    try:
        with ended_by_sigterm():  # Ray has it print a stack trace, and tasks run on
            yield
    finally:
        ray.shutdown()


def _check_reached(address: str) -> None:
    """Refuse an address at which nobody listens: Ray would ask there for minutes."""
    host, _, port = address.rpartition("://")[2].rpartition(":")
    if host and port.isdecimal():
        with socket.create_connection((host, int(port)), timeout=_PATIENCE):
            pass


def check_shared(paths: Iterable[Path]) -> None:
    """Refuse paths that a node of the cluster does not see: what one writes there another reads."""
    ray = extra("ray", "ray")
    nodes = [node["NodeID"] for node in ray.nodes() if node["Alive"]]
    if len(nodes) < 2:
        return
    names = [str(path.absolute()) for path in paths]
    strategy = ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy
    asked = [_called().options(scheduling_strategy=strategy(node, soft=False), num_cpus=0) for node in nodes]
    call = [ray.put(_unseen)]
    missing = ray.get([task.remote(call, names) for task in asked])
    for node, unseen in zip(nodes, missing, strict=True):
        for path in unseen:
            text = (
                f"node {node[:8]} of the Ray cluster does not see it; it must lie on storage that all share"
            )
            raise refusal(ValueError, text, path=path)


def _unseen(names: list[str]) -> list[str]:
    return [name for name in names if not os.path.exists(name)]
