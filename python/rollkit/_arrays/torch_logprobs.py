"""torch: log-probabilities picked from logits, a part at a time in both directions."""

from collections.abc import Iterator
from typing import Any, Final

from rollkit._extras import extra

torch = extra("torch", "torch")

PART: Final = 1 << 24
"""Elements of a part: 64 MB in float32."""


def picked(logits: Any, rows: Any, ids: Any, *, normalised: bool) -> Any:
    """`[E]` float32: what row `rows[i]` has for `ids[i]`, normalised."""
    if normalised:
        return logits[rows, ids].float()
    found, _ = _Picked.apply(logits, rows, ids)
    return found


def _parts(rows: Any, width: int) -> Iterator[slice]:
    step = max(PART // max(width, 1), 1)
    return (slice(i, i + step) for i in range(0, len(rows), step))


class _Picked(torch.autograd.Function):  # type: ignore[misc,name-defined]
    """The gradient is made from the logits again: what is kept is one number a row."""

    @staticmethod
    def forward(logits: Any, rows: Any, ids: Any) -> tuple[Any, Any]:
        found = torch.empty(len(rows), dtype=torch.float32, device=logits.device)
        totals = torch.empty_like(found)
        for part in _parts(rows, logits.shape[1]):
            values = logits[rows[part]].float()
            totals[part] = values.logsumexp(-1)
            found[part] = values.gather(1, ids[part, None]).squeeze(1) - totals[part]
        return found, totals

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Any, Any]) -> None:
        _, totals = output
        ctx.mark_non_differentiable(totals)
        ctx.save_for_backward(*inputs, totals)

    @staticmethod
    @torch.autograd.function.once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, grad: Any, _: Any) -> tuple[Any, None, None]:
        logits, rows, ids, totals = ctx.saved_tensors
        found = torch.zeros_like(logits)
        for part in _parts(rows, logits.shape[1]):
            share = (logits[rows[part]].float() - totals[part, None]).exp_()
            share *= -grad[part, None]
            share.scatter_add_(1, ids[part, None], grad[part, None])
            found[rows[part]] = share.to(found.dtype)
        return found, None, None
