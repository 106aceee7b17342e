"""Which way a call took: through Rust, or by the framework of its arrays."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from rollkit._rows.ways import WATCHING, Way


@contextmanager
def ways() -> Iterator[Counter[Way]]:
    """Count how rows move meanwhile, in all threads: `"rust"`, or `"framework"` by that of the arrays.

    `place`, `take` and what is made of them count: one for each column that they move.

    Example:
        >>> import torch
        >>> from rollkit.compat.trl import pad
        >>> with ways() as taken:
        ...     _ = pad([torch.ones(2), torch.ones(1)])
        ...     _ = pad([torch.ones(2, requires_grad=True), torch.ones(1)])
        >>> taken
        Counter({'rust': 1, 'framework': 1})
    """
    counter: Counter[Way] = Counter()
    WATCHING.append(counter)
    try:
        yield counter
    finally:
        WATCHING[:] = [other for other in WATCHING if other is not counter]
