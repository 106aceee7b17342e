"""What a run writes about itself, read back: JSON of a known shape, or an error that says what differs."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from rollkit._check import MOST
from rollkit._errors import refusal

SOURCE: Final = {"file": str, "bytes": int, "sha256": str}
SHARD: Final = {"file": str, "bins": int, "rows": int, "tokens": int, "bytes": int, "sha256": str}
# A mapping of "*" has any keys, a list any number of entries.
CONTENTS: Final = {"columns": {"*": {"dtype": str, "shape": [object]}}, "rows": {"*": str}}
DERIVED_SHAPE: Final = {"derived": [str]}
"""What the contents of format 1 do not have."""
JOB: Final = {
    "format": int,
    "rollkit": str,
    "arguments": {"capacity": int, "algorithm": str},
    "sources": [SOURCE],
}
TOTALS: Final = dict.fromkeys(("rows", "tokens", "bins", "width", "dropped", "truncated"), int)

PLAN_SHAPE: Final = JOB | {"plan_sha256": str}
RECORD_SHAPE: Final = {"shard": SHARD, "contents": CONTENTS | DERIVED_SHAPE, "seal": str}
INDEX_SHAPE: Final = PLAN_SHAPE | CONTENTS | {"totals": TOTALS | {"utilisation": float}, "shards": [SHARD]}


def read_state(path: Path, what: str, shape: Mapping[str, Any]) -> dict[str, Any]:
    """Read a file of JSON that has all that `shape` says, and perhaps more.

    Args:
        path: the file.
        what: what it should be, for the message.
        shape: by key, the type of the value, or its shape.

    Raises:
        ValueError: it is no JSON, or of another shape; the message says where.
        FileNotFoundError: there is no such file.
    """
    try:
        found: dict[str, Any] = json.loads(path.read_bytes())
        wrong = misfit(found, shape)
    except (ValueError, RecursionError) as error:
        wrong = str(error)
    if wrong is not None:
        raise refusal(ValueError, f"not {what} that rollkit wrote: {wrong}", path=path)
    return found


def seal(found: Mapping[str, Any]) -> str:
    """A digest of JSON: damage that leaves its shape is found."""
    return hashlib.sha256(json.dumps(found, sort_keys=True).encode()).hexdigest()


def misfit(found: Any, shape: Any, place: str = "") -> str | None:
    """The first thing in JSON that is not as `shape` says, in words; None if all is."""
    if isinstance(shape, type):
        return None if _is(found, shape) else f"{_named(place)} is {_shown(found)}, expected {shape.__name__}"
    kind = list if isinstance(shape, list) else dict
    if not isinstance(found, kind):
        return f"{_named(place)} is {_shown(found)}, expected {kind.__name__}"
    if isinstance(found, list):
        entries = [(f"{place}[{i}]", entry, shape[0]) for i, entry in enumerate(found)]
    elif "*" in shape:
        entries = [(f"{place}.{key}", entry, shape["*"]) for key, entry in found.items()]
    else:
        missing = next((key for key in shape if key not in found), None)
        if missing is not None:
            return f"{_named(f'{place}.{missing}')} is missing"
        entries = [(f"{place}.{key}", found[key], wanted) for key, wanted in shape.items()]
    return next((text for at, entry, wanted in entries if (text := misfit(entry, wanted, at))), None)


def _is(found: Any, kind: type) -> bool:
    """Whether a value is of a type; a number is no bool, an int is a float too. Counts are 0 or more."""
    if kind is object:
        return True
    if isinstance(found, bool):
        return False
    if isinstance(found, int) and kind in (int, float):
        return 0 <= found <= MOST
    return isinstance(found, kind)


def _named(place: str) -> str:
    return place.removeprefix(".") or "it"


def _shown(found: Any) -> str:
    text = repr(found)
    return text if len(text) <= 40 else text[:37] + "…"
