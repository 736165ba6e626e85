"""How far two sets of next-token predictions are from each other, row by row."""

import numpy as np
import torch

from ..threads import spread
from .kernels import compare_rows


def divergences(full: torch.Tensor, degraded: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Compare two sets of next-token logits row by row.

    Args:
        full, degraded: float32 [n, vocab].
        targets: int64 [n], the script's next token, or -1 where it has none.

    Returns:
        float32 [5, n]: KL(full || degraded) >= 0 [nats], JS >= 0 [nats], whether the top-1 tokens agree, extra NLL
        of the target [nats] (0 without one), whether the degraded top-1 is the target. A tie for the top counts as
        agreement.
    """
    if full.device.type == "cpu" and full.is_contiguous() and degraded.is_contiguous():
        return _compiled(full, degraded, targets)
    # Masked vocabulary has logits of -inf; the bound turns inf - inf and 0 * inf into 0, and changes nothing else.
    log_p, log_q = (x.log_softmax(-1).clamp_min_(-1e4) for x in (full, degraded))
    p, q = log_p.exp(), log_q.exp()
    gap = log_p - log_q
    kl = (p * gap).sum(-1).clamp_min_(0.0)
    both = p + q
    log_m = (both * 0.5).clamp_min_(torch.finfo(p.dtype).tiny).log_()
    js = p.mul_(log_p).addcmul_(q, log_q).addcmul_(both, log_m, value=-1.0).sum(-1).mul_(0.5).clamp_min_(0.0)
    best, top = degraded.max(-1)  # several times faster than argmax on the CPU
    match = full.gather(1, top[:, None])[:, 0] >= full.amax(-1)
    known = targets >= 0
    chosen = targets.clamp_min(0)[:, None]
    nll = gap.gather(1, chosen)[:, 0] * known
    correct = (degraded.gather(1, chosen)[:, 0] >= best) & known
    return torch.stack([kl, js, match.to(kl.dtype), nll, correct.to(kl.dtype)])


def _compiled(full: torch.Tensor, degraded: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """The same on the CPU, in three passes over each row."""
    out = np.empty((6, len(full)), np.float32)
    arrays = full.numpy(), degraded.numpy(), targets.numpy(), out
    spread(len(full), full.numel(), lambda lo, hi: compare_rows(*arrays, lo, hi))
    out[:5, out[5] > 0] = np.nan
    return torch.from_numpy(out[:5])
