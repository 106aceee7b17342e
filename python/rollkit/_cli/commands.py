"""The command line: `rollkit pack`, `rollkit inspect`, `rollkit info`."""

from __future__ import annotations

import argparse
import io
import os
import platform
import sys
import time
import warnings
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, NoReturn, cast

from rollkit import _program
from rollkit._cli import text
from rollkit._rollouts.columns import LEVELS
from rollkit._rows.binpack import DEFAULTS, OVERSIZE, Packing

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

_PACKING: Final = {
    "algorithm": ("A", "how bins are filled (%(default)s; see rollkit.plan_bins)"),
    "align": ("M", "rows start at multiples of M in a bin"),
    "max_segments": ("S", "at most S rows in a bin"),
    "oversize": (
        None,
        "what becomes of a row longer than N: an error (raise, the default), its first N tokens, "
        "a bin of its own, or nothing",
    ),
    "bins_multiple_of": ("B", "add empty bins up to a multiple of B"),
}
"""For each option of `Packing`, what stands for its value in the help, and what it does."""

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
        _program.release()
        options = _parser().parse_args(arguments)
        if sys.stdout is None and not getattr(options, "quiet", False):
            raise OSError("standard output is closed; redirect it, to /dev/null if it is not wanted")
        with warnings.catch_warnings():
            warnings.simplefilter("default")  # told, whatever the environment makes of warnings
            warnings.simplefilter("ignore", ResourceWarning)  # Ctrl-C came between `open` and `with`
            warnings.showwarning = lambda message, *_, **__: _complain(f"warning: {message}")
            status: int = options.run(options)
        if sys.stdout is not None:
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
        _complain(
            "out of memory; --chunk-rows, --bins-per-shard and --capacity bound what is held at a time", error
        )
    return _FAILED


def _complain(message: str, error: BaseException | None = None) -> None:
    """Say what is wrong, in one line."""
    parts = [message, *getattr(error, "__notes__", ())]
    if sys.stderr is None:  # closed; `print` would take standard output instead
        return
    print(f"rollkit: {' '.join('; '.join(parts).split())}", file=sys.stderr)


def _told(error: OSError) -> str:
    said = error.strerror or str(error)
    return said if error.filename is None else f"{error.filename}: {said}"


# Arguments.


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
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
    for name, default in DEFAULTS.items():
        metavar, told = _PACKING[name]
        add(
            f"--{name.replace('_', '-')}",
            type=str if isinstance(default, str) else _positive,
            default=default,
            choices=OVERSIZE if name == "oversize" else None,
            metavar=metavar,
            help=told,
        )
    add("--pad-id", type=int, default=0, metavar="I", help="token id of padding (0)")
    add("--skip-column", action="append", default=[], metavar="NAME", help="leave a column out; repeatable")
    add(
        "--level",
        action="append",
        default=[],
        type=_level,
        metavar="NAME=LEVEL",
        help="what a column has an element for: prompt, response, sequence or row; repeatable",
    )
    add(
        "--rename",
        action="append",
        default=[],
        type=_rename,
        metavar="OLD=NEW",
        help="rename a column; repeatable",
    )
    add(
        "--nonfinite",
        choices=("raise", "keep", "null"),
        default="raise",
        help="what becomes of NaN and Infinity in JSONL (raise)",
    )
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


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """Say what is wrong with the arguments in one line."""
        _complain(f"{message}; {self.prog} --help says what there is")
        self.exit(2)


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


def _rename(text: str) -> tuple[str, str]:
    old, _, new = text.partition("=")
    if not (old and new):
        raise argparse.ArgumentTypeError(f"expected OLD=NEW, got {text!r}")
    return old, new


def _level(text: str) -> tuple[str, str]:
    name, equals, level = text.rpartition("=")
    if not (name and equals and level in LEVELS):
        known = ", ".join(LEVELS)
        raise argparse.ArgumentTypeError(f"expected NAME=LEVEL, with a level of {known}, got {text!r}")
    return name, level


# Commands.


def _pack(options: argparse.Namespace) -> int:
    from rollkit._files import stream

    _check_plot(options.plot)
    begun = time.perf_counter()
    wanted = stream.Options(
        capacity=options.capacity,
        pad_id=options.pad_id,
        bins_per_shard=options.bins_per_shard,
        skip_columns=options.skip_column,
        levels=dict(options.level),
        chunk_rows=options.chunk_rows,
        nonfinite=options.nonfinite,
        rename=dict(options.rename),
        **cast(Packing, {name: getattr(options, name) for name in DEFAULTS}),
    )
    watch = text.Progress() if _is_terminal() and not options.quiet else stream.unwatched
    index = stream.write_shards(options.sources, options.out, wanted, resume=options.resume, watch=watch)
    seconds = time.perf_counter() - begun
    if options.plot:
        _plot(options.out, options.plot)
    if not options.quiet:
        totals = index["totals"]
        text.table(
            [
                *text.counts(index),
                ("seconds", f"{seconds:.2f} ({text.count(totals['tokens'] / seconds)} tokens/s)"),
                *text.peak_memory(),
                ("written to", str(options.out)),
                *([("picture", options.plot)] if options.plot else []),
            ]
        )
    return 0


def _is_terminal() -> bool:
    return sys.stderr is not None and sys.stderr.isatty()


def _inspect(options: argparse.Namespace) -> int:
    from rollkit._files import shards

    _check_plot(options.plot)
    index = shards.read_index(options.folder)
    wrong = shards.check_shards(options.folder, verify=options.verify)
    for message in wrong:
        _complain(message)
    if wrong:
        return _FAILED
    layout = shards.read_layout(options.folder)
    text.table(
        [
            *text.counts(index),
            *text.arguments(index["arguments"]),
            *((("sources" if i == 0 else ""), told) for i, told in enumerate(text.sources(index))),
        ]
    )
    text.heading("Row lengths")
    text.histogram(layout.row_lengths)
    text.heading("Columns per token")
    text.table((name, found["dtype"], text.shape(found["shape"])) for name, found in index["columns"].items())
    if index["rows"]:
        text.heading("Columns per row")
        text.table((name, "objects" if kind == "json" else kind) for name, kind in index["rows"].items())
    text.heading("Shards" + (" (contents verified)" if options.verify else ""))
    text.table(text.shard_rows(index["shards"]), numbers=True)
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

    text.table(
        [
            ("rollkit", f"{_native.__version__} ({_native.build_profile} build)"),
            ("python", f"{platform.python_version()} ({platform.python_implementation()})"),
            ("numpy", np.__version__),
            ("platform", f"{platform.system()} {platform.machine()}"),
            ("cpus", f"{_cpus()} usable, {os.cpu_count()} in the machine"),
        ]
    )
    text.heading("Optional packages")
    text.table((package, version(package, name)) for package, name in OPTIONAL)
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
    from rollkit._files.read import local_path

    local_path(path)
    known = extra("matplotlib.backend_bases", "plot").FigureCanvasBase.get_supported_filetypes()
    if Path(path).suffix.removeprefix(".").lower() not in known:
        raise ValueError(f"{path}: no picture format; a name that ends in .png, .svg or .pdf has one")
    if not Path(path).parent.is_dir():
        raise FileNotFoundError(2, "no such folder for the picture", str(Path(path).parent))


def _plot(folder: str, path: str) -> None:
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
