"""torch: log-probabilities picked from logits, a part at a time in both directions."""

from collections.abc import Iterator
from typing import Any, Final

from rollkit._extras import extra

torch = extra("torch", "torch")

PART: Final = 1 << 24
"""Elements of a part: 64 MB in float32."""


def picked(logits: Any, rows: Any, ids: Any, *, repeats: int, normalised: bool) -> Any:
    """`[E]` float32: what row `rows[i]` has for `ids[i]`, normalised."""
    if normalised:
        return logits[rows, ids].float()
    found, _ = _Picked.apply(logits, rows, ids, repeats)
    return found


def _parts(begin: int, end: int, width: int) -> Iterator[slice]:
    step = max(PART // max(width, 1), 1)
    return (slice(i, min(i + step, end)) for i in range(begin, end, step))


class _Picked(torch.autograd.Function):  # type: ignore[misc,name-defined]
    """The gradient is made from the logits again: what is kept is one number a row."""

    @staticmethod
    def forward(logits: Any, rows: Any, ids: Any, repeats: int) -> tuple[Any, Any]:
        found = torch.empty(len(rows), dtype=torch.float32, device=logits.device)
        totals = torch.empty_like(found)
        for part in _parts(0, len(rows), logits.shape[1]):
            values = logits[rows[part]].float()
            totals[part] = values.logsumexp(-1)
            found[part] = values.gather(1, ids[part, None]).squeeze(1) - totals[part]
        return found, totals

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Any, Any]) -> None:
        _, totals = output
        ctx.mark_non_differentiable(totals)
        *arrays, ctx.repeats = inputs
        ctx.save_for_backward(*arrays, totals)

    @staticmethod
    @torch.autograd.function.once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, grad: Any, _: Any) -> tuple[Any, None, None, None]:
        logits, rows, ids, totals = ctx.saved_tensors
        found = torch.zeros_like(logits)

        def shares(part: slice) -> Any:
            share = (logits[rows[part]].float() - totals[part, None]).exp_()
            share *= -grad[part, None]
            return share.scatter_add_(1, ids[part, None], grad[part, None]).to(found.dtype)

        single = len(rows) - ctx.repeats
        for part in _parts(0, single, logits.shape[1]):
            found[rows[part]] = shares(part)
        for part in _parts(single, len(rows), logits.shape[1]):
            found.index_add_(0, rows[part], shares(part))
        return found, None, None, None
