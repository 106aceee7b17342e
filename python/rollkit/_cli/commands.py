"""The command line: its commands, and how it ends."""

from __future__ import annotations

import io
import sys
import warnings
from collections.abc import Sequence

from rollkit import _program
from rollkit._cli import convert, info, inspect, pack, rows, stats, text, verify
from rollkit._cli.arguments import Parser, Version

_INTERRUPTED, _BROKEN_PIPE = 130, 141


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
            raise text.closed()
        with warnings.catch_warnings():
            warnings.simplefilter("default")  # told, whatever the environment makes of warnings
            warnings.simplefilter("ignore", ResourceWarning)  # Ctrl-C came between `open` and `with`
            warnings.showwarning = lambda message, *_, **__: text.complain(f"warning: {message}")
            status: int = options.run(options)
        if sys.stdout is not None:
            sys.stdout.flush()
    except BrokenPipeError:  # the reader, `head` say, has seen enough
        status = _BROKEN_PIPE
    except KeyboardInterrupt as error:
        text.complain("interrupted", error)
        status = _INTERRUPTED
    except OSError as error:
        text.complain(_told(error), error)
        status = text.FAILED
    except (ValueError, TypeError, OverflowError, IndexError, ImportError) as error:
        text.complain(str(error), error)
        status = text.FAILED
    except MemoryError as error:
        text.complain(
            "out of memory; --chunk-rows, --bins-per-shard and --capacity bound what is held at a time", error
        )
        status = text.FAILED
    text.give_up(sys.stdout)
    return status


def _told(error: OSError) -> str:
    said = error.strerror or str(error)
    return said if error.filename is None else f"{error.filename}: {said}"


def _parser() -> Parser:
    parser = Parser(
        prog="rollkit", description="Pack LLM rollouts into training batches, and look at what came out."
    )
    parser.add_argument("--version", action=Version, nargs=0, help="print the version and exit")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    for add in (
        pack.add,
        inspect.add,
        verify.add,
        rows.add_head,
        rows.add_show,
        stats.add,
        convert.add,
        info.add,
    ):
        add(commands)
    return parser
