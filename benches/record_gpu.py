"""Prove and time what rollkit does on a GPU: `python benches/record_gpu.py`, six minutes, no download.

Proofs come first, several at once: rows, forests, segments, masks, gradients and the sampler, by torch,
Triton and JAX, beside the host. Then times, one after the other, beside a copy of the same bytes and torch's
own ways. A part that fails, takes too long or takes its process with it is reported, and the others go on.
What came of it is printed, and written to benches/results/ with date, card and versions.

On a machine without a GPU the proofs are run on the CPU, a hundredth of the cases in about a minute, by the
operations that a device would be given; the first wrong result ends that. Either way the exit status is 1
where anything was wrong. `--times` runs the other half there too, in small, to see that it runs.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from gpu import parts
from gpu.child import Child

HERE = Path(__file__).parent
TO_IMPORT = 60.0
PATIENCE = {"cuda": 1, "cpu": 4}
Results = dict[str, dict[str, Any]]


class Record:
    """What came of parts, by name, and how much time there is."""

    def __init__(self, device: str, share: float, seconds: float) -> None:
        self.device, self.share = device, share
        self.begin = time.monotonic()
        self.until = self.begin + seconds
        self.about: dict[str, str] = {}
        self.results: Results = {}
        self.stopped = False

    @property
    def wrong(self) -> list[str]:
        """Parts that failed."""
        return [name for name, result in self.results.items() if "failed" in result]

    def run(self, names: list[str]) -> None:
        """Run parts in a process, and what is left in another where that ends."""
        while names and not self.stopped:
            done = self._once(names)
            names = names[max(done, 1) :]

    def _once(self, names: list[str]) -> int:
        """Run parts in one process; return how many came to an end, good or bad."""
        command = [sys.executable, __file__, "--child", self.device, str(self.share), *names]
        child = Child(command, self.device)
        done, begin, limit = 0, time.monotonic(), TO_IMPORT
        while done < len(names) and not self.stopped:
            name = names[done]
            try:
                event = child.next(min(begin + limit, self.until))
            except TimeoutError:
                self.stopped = time.monotonic() >= self.until
                self._failed(name, "no time is left" if self.stopped else f"not done in {limit:g} s")
                done += 1
                break
            except EOFError:
                if "failed" not in self.results.get(name, {}):
                    self._failed(name, f"its process ended with {child.end()}")
                done += 1
                break
            if "begin" in event:
                begin, limit = (
                    time.monotonic(),
                    parts.PARTS[name].seconds * (1 if self.device == "cuda" else 4),
                )
            done += self._take(name, event)
        child.end()
        return done

    def _take(self, name: str, event: dict[str, Any]) -> bool:
        """Keep what a process says of a part; return whether that is its end."""
        result = self.results.setdefault(name, {})
        if "failed" in event:
            self._failed(name, event["failed"], event["at"])
        elif "left_out" in event:
            result["left out"] = event["left_out"]
            print(f"LEFT OUT {name}: {event['left_out']}", flush=True)
        elif "found" in event:
            result.setdefault("found", []).append(event["found"])
            print(f"{name}: {_told(event['found'])}", flush=True)
        elif "end" in event:
            result["seconds"] = event["seconds"]
            print(f"  {event['seconds']:6.1f} s  {name}", flush=True)
        return "end" in event

    def _failed(self, name: str, error: str, at: str = "") -> None:
        result = self.results.setdefault(name, {})
        result["failed"] = f"{error} ({at})" if at else error
        print(f"FAILED {name}: {result['failed']}", flush=True)
        if self.device == "cpu":
            self.stopped = True


def _groups(names: list[str], device: str) -> Iterator[list[str]]:
    """Names of parts by process; a CPU has one for all, since most of its time goes into imports."""
    found: dict[str, list[str]] = {}
    for name in names:
        found.setdefault(parts.PARTS[name].process if device == "cuda" else "", []).append(name)
    yield from found.values()


def _told(found: Any) -> str:
    """A finding as a line."""
    return found if isinstance(found, str) else f"{found['what']} | {' | '.join(_cells(found))}"


def _cells(found: dict[str, Any]) -> list[str]:
    """Our time, the others as multiples of it, and what a copy would make of ours."""
    (name, ours), *others = found["ms"].items()
    cells = [f"{ours:.3f} ms{'' if name == 'rollkit' else f' ({name})'}"]
    told = [f"{other} {ms / ours:.2f} ×" for other, ms in others]
    told += [f"{other}: {error}" for other, error in found.get("failed", {}).items()]
    told += [f"{other} {size:.2f} GB" for other, size in found.get("peak GB", {}).items()]
    rate = f"{found['gb'] / ours * 1e3:,.0f} GB/s" if "gb" in found else ""
    return [*cells, ", ".join(told), rate]


def lines(record: Record) -> Iterator[str]:
    """The record in Markdown."""
    about, took = record.about, time.monotonic() - record.begin
    yield f"# {about.get('card', 'CPU, standing in for a GPU')}, {about.get('date', '')}"
    yield ""
    yield ", ".join(f"{name} {value}" for name, value in about.items() if name not in ("card", "date"))
    yield ""
    share = "" if record.share == 1 else f", {record.share:g} of the cases"
    yield f"`python benches/record_gpu.py` printed, in {took:.0f} s{share}:"
    for name, result in record.results.items():
        for word in ("failed", "left out"):
            if word in result:
                yield f"\n**{name}: {word}.** {result[word]}"
    yield "\n## Proved\n"
    for name, result in record.results.items():
        for found in result.get("found", []) if name.startswith("proof") else []:
            yield f"* {name.removeprefix('proof: ')}: {found}"
    yield "\n## Times\n"
    yield "Medians, contenders in turn, others as multiples of the first. Bytes are those that a copy reads."
    yield "\n| what | time | beside | bytes moved |\n|---|---|---|---|"
    for name, result in record.results.items():
        for found in result.get("found", []) if name.startswith("times") else []:
            yield f"| {found['what']} | {' | '.join(_cells(found))} |"


def write(record: Record, folder: Path) -> None:
    """Keep the record, as Markdown and as it is."""
    card = "".join(x if x.isalnum() else "-" for x in record.about.get("card", "cpu").lower())
    target = folder / f"gpu-{record.about.get('date', 'undated')}-{card}"
    folder.mkdir(parents=True, exist_ok=True)
    target.with_suffix(".md").write_text("\n".join(lines(record)) + "\n")
    raw = {"about": record.about, "share": record.share, "results": record.results}
    target.with_suffix(".json").write_text(json.dumps(raw, indent=1) + "\n")
    print(f"written to {target}.md and .json")


def _has_gpu() -> bool:
    import torch

    return torch.cuda.is_available()


def main() -> int:
    """Run the parts that are asked for, and say whether all went well."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cpu", action="store_true", help="leave a GPU alone")
    parser.add_argument("--share", type=float, help="of the cases: 1 on a GPU, 0.01 on a CPU")
    parser.add_argument("--times", action="store_true", help="on a CPU, run what is timed, too")
    parser.add_argument(
        "--parts", nargs="*", metavar="PART", help="only those whose name has one of these in it"
    )
    parser.add_argument("--seconds", type=float, help="in all: 350 on a GPU, 900 on a CPU")
    parser.add_argument(
        "--to", type=Path, help="a folder for the record; benches/results after a run on a GPU"
    )
    parser.add_argument("--no-write", action="store_true", help="only print")
    options = parser.parse_args()

    on_gpu = not options.cpu and _has_gpu()
    device = "cuda" if on_gpu else "cpu"
    record = Record(
        device, options.share or (1.0 if on_gpu else 0.01), options.seconds or (350 if on_gpu else 900)
    )
    record.about = parts.about(device)  # here: a process of JAX's is to load no torch
    wanted = [
        name
        for name in parts.PARTS
        if (on_gpu or options.times or name.startswith("proof"))
        and (options.parts is None or any(some in name for some in options.parts))
    ]
    if not wanted:
        parser.error(f"no such part; there are {', '.join(parts.PARTS)}")
    proofs = list(_groups([name for name in wanted if name.startswith("proof")], device))
    together = max(1, min(len(proofs), (os.cpu_count() or 1) // 2)) if on_gpu else 1
    with ThreadPoolExecutor(together) as pool:
        list(pool.map(record.run, proofs))
    for group in _groups([name for name in wanted if name.startswith("times")], device):
        record.run(group)
    for name in wanted:
        record.results.setdefault(name, {"left out": "it was not begun"})
    record.results = {name: record.results[name] for name in wanted}  # in order, however they were run

    folder = options.to or (HERE / "results" if on_gpu else None)
    if folder is not None and not options.no_write:
        write(record, folder)
    took = time.monotonic() - record.begin
    print(f"{len(wanted)} parts in {took:.0f} s on {record.about.get('card', 'the CPU')}: ", end="")
    print(f"wrong: {', '.join(record.wrong)}" if record.wrong else "all went well")
    return 1 if record.wrong else 0


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        kept = os.fdopen(os.dup(1), "w")
        os.dup2(2, 1)  # whatever else is printed goes beside
        parts.run(sys.argv[4:], sys.argv[2], float(sys.argv[3]), kept)
    else:
        sys.exit(main())
