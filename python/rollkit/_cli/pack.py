"""`rollkit pack`."""

from __future__ import annotations

import argparse
import sys
import time
from functools import partial
from typing import Any, Final, cast

from rollkit._cli import pictures, text
from rollkit._cli.arguments import FILES, Parser, add_json, add_reading, level, positive, seed
from rollkit._cli.progress import watching
from rollkit._rows.binpack import DEFAULTS, ORDERS, OVERSIZE, Packing

_PACKING: Final = {
    "algorithm": ("A", "how bins are filled ({default}; see rollkit.plan_bins)"),
    "align": ("M", "rows start at multiples of M in a bin"),
    "max_segments": ("S", "at most S rows in a bin"),
    "oversize": (
        None,
        "what becomes of a row longer than N: an error (raise, the default), its first N tokens, "
        "a bin of its own, nothing, or pieces of N tokens",
    ),
    "bins_multiple_of": ("B", "add empty bins up to a multiple of B"),
    "order": (
        None,
        "of the bins: shuffled, the default, or opened, in which the longest rows come first",
    ),
    "seed": ("S", "of the shuffled order ({default})"),
}
"""For each option of `Packing`, what stands for its value in the help, and what it does."""

_PACKED: Final = DEFAULTS | {"order": "shuffled", "seed": 0}
"""What holds of these where nothing is said: what trains on shards in their order wants it shuffled."""

_VALUES: Final = _PACKED | {
    "pad_id": 0,
    "skip_column": (),
    "level": (),
    "rename": (),
    "nonfinite": "raise",
    "bins_per_shard": 64,
    "chunk_rows": 256,
    **dict.fromkeys(("out", "capacity", "plot", "config", "ray")),
    **dict.fromkeys(("resume", "quiet", "json", "dry_run", "derived"), False),
}
"""What options are that neither the command line nor a file says."""


def add(commands: Any) -> None:
    """Add the command."""
    pack = commands.add_parser(
        "pack",
        help="pack rollouts into shards",
        description="Pack rollouts into bins of N tokens, and write them as safetensors shards. "
        "Memory stays bounded, whatever the size of the input.",
        epilog="Every row is checked before anything is written. A run that was killed leaves only whole "
        "shards; --resume completes it.",
        argument_default=argparse.SUPPRESS,  # so that what is said can be told from what is not
    )
    pack.add_argument("sources", nargs="+", metavar="SRC", help=FILES)
    _add_options(pack)
    names = {action.dest: action for action in pack._actions if action.option_strings}
    known = {name: action for name, action in names.items() if name not in ("help", "config")}
    pack.set_defaults(run=partial(_run, pack, known))


def _add_options(pack: Any) -> None:
    add = pack.add_argument
    add("-o", "--out", metavar="DIR", help="folder for the shards; made if missing")
    add("--capacity", type=positive, metavar="N", help="tokens of a bin")
    for name, default in _PACKED.items():
        metavar, told = _PACKING[name]
        add(
            f"--{name.replace('_', '-')}",
            type=str if isinstance(default, str) else seed if name == "seed" else positive,
            choices={"oversize": OVERSIZE, "order": ORDERS}.get(name),
            metavar=metavar,
            help=told.format(default=default),
        )
    add("--pad-id", type=int, metavar="I", help="token id of padding (0)")
    add("--skip-column", action="append", metavar="NAME", help="leave a column out; repeatable")
    add(
        "--level",
        action="append",
        type=level,
        metavar="NAME=LEVEL",
        help="what a column has an element for: prompt, response, sequence or row, with [] behind it where "
        "each element is a list (response[]); repeatable",
    )
    add_reading(pack)
    add("--bins-per-shard", type=positive, metavar="K", help="bins in a file (64)")
    add(
        "--derived",
        action="store_true",
        help="store segment ids, positions and spread rewards too, for readers that do not derive them",
    )
    add("--chunk-rows", type=positive, metavar="R", help="rows read at a time (256)")
    add("--plot", metavar="PNG", help="draw how full the bins are")
    add("--resume", action="store_true", help="complete a run that was interrupted")
    add(
        "--dry-run", action="store_true", help="say what bins there would be, by lengths alone; write nothing"
    )
    add("--config", metavar="FILE", help="options by their names, in TOML; the command line wins")
    add(
        "--ray",
        metavar="ADDRESS",
        help="let a Ray cluster read and write, to the same bytes; local starts one on this machine",
    )
    add("--quiet", action="store_true", help="no progress, no summary")
    add_json(pack)


def _run(parser: Parser, known: dict[str, argparse.Action], given: argparse.Namespace) -> int:
    from rollkit._cli.config import read_config
    from rollkit._cli.inputs import inputs

    said = vars(given)
    said = {**(read_config(said["config"], parser, known) if "config" in said else {}), **said}
    options = argparse.Namespace(**{**_VALUES, **said})
    if options.order == "opened":
        if "seed" in said:
            parser.error("--seed is of a shuffled order, so it does not go with --order opened")
        options.seed = None
    _check(parser, options)
    pictures.check_plot(options.plot)
    begun = time.perf_counter()
    with inputs(options.sources) as sources:
        found = (_plan if options.dry_run else _write)(options, sources)
    found["seconds"] = time.perf_counter() - begun
    if options.plot:
        pictures.plot(options.out, options.plot)
    if options.json:
        text.json_object(found)
    elif not options.quiet:
        _show(options, found)
    return 0


def _check(parser: Parser, options: argparse.Namespace) -> None:
    """Refuse options that are missing, or do not go together."""
    missing = [] if options.dry_run or options.out is not None else ["-o/--out"]
    missing += ["--capacity"] if options.capacity is None else []
    if missing:
        parser.error(f"the following arguments are required: {', '.join(missing)}")
    if options.dry_run and (options.plot or options.resume):
        parser.error("--dry-run writes nothing, so --plot and --resume do not go with it")
    if options.dry_run and options.ray:
        parser.error("--dry-run reads lengths alone, here, so --ray does not go with it")
    if options.json and options.quiet:
        parser.error("--json writes, and --quiet does not; give one of them")
    if sys.stdout is None and not options.quiet:
        raise text.closed()


def _write(options: argparse.Namespace, sources: Any) -> dict[str, Any]:
    how: dict[str, Any] = {"resume": options.resume, "watch": watching(options.quiet)}
    if options.ray is None:
        from rollkit._files.stream import write_shards

        index = write_shards(sources, options.out, _stream(options), **how)
    else:
        from rollkit.ray._shards import written_at

        index = written_at(options.ray, sources, options.out, _stream(options), **how)
    size = sum(shard["bytes"] for shard in index["shards"])
    return {**index["totals"], "shards": len(index["shards"]), "bytes": size, "out": options.out}


def _plan(options: argparse.Namespace, sources: Any) -> dict[str, Any]:
    from rollkit._files.stream import plan_shards

    return {**plan_shards(sources, _stream(options), watch=watching(options.quiet)), "out": None}


def _stream(options: argparse.Namespace) -> Any:
    from rollkit._files import stream

    return stream.Options(
        capacity=options.capacity,
        pad_id=options.pad_id,
        bins_per_shard=options.bins_per_shard,
        skip_columns=options.skip_column,
        levels=dict(options.level),
        chunk_rows=options.chunk_rows,
        nonfinite=options.nonfinite,
        rename=dict(options.rename),
        derived=options.derived,
        **cast(Packing, {name: getattr(options, name) for name in DEFAULTS}),
    )


def _show(options: argparse.Namespace, found: dict[str, Any]) -> None:
    seconds = found["seconds"]
    done = (
        [("written to", str(options.out))]
        if found["out"] is not None
        else [("written", "nothing: a dry run")]
    )
    text.table(
        [
            *text.totals(found, found["shards"], found["bytes"], about=options.dry_run),
            ("seconds", f"{seconds:.2f} ({text.count(found['tokens'] / seconds)} tokens/s)"),
            *text.peak_memory(),
            *done,
            *([("picture", options.plot)] if options.plot else []),
        ]
    )
