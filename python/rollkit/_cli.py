"""The command line: `rollkit pack`, `rollkit inspect`, `rollkit info`."""

from __future__ import annotations

import argparse
import io
import os
import platform
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

Row = tuple[str, ...]

OPTIONAL: Final = (
    ("torch", "torch"),
    ("jax", "jax"),
    ("pyarrow", "arrow"),
    ("ray", "ray"),
    ("grain", "grain"),
    ("datasets", "datasets"),
    ("matplotlib", "plot"),
    ("safetensors", "cli"),
    ("tqdm", "cli"),
    ("ml_dtypes", ""),
)
"""Optional packages, and the extra that says which version."""

_FAILED, _INTERRUPTED, _BROKEN_PIPE = 1, 130, 141


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; return the exit status: 0, 1 for what is wrong with the input, 130 for Ctrl-C.

    Args:
        arguments: those of the process by default.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal that cannot show × shows ?
    try:
        options = _parser().parse_args(arguments)
        status: int = options.run(options)
        sys.stdout.flush()
        return status
    except BrokenPipeError:  # the reader, `head` say, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return _BROKEN_PIPE
    except KeyboardInterrupt as error:
        _complain("interrupted", error)
        return _INTERRUPTED
    except OSError as error:
        _complain(_told(error), error)
    except (ValueError, TypeError, OverflowError, ImportError) as error:
        _complain(str(error), error)
    except MemoryError as error:
        _complain("out of memory; --chunk-rows and --bins-per-shard bound what is held at a time", error)
    return _FAILED


def _complain(message: str, error: BaseException | None = None) -> None:
    """Say what is wrong, in one line."""
    parts = [message, *getattr(error, "__notes__", ())]
    print(f"rollkit: {' '.join('; '.join(parts).split())}", file=sys.stderr)


def _told(error: OSError) -> str:
    said = error.strerror or str(error)
    return said if error.filename is None else f"{error.filename}: {said}"


# Arguments.


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="rollkit", description="Pack LLM rollouts into training batches, and look at what came out."
    )
    parser.add_argument("--version", action=_Version, nargs=0, help="print the version and exit")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    _add_pack(commands)
    _add_inspect(commands)
    info = commands.add_parser("info", help="versions, build and optional packages")
    info.set_defaults(run=_info)
    return parser


def _add_pack(commands: Any) -> None:
    pack = commands.add_parser(
        "pack",
        help="pack rollouts into shards",
        description="Pack rollouts into bins of N tokens, and write them as safetensors shards. "
        "Memory stays bounded, whatever the size of the input.",
        epilog="Every row is checked before anything is written. A run that was killed leaves only whole "
        "shards; --resume completes it.",
    )
    pack.set_defaults(run=_pack)
    add = pack.add_argument
    add("sources", nargs="+", metavar="SRC", help="JSONL (.gz, .zst), Parquet or Arrow files")
    add("-o", "--out", required=True, metavar="DIR", help="folder for the shards; made if missing")
    add("--capacity", type=_positive, required=True, metavar="N", help="tokens of a bin")
    add("--align", type=_positive, default=1, metavar="M", help="rows start at multiples of M in a bin")
    add("--max-segments", type=_positive, metavar="S", help="at most S rows in a bin")
    add(
        "--algorithm",
        default="first_fit_decreasing",
        metavar="A",
        help="how bins are filled (%(default)s; see rollkit.plan_bins)",
    )
    add(
        "--oversize",
        default="raise",
        choices=("raise", "truncate", "alone", "drop"),
        help="what becomes of a row longer than N: an error (raise, the default), its first N tokens, "
        "a bin of its own, or nothing",
    )
    add("--pad-id", type=int, default=0, metavar="I", help="token id of padding (0)")
    add("--skip-column", action="append", default=[], metavar="NAME", help="leave a column out; repeatable")
    add("--bins-per-shard", type=_positive, default=64, metavar="K", help="bins in a file (64)")
    add("--chunk-rows", type=_positive, default=256, metavar="R", help="rows read at a time (256)")
    add("--plot", metavar="PNG", help="draw how full the bins are")
    add("--resume", action="store_true", help="complete a run that was interrupted")
    add("--quiet", action="store_true", help="no progress, no summary")


def _add_inspect(commands: Any) -> None:
    inspect = commands.add_parser(
        "inspect",
        help="what is in a folder of shards",
        description="Show what a folder of rollkit pack holds, and check its files against its index.",
    )
    inspect.set_defaults(run=_inspect)
    inspect.add_argument("folder", metavar="DIR")
    inspect.add_argument("--verify", action="store_true", help="compare contents too (SHA-256)")
    inspect.add_argument("--plot", metavar="PNG", help="draw how full the bins are")


class _Version(argparse.Action):
    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        from rollkit import __version__

        print(f"rollkit {__version__}")
        parser.exit()


def _positive(text: str) -> int:
    try:
        number = int(text.replace("_", ""))
    except ValueError:
        number = 0
    if number < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number of at least 1, got {text!r}")
    return number


# Commands.


def _pack(options: argparse.Namespace) -> int:
    from rollkit import _stream

    _check_plot(options.plot)
    begun = time.perf_counter()
    wanted = _stream.Options(
        capacity=options.capacity,
        align=options.align,
        max_segments=options.max_segments,
        algorithm=options.algorithm,
        oversize=options.oversize,
        pad_id=options.pad_id,
        bins_per_shard=options.bins_per_shard,
        skip_columns=tuple(options.skip_column),
        chunk_rows=options.chunk_rows,
    )
    watch = _Progress() if sys.stderr.isatty() and not options.quiet else _stream.unwatched
    index = _stream.write_shards(options.sources, options.out, wanted, resume=options.resume, watch=watch)
    seconds = time.perf_counter() - begun
    if options.plot:
        _plot(options.out, options.plot)
    if not options.quiet:
        totals = index["totals"]
        _table(
            [
                *_counts(index),
                ("seconds", f"{seconds:.2f} ({_count(totals['tokens'] / seconds)} tokens/s)"),
                *_peak_memory(),
                ("written to", str(options.out)),
                *([("picture", options.plot)] if options.plot else []),
            ]
        )
    return 0


def _inspect(options: argparse.Namespace) -> int:
    from rollkit import _shards

    _check_plot(options.plot)
    index = _shards.read_index(options.folder)
    wrong = _shards.check_shards(options.folder, verify=options.verify)
    for message in wrong:
        _complain(message)
    if wrong:
        return _FAILED
    layout = _shards.read_layout(options.folder)
    _table(
        [
            *_counts(index),
            *_arguments(index["arguments"]),
            *((("sources" if i == 0 else ""), told) for i, told in enumerate(_sources(index))),
        ]
    )
    _heading("Row lengths")
    _histogram(layout.row_lengths)
    _heading("Columns per token")
    _table((name, found["dtype"], _shape(found["shape"])) for name, found in index["columns"].items())
    if index["rows"]:
        _heading("Columns per row")
        _table((name, "objects" if kind == "json" else kind) for name, kind in index["rows"].items())
    _heading("Shards" + (" (contents verified)" if options.verify else ""))
    _table(_shard_rows(index["shards"]), numbers=True)
    if options.plot:
        _plot(options.folder, options.plot)
    return 0


def _info(_: argparse.Namespace) -> int:
    from importlib import metadata

    import numpy as np

    from rollkit import _native
    from rollkit._extras import how_to_install

    def version(package: str, name: str) -> str:
        try:
            return metadata.version(package)
        except metadata.PackageNotFoundError:
            return f"not installed ({how_to_install(name, package)})"

    _table(
        [
            ("rollkit", f"{_native.__version__} ({_native.build_profile} build)"),
            ("python", f"{platform.python_version()} ({platform.python_implementation()})"),
            ("numpy", np.__version__),
            ("platform", f"{platform.system()} {platform.machine()}"),
            ("cpus", f"{_cpus()} usable, {os.cpu_count()} in the machine"),
        ]
    )
    _heading("Optional packages")
    _table((package, version(package, name)) for package, name in OPTIONAL)
    return 0


def _cpus() -> int:
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity is not None else os.cpu_count() or 1


# Pictures.


def _check_plot(path: str | None) -> None:
    """Find out before the work whether a picture can be drawn after it."""
    if path is None:
        return
    from rollkit._extras import extra

    known = extra("matplotlib.backend_bases", "plot").FigureCanvasBase.get_supported_filetypes()
    if Path(path).suffix.removeprefix(".").lower() not in known:
        raise ValueError(f"{path}: no picture format; a name that ends in .png, .svg or .pdf has one")
    if not Path(path).parent.is_dir():
        raise FileNotFoundError(2, "no such folder for the picture", str(Path(path).parent))


def _plot(folder: str, path: str) -> None:
    from rollkit import _shards, plot

    layout = _shards.read_layout(folder)
    temporary = Path(path).with_name(f".{os.getpid()}-{Path(path).name}")
    try:
        plot.overview(layout).savefig(temporary)
        os.replace(temporary, path)
    finally:
        with suppress(FileNotFoundError):
            temporary.unlink()


# Text.


class _Progress:
    """A bar on the terminal, if tqdm is there."""

    def __call__(self, items: Iterable[Any], label: str, total: int | None) -> Iterable[Any]:
        try:
            from tqdm import tqdm
        except ModuleNotFoundError:
            return items
        unit = " chunks" if total is None else " shards"
        shown: Iterable[Any] = tqdm(items, desc=label, total=total, unit=unit, leave=False)
        return shown


def _counts(index: dict[str, Any]) -> Iterator[Row]:
    totals, shards = index["totals"], index["shards"]
    odd = [f"{totals[name]:,} {name}" for name in ("truncated", "dropped") if totals[name]]
    yield "rows", f"{totals['rows']:,}" + (f" ({', '.join(odd)})" if odd else "")
    yield "tokens", f"{totals['tokens']:,}"
    yield "bins", f"{totals['bins']:,} of {totals['width']:,} tokens"
    yield "utilisation", f"{totals['utilisation']:.2%}".replace("%", " %")
    yield "shards", f"{len(shards):,} ({_bytes(sum(shard['bytes'] for shard in shards))})"


def _arguments(arguments: dict[str, Any]) -> Iterator[Row]:
    yield "capacity", f"{arguments['capacity']:,}"
    yield "algorithm", str(arguments["algorithm"]).replace("_", " ")
    plain: dict[str, Any] = {
        "align": 1,
        "max_segments": None,
        "oversize": "raise",
        "pad_id": 0,
        "skip_columns": [],
    }
    told = [f"{name} {arguments[name]}" for name in plain if arguments[name] != plain[name]]
    if told:
        yield "options", ", ".join(told).replace("_", " ")


def _sources(index: dict[str, Any]) -> list[str]:
    sources = [f"{source['file']} ({_bytes(source['bytes'])})" for source in index["sources"]]
    return sources if len(sources) <= 8 else [*sources[:7], f"and {len(sources) - 7:,} more"]


def _shard_rows(shards: list[dict[str, Any]]) -> list[Row]:
    if len(shards) > 20:
        return [*_shard_rows(shards[:18]), (f"… {len(shards) - 19:,} more",), *_shard_rows(shards[-1:])]
    return [
        (
            shard["file"],
            _plural(shard["bins"], "bin"),
            _plural(shard["rows"], "row"),
            f"{shard['tokens']:,} tokens",
            _bytes(shard["bytes"]),
        )
        for shard in shards
    ]


def _histogram(lengths: Any) -> None:
    import numpy as np

    order = np.sort(lengths)
    told = (
        ("shortest", f"{order[0]:,}"),
        ("median", f"{np.median(order):,.0f}"),
        ("mean", f"{order.mean():,.0f}"),
        ("longest", f"{order[-1]:,}"),
    )
    print("  " + "   ".join(f"{name} {value}" for name, value in told))
    edges = _edges(int(order[0]), int(order[-1]))
    counts = np.diff(np.searchsorted(order, edges)).tolist()
    wide = len(f"{edges[-1] - 1:,}")
    for first, after, count in zip(edges, edges[1:], counts, strict=False):
        bar = _bar(count / max(counts), 40)
        bounds = " to ".join(f"{bound:>{wide},}" for bound in (first, after - 1))
        print(f"  {bounds}  {bar:<40} {count:>{len(f'{max(counts):,}')},}")


def _edges(least: int, most: int) -> list[int]:
    """Round bounds of about ten equal ranges that hold both."""
    step = 1
    while (most // step) - (least // step) + 1 > 12:
        leading = str(step)[0]
        step = step * 5 // 2 if leading == "2" else step * 2
    return list(range(least // step * step, most + step + 1, step))


def _bar(share: float, width: int) -> str:
    eighths = round(share * width * 8)
    if share and not eighths:
        eighths = 1
    full, rest = divmod(eighths, 8)
    return "█" * full + " ▏▎▍▌▋▊▉"[rest] * (rest > 0)


def _shape(shape: list[Any]) -> str:
    return f"[{', '.join(str(n) for n in shape)}]"


def _plural(count: int, noun: str) -> str:
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def _bytes(count: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} B" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:,.1f} TB"


def _count(count: float) -> str:
    for unit in ("", " k", " M"):
        if count < 1000:
            return f"{count:.0f}" if not unit else f"{count:.1f}{unit}"
        count /= 1000
    return f"{count:,.1f} G"


def _peak_memory() -> list[Row]:
    try:
        import resource
    except ModuleNotFoundError:  # Windows
        return []
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return [("peak memory", _bytes(peak * (1 if sys.platform == "darwin" else 1024)))]


def _heading(text: str) -> None:
    print(f"\n{text}")


def _table(rows: Iterable[Row], *, numbers: bool = False) -> None:
    """Print rows with their columns aligned, all but the first to the right if they are `numbers`."""
    found = list(rows)
    widths = [max(map(len, cells)) for cells in _transposed(found)]
    for row in found:
        cells = (
            cell.rjust(width) if i and numbers else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=False))
        )
        print(("  " + "  ".join(cells)).rstrip())


def _transposed(rows: list[Row]) -> list[list[str]]:
    longest = max((len(row) for row in rows), default=0)
    return [[row[i] for row in rows if i < len(row)] for i in range(longest)]
