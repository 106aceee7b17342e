"""The folder of a run: its lock, what it leaves when it ends early, and files that are whole or absent."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final

INDEX: Final = "index.json"
"""What a run writes last: a folder that has it is complete."""
WORK: Final = ".rollkit"
"""The hidden folder in it: lock, plan, spool, records of finished shards. It goes when the run ends."""
PLAN: Final = "plan.json"


@contextmanager
def claimed(folder: Path, resume: bool) -> Iterator[Path]:
    """Hold `folder` for one run; gives its work folder, and clears up however the run ends."""
    made = _make(folder)
    work = folder / WORK
    try:
        _refuse_other(folder, resume)
        planned = (work / PLAN).exists()
        work.mkdir(exist_ok=True)
    except BaseException:
        _unmake(made)
        raise
    with _locked(work, folder):
        try:
            _clean(work)
            yield work
        except BaseException:
            if planned or any(work.glob("shard-*.json")):
                _clean(work)  # whole shards stay, for --resume
            else:
                shutil.rmtree(work)
                _unmake(made)
            raise
        shutil.rmtree(work)


def _make(folder: Path) -> list[Path]:
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    return missing


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
    with (work / "lock").open("wb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ValueError(f"{folder}: another run is writing there") from None
        yield


def _clean(work: Path) -> None:
    """Remove what a run leaves that nothing can be continued from."""
    shutil.rmtree(work / "spool", ignore_errors=True)
    for path in work.iterdir():
        if path.suffix != ".json" and path.name != "lock":
            path.unlink()


def agree(work: Path, earlier: dict[str, Any], now: dict[str, Any]) -> None:
    """Refuse to continue another run; name what differs."""
    before, after = _flat(earlier), _flat(now)
    odd = [name for name in after if before.get(name) != after[name]]
    odd += [name for name in before if name.startswith("source ") and name not in after]
    if odd:
        name = odd[0]
        told = f"was {before.get(name)!r}, is {after.get(name)!r}" if name != "plan_sha256" else "differs"
        raise ValueError(
            f"{work.parent}: cannot resume: {name} {told}; run it as before, or choose another folder"
        )


def _flat(job: dict[str, Any]) -> dict[str, Any]:
    found = {name: job.get(name) for name in ("format", "rollkit")}
    found |= {f"--{name.replace('_', '-')}": value for name, value in job["arguments"].items()}
    for i, source in enumerate(job["sources"], 1):
        found |= {f"source {i} {key}": value for key, value in source.items()}
    return found | ({"plan_sha256": job["plan_sha256"]} if "plan_sha256" in job else {})


def digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_json(work: Path, path: Path, value: Any) -> None:
    temporary = work / f"{path.name}.tmp"
    with temporary.open("w", encoding="utf-8") as file:
        json.dump(value, file, indent=2)
        file.write("\n")
        file.flush()
        os.fsync(file.fileno())
    replace(temporary, path)


def replace(temporary: Path, path: Path) -> None:
    """Rename in one step, and have the name on disk too."""
    os.replace(temporary, path)
    with suppress(OSError, AttributeError):  # Windows opens no folders
        handle = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
