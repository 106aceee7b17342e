"""What the command line shows: tables, numbers, histograms, progress."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from typing import Any

from rollkit._rows.binpack import DEFAULTS

Row = tuple[str, ...]


class Progress:
    """A bar on the terminal, if tqdm is there."""

    def __call__(self, items: Iterable[Any], label: str, total: int | None) -> Iterable[Any]:
        try:
            from tqdm import tqdm
        except ModuleNotFoundError:
            return items
        unit = " chunks" if total is None else " shards"
        shown: Iterable[Any] = tqdm(items, desc=label, total=total, unit=unit, leave=False)
        return shown


def counts(index: dict[str, Any]) -> Iterator[Row]:
    totals, shards = index["totals"], index["shards"]
    odd = [f"{totals[name]:,} {name}" for name in ("truncated", "dropped") if totals[name]]
    yield "rows", f"{totals['rows']:,}" + (f" ({', '.join(odd)})" if odd else "")
    yield "tokens", f"{totals['tokens']:,}"
    yield "bins", f"{totals['bins']:,} of {totals['width']:,} tokens"
    yield "utilisation", f"{totals['utilisation']:.2%}".replace("%", " %")
    yield "shards", f"{len(shards):,} ({byte_count(sum(shard['bytes'] for shard in shards))})"


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


def table(rows: Iterable[Row], *, numbers: bool = False) -> None:
    """Print rows with their columns aligned, all but the first to the right if they are `numbers`."""
    found = [tuple(map(plain, row)) for row in rows]
    widths = [max(map(len, cells)) for cells in transposed(found)]
    for row in found:
        cells = (
            cell.rjust(width) if i and numbers else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=False))
        )
        print(("  " + "  ".join(cells)).rstrip())


def plain(text: str) -> str:
    """Text that stays in its line and tells a terminal nothing: names may hold anything."""
    if text.isprintable():
        return text
    escaped = (c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
    return "".join(escaped)


def transposed(rows: list[Row]) -> list[list[str]]:
    longest = max((len(row) for row in rows), default=0)
    return [[row[i] for row in rows if i < len(row)] for i in range(longest)]
