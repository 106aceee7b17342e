"""What paths stand for: files, those of folders and globs, URLs."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from rollkit._errors import refusal
from rollkit._files.source import INDEX, KINDS, URL, WORK, File, PathLike, Source, is_known, local_path

if TYPE_CHECKING:
    from pathlib import Path


def sources(paths: PathLike | Sequence[PathLike | File]) -> list[Source]:
    """What is to be read: files, those of folders and globs by their names, and what URLs name."""
    return [source for path in _listed(paths) for source in _sources(path)]


def local_files(paths: Sequence[PathLike | File]) -> list[File]:
    """The files to be read, of which none may be a URL."""
    found = [[path] if isinstance(path, File) else map(File, _files(local_path(path))) for path in paths]
    return [file for files in found for file in files]


def _listed(paths: Any) -> list[Any]:
    if isinstance(paths, str | os.PathLike):
        return [paths]
    if isinstance(paths, bytes | bytearray | memoryview) or hasattr(paths, "read"):
        kind = type(paths).__name__
        raise TypeError(f"paths must be the names of files, got {kind}; write its contents to a file first")
    if not hasattr(paths, "__iter__"):
        raise TypeError(f"paths must be a path or a sequence of paths, got {type(paths).__name__}")
    found = list(paths)
    if not found:
        raise ValueError("paths is empty; give at least one file")
    return found


def _sources(path: Any) -> list[Source]:
    if isinstance(path, File):
        return [path]
    if isinstance(path, str) and URL.match(path):
        from rollkit._files.remote import Remote  # with it comes urllib

        return [Remote(path)]
    return [File(file) for file in _files(local_path(path))]


def _files(path: Path) -> list[Path]:
    """The files that a path stands for: itself, those in a folder, or those that a glob matches."""
    if path.is_dir():
        return _in_folder(path)
    import glob  # with it comes fnmatch

    if not glob.has_magic(str(path)) or os.path.lexists(path):
        return [path]
    matches = sorted(path.__class__(match) for match in glob.glob(str(path), recursive=True))
    if not matches:
        raise refusal(ValueError, "no file matches", path=path)
    return [file for match in matches for file in (_in_folder(match) if match.is_dir() else [match])]


def _in_folder(folder: Path) -> list[Path]:
    if (folder / INDEX).exists() or (folder / WORK).exists():
        text = "a folder of packed shards, and no rollouts; rollkit inspect shows what is in it"
        raise refusal(ValueError, text, path=folder)
    found = [path for path in sorted(folder.iterdir()) if is_known(path.name) and path.is_file()]
    found = [path for path in found if not path.name.startswith(".")]
    if not found:
        raise refusal(ValueError, f"a folder without files of {', '.join(KINDS)}", path=folder)
    return found
