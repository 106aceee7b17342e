"""The folder of a run: its lock, what it leaves when it ends early, and files that are whole or absent."""

from __future__ import annotations

import hashlib
import json
import os
import re
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final

from rollkit._errors import refusal
from rollkit._files.atomic import naming, replace
from rollkit._files.source import INDEX as INDEX
from rollkit._files.source import WORK as WORK

PLAN: Final = "plan.json"
SPOOL: Final = "spool"


@contextmanager
def claimed(folder: Path, resume: bool) -> Iterator[Path]:
    """Hold `folder` for one run; gives its work folder, and clears up however the run ends."""
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    work, ours, planned = folder / WORK, False, False
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _refuse_other(folder, resume)
        _refuse_foreign(work)
        ours, planned = True, (work / PLAN).exists()
        work.mkdir(exist_ok=True)
        with _locked(work, folder):
            _clean(work)
            yield work
            _remove(work)
    except BaseException:
        # Ctrl-C may come before there is a lock, so it is taken anew: another run's files are not touched.
        if ours:
            with suppress(OSError, ValueError), _locked(work, folder):
                if planned or any(work.glob("shard-*.json")):
                    _clean(work)  # whole shards stay, for --resume
                else:
                    _remove(work)
        _unmake(missing)  # what is not empty stays
        raise


def _unmake(made: Sequence[Path]) -> None:
    for path in made:
        with suppress(OSError):
            path.rmdir()


def _refuse_other(folder: Path, resume: bool) -> None:
    found = {path.name for path in folder.iterdir()}
    if not found:
        return
    if not resume:
        if WORK in found:
            raise ValueError(f"{folder}: holds an unfinished run; --resume continues it")
        raise ValueError(f"{folder}: exists and is not empty; choose another folder")
    if not found & {WORK, INDEX}:
        raise ValueError(f"{folder}: holds no run to resume; choose another folder")


@contextmanager
def _locked(work: Path, folder: Path) -> Iterator[None]:
    """Keep a second run out. The lock goes with the process, however it ends."""
    try:
        import fcntl
    except ModuleNotFoundError:  # Windows
        yield
        return
    with (work / "lock").open("ab") as file:  # nothing in it is touched, whatever else it is the name of
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ValueError(f"{folder}: another run is writing there") from None
        yield


# What a run itself puts into its work folder, and what it may continue from.
_OURS: Final = re.compile(r"lock|plan\.json|shard-\d{5,}\.safetensors\.json")
# The last is how safetensors calls a file while it writes it. Eight digits are those of `attempt`, which an
# earlier version did not write.
_PASSING: Final = re.compile(
    r"((plan|index)\.json|shard-\d{5,}\.safetensors(\.json)?)(\.[0-9a-f]{8})?\.tmp|\.tmp\w{6}"
)
_SPOOLED: Final = re.compile(r"(\d+-)?([0-9a-f]{8}-)?\d+\.bin")


def attempt() -> str:
    """Digits for the names of what an attempt writes before it is whole.

    A process that was given up, for its node was out of reach or its driver died, may go on for a while; what
    it writes is not what the next attempt writes.
    """
    return os.urandom(4).hex()


def _refuse_foreign(work: Path) -> None:
    """Refuse a work folder in which there is anything that no run put there; links are not followed."""
    if not os.path.lexists(work):
        return
    for path in (work, *_entries(work), *_entries(work / SPOOL)):
        status = path.lstat()
        folder = path in (work, work / SPOOL)
        known = path.name in (WORK, SPOOL) if folder else _is_ours(path)
        if not known or not (stat.S_ISDIR(status.st_mode) if folder else stat.S_ISREG(status.st_mode)):
            kind = "a link" if stat.S_ISLNK(status.st_mode) else "nothing that rollkit put there"
            text = f"{kind}, so nothing here is touched; move it away, or choose another folder"
            raise refusal(ValueError, text, path=path)


def _is_ours(path: Path) -> bool:
    if path.parent.name == SPOOL:
        return _SPOOLED.fullmatch(path.name) is not None
    return (_OURS.fullmatch(path.name) or _PASSING.fullmatch(path.name)) is not None


def _entries(folder: Path) -> list[Path]:
    """What is in a folder; nothing if it is none, or a link to one."""
    return sorted(folder.iterdir()) if folder.is_dir() and not folder.is_symlink() else []


def _clean(work: Path) -> None:
    """Remove what a run leaves that nothing can be continued from."""
    for path in (*_entries(work / SPOOL), *_entries(work)):
        if path.parent.name == SPOOL or _PASSING.fullmatch(path.name):
            path.unlink()
    with suppress(FileNotFoundError):
        (work / SPOOL).rmdir()


def _remove(work: Path) -> None:
    """Remove the work folder, and in it what a run put there."""
    _clean(work)
    for path in _entries(work):
        if _is_ours(path):
            path.unlink()
    work.rmdir()


def agree(work: Path, earlier: dict[str, Any], now: dict[str, Any]) -> None:
    """Refuse to continue another run; name what differs."""
    before, after = _flat(earlier), _flat(now)
    odd = [name for name in after if before.get(name) != after[name]]
    odd += [name for name in before if name.startswith(("source ", "--")) and name not in after]
    if odd:
        name = odd[0]
        told = f"was {before.get(name)!r}, is {after.get(name)!r}" if name != "plan_sha256" else "differs"
        fix = "run it as before"
        if name in _WRITER:
            fix = f"finish it with the rollkit that began it, {earlier['rollkit']}"
        raise ValueError(f"{work.parent}: cannot resume: {name} {told}; {fix}, or choose another folder")


_WRITER: Final = ("format", "rollkit")


def _flat(job: dict[str, Any]) -> dict[str, Any]:
    found = {name: job.get(name) for name in _WRITER}
    found |= {f"--{name.replace('_', '-')}": value for name, value in job["arguments"].items()}
    for i, source in enumerate(job["sources"], 1):
        found |= {f"source {i} {key}": value for key, value in source.items()}
    return found | ({"plan_sha256": job["plan_sha256"]} if "plan_sha256" in job else {})


def digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_json(work: Path, path: Path, value: Any) -> None:
    temporary = work / f"{path.name}.{attempt()}.tmp"
    with naming(path), temporary.open("w", encoding="utf-8") as file:
        json.dump(value, file, indent=2)
        file.write("\n")
        file.flush()
        os.fsync(file.fileno())
    replace(temporary, path)
