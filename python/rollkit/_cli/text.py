"""What the command line shows: tables, numbers, histograms, complaints."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final, TextIO

from rollkit._cli import progress
from rollkit._rows.binpack import DEFAULTS

Row = tuple[str, ...]


FAILED: Final = 1
"""The exit status where something is wrong with the input."""

DIM: Final = "\x1b[2m"
BOLD: Final = "\x1b[1m"
_PLAIN: Final = "\x1b[0m"


def complain(message: str, error: BaseException | None = None) -> None:
    """Say what is wrong, in one line."""
    parts = [message, *getattr(error, "__notes__", ())]
    if sys.stderr is None:  # closed; `print` would take standard output instead
        return
    try:
        progress.clear()
        print(f"rollkit: {plain(' '.join('; '.join(parts).split()))}", file=sys.stderr, flush=True)
    except OSError:  # nobody is there to be told; the status says it
        give_up(sys.stderr)


def give_up(stream: TextIO | None) -> None:
    """Let go of what a stream cannot write: the interpreter would try again as it ends."""
    if stream is None:
        return
    try:
        stream.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def closed() -> OSError:
    """What is said where there is no standard output."""
    return OSError("standard output is closed; redirect it, to /dev/null if it is not wanted")


def json_object(found: dict[str, Any]) -> None:
    """Print what a program reads."""
    import json

    print(json.dumps(found, indent=2))


def printable(text: str) -> str:
    """Text on one line, with escapes for what would move the cursor or worse."""
    return text if text.isprintable() else ascii(text)[1:-1]


def counts(index: dict[str, Any]) -> Iterator[Row]:
    shards = index["shards"]
    return totals(index["totals"], len(shards), sum(shard["bytes"] for shard in shards))


def totals(totals: dict[str, Any], shards: int, size: int, *, about: bool = False) -> Iterator[Row]:
    odd = [f"{totals[name]:,} {name}" for name in ("truncated", "dropped", "split") if totals.get(name)]
    yield "rows", f"{totals['rows']:,}" + (f" ({', '.join(odd)})" if odd else "")
    yield "tokens", f"{totals['tokens']:,}"
    yield "bins", f"{totals['bins']:,} of {totals['width']:,} tokens"
    yield "utilisation", f"{totals['utilisation']:.2%}".replace("%", " %")
    yield "shards", f"{shards:,} ({'about ' if about else ''}{byte_count(size)})"


def arguments(arguments: dict[str, Any]) -> Iterator[Row]:
    yield "capacity", f"{arguments['capacity']:,}"
    yield "algorithm", str(arguments["algorithm"]).replace("_", " ")
    plain: dict[str, Any] = {**DEFAULTS, "pad_id": 0, "skip_columns": [], "levels": {}}
    del plain["algorithm"]
    # An option that an older rollkit did not have is what it is by default.
    told = [f"{name} {arguments[name]}" for name in plain if arguments.get(name, plain[name]) != plain[name]]
    if told:
        yield "options", ", ".join(told).replace("_", " ")


def sources(index: dict[str, Any]) -> list[str]:
    sources = [f"{source['file']} ({byte_count(source['bytes'])})" for source in index["sources"]]
    return sources if len(sources) <= 8 else [*sources[:7], f"and {len(sources) - 7:,} more"]


def shard_rows(shards: list[dict[str, Any]]) -> list[Row]:
    if len(shards) > 20:
        return [*shard_rows(shards[:18]), (f"… {len(shards) - 19:,} more",), *shard_rows(shards[-1:])]
    return [
        (
            shard["file"],
            plural(shard["bins"], "bin"),
            plural(shard["rows"], "row"),
            f"{shard['tokens']:,} tokens",
            byte_count(shard["bytes"]),
        )
        for shard in shards
    ]


def histogram(lengths: Any) -> None:
    import numpy as np

    order = np.sort(lengths)
    told = (
        ("shortest", f"{order[0]:,}"),
        ("median", f"{np.median(order):,.1f}".removesuffix(".0")),
        ("mean", f"{order.mean():,.0f}"),
        ("longest", f"{order[-1]:,}"),
    )
    print("  " + "   ".join(f"{name} {value}" for name, value in told))
    edges = round_edges(int(order[0]), int(order[-1]))
    counts = np.diff(np.searchsorted(order, edges)).tolist()
    wide = len(f"{edges[-1] - 1:,}")
    for first, after, count in zip(edges, edges[1:], counts, strict=False):
        drawn = bar(count / max(counts), 40)
        bounds = " to ".join(f"{bound:>{wide},}" for bound in (first, after - 1))
        print(f"  {bounds}  {drawn:<40} {count:>{len(f'{max(counts):,}')},}")


def quantiles(lengths: Any) -> dict[str, float]:
    """The lengths that so many rows do not exceed, and the mean."""
    import numpy as np

    shares = {"min": 0, "p10": 0.1, "p50": 0.5, "p90": 0.9, "p99": 0.99, "max": 1}
    found = np.quantile(lengths, list(shares.values())) if len(lengths) else np.zeros(len(shares))
    mean = float(np.mean(lengths)) if len(lengths) else 0.0
    return {**dict(zip(shares, found.tolist(), strict=True)), "mean": mean}


def round_edges(least: int, most: int) -> list[int]:
    """Round bounds of about ten equal ranges that hold both."""
    step = 1
    while (most // step) - (least // step) + 1 > 12:
        leading = str(step)[0]
        step = step * 5 // 2 if leading == "2" else step * 2
    return list(range(least // step * step, most + step + 1, step))


def bar(share: float, width: int) -> str:
    eighths = round(share * width * 8)
    if share and not eighths:
        eighths = 1
    full, rest = divmod(eighths, 8)
    return "█" * full + " ▏▎▍▌▋▊▉"[rest] * (rest > 0)


def shape(shape: list[Any]) -> str:
    return f"[{', '.join(str(n) for n in shape)}]"


def plural(count: int, noun: str) -> str:
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def byte_count(count: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} B" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:,.1f} TB"


def count(count: float) -> str:
    for unit in ("", " k", " M"):
        if count < 1000:
            return f"{count:.0f}" if not unit else f"{count:.1f}{unit}"
        count /= 1000
    return f"{count:,.1f} G"


def peak_memory() -> list[Row]:
    try:
        import resource
    except ModuleNotFoundError:  # Windows
        return []
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return [("peak memory", byte_count(peak * (1 if sys.platform == "darwin" else 1024)))]


def heading(text: str) -> None:
    print(f"\n{text}")


def table(
    rows: Iterable[Row],
    *,
    numbers: bool = False,
    width: int | None = None,
    styles: Sequence[str] | None = None,
) -> None:
    """Print rows with their columns aligned.

    Args:
        rows: of cells.
        numbers: align all but the first column to the right.
        width: cut lines that are longer.
        styles: how each row is shown.
    """
    found = [tuple(map(plain, row)) for row in rows]
    widths = [max(map(len, cells)) for cells in transposed(found)]
    for i, row in enumerate(found):
        cells = (
            cell.rjust(wide) if j and numbers else cell.ljust(wide)
            for j, (cell, wide) in enumerate(zip(row, widths, strict=False))
        )
        line = ("  " + "  ".join(cells)).rstrip()
        if width is not None and len(line) > width:
            line = line[: width - 1] + "…"
        print(f"{styles[i]}{line}{_PLAIN}" if styles and styles[i] else line)


def plain(text: str) -> str:
    """Text that stays in its line and tells a terminal nothing: names may hold anything."""
    if text.isprintable():
        return text
    escaped = (c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
    return "".join(escaped)


def transposed(rows: list[Row]) -> list[list[str]]:
    longest = max((len(row) for row in rows), default=0)
    return [[row[i] for row in rows if i < len(row)] for i in range(longest)]
