"""Pictures of shards."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path


def check_plot(path: str | None) -> None:
    """Find out before the work whether a picture can be drawn after it."""
    if path is None:
        return
    from rollkit._extras import extra
    from rollkit._files.source import local_path

    local_path(path)
    known = extra("matplotlib.backend_bases", "plot").FigureCanvasBase.get_supported_filetypes()
    if Path(path).suffix.removeprefix(".").lower() not in known:
        raise ValueError(f"{path}: no picture format; a name that ends in .png, .svg or .pdf has one")
    if not Path(path).parent.is_dir():
        raise FileNotFoundError(2, "no such folder for the picture", str(Path(path).parent))


def plot(folder: str, path: str) -> None:
    """Draw how full the bins of a folder are."""
    from rollkit import plot
    from rollkit._files import shards

    layout = shards.read_layout(folder)
    temporary = Path(path).with_name(f".{os.getpid()}-{Path(path).name}")
    try:
        plot.overview(layout).savefig(temporary)
        os.replace(temporary, path)
    finally:
        with suppress(FileNotFoundError):
            temporary.unlink()
