"""Cross-entropy of a linear head without ever holding all logits: loss and both gradients, some rows at a time.

Shape suffixes: N targets, C targets of one chunk, D width, V vocabulary.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

CPU_LOGITS = 1 << 19  # 2 MiB of fp32 logits stay in a core's cache; measured 1.3 times as fast as all at once
GPU_LOGITS = 1 << 26


class LinearCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(  # noqa: PLR0917
        ctx: Any, hidden_ND: Tensor, head_VD: Tensor, targets_N: Tensor, compute: torch.dtype, masked: bool
    ) -> Tensor:
        count, vocabulary = hidden_ND.shape[0], head_VD.shape[0]
        rows = max(64, (CPU_LOGITS if hidden_ND.device.type == "cpu" else GPU_LOGITS) // vocabulary)
        weight_VD = head_VD.to(compute)
        grad_hidden_ND = torch.empty(hidden_ND.shape, dtype=compute, device=hidden_ND.device)
        # a sharded head comes in bfloat16: chunks are summed in float32 all the same
        grad_head_VD = torch.zeros(head_VD.shape, dtype=torch.float32, device=head_VD.device)
        total = torch.zeros((), dtype=torch.float64, device=hidden_ND.device)
        with torch.autocast(hidden_ND.device.type, enabled=False):
            for start in range(0, count, rows):
                h_CD = hidden_ND[start : start + rows].to(compute)
                t_C1 = targets_N[start : start + rows, None]
                counts_C1 = (t_C1 >= 0).float() if masked else None
                t_C1 = t_C1.clamp(min=0) if masked else t_C1
                logits_CV = (h_CD @ weight_VD.T).float()
                top_C1 = logits_CV.amax(1, keepdim=True)
                target_logit_C1 = logits_CV.gather(1, t_C1)
                logits_CV.sub_(top_C1).exp_()
                sums_C1 = logits_CV.sum(1, keepdim=True)
                nll_C1 = sums_C1.log() + top_C1 - target_logit_C1
                total += (nll_C1 if counts_C1 is None else nll_C1 * counts_C1).sum(dtype=torch.float64)
                # softmax minus one-hot: the gradient of each target's loss by its logits
                logits_CV.div_(sums_C1).scatter_add_(1, t_C1, torch.full_like(sums_C1, -1.0))
                if counts_C1 is not None:
                    logits_CV.mul_(counts_C1)
                grad_CV = logits_CV.to(compute)
                torch.mm(grad_CV, weight_VD, out=grad_hidden_ND[start : start + rows])
                if compute == torch.float32:
                    grad_head_VD.addmm_(grad_CV.T, h_CD)
                else:
                    grad_head_VD += grad_CV.T @ h_CD
        ctx.save_for_backward(grad_hidden_ND, grad_head_VD)
        ctx.hidden_dtype, ctx.head_dtype = hidden_ND.dtype, head_VD.dtype
        return total

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, None, None, None]:
        grad_hidden_ND, grad_head_VD = ctx.saved_tensors
        scale = grads[0].to(torch.float32)
        grad_head = grad_head_VD.mul_(scale).to(ctx.head_dtype)
        return (grad_hidden_ND * scale).to(ctx.hidden_dtype), grad_head, None, None, None


def linear_cross_entropy(
    hidden_ND: Tensor, head_VD: Tensor, targets_N: Tensor, compute: torch.dtype, masked: bool = False
) -> Tensor:
    """Sum of the targets' negative log-likelihood in nats (float64 scalar), matrix products in `compute`.

    With `masked` targets of -1 count for nothing, neither in the sum nor in a gradient.
    """
    return LinearCrossEntropy.apply(hidden_ND, head_VD, targets_N, compute, masked)  # pyright: ignore[reportReturnType]
