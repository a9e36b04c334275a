"""AdamW as plain state: moments by parameter name and a step count, so that a checkpoint is safetensors and no pickle.

Of a sharded parameter the moments are those of this process's rows. torch.optim.Optimizer objects would also import
torch._dynamo, 2 seconds of a job's start.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.optim.adamw import adamw

from cpt_ml.errors import BadRequest
from cpt_ml.parallel import local


@dataclass(frozen=True)
class OptimizerSettings:
    """contracts/src/train.ts; `clip_norm` limits the global gradient norm."""

    beta1: float
    beta2: float
    epsilon: float
    weight_decay: float
    clip_norm: float


class AdamW:
    """Decoupled weight decay (arXiv:1711.05101), none on vectors (norms, biases)."""

    def __init__(self, named: Iterable[tuple[str, torch.nn.Parameter]], settings: OptimizerSettings) -> None:
        self.settings = settings
        self.parameters: dict[str, Any] = dict(named)
        parts = {n: local(p).detach() for n, p in self.parameters.items()}
        self.m = {n: torch.zeros_like(p) for n, p in parts.items()}
        self.v = {n: torch.zeros_like(p) for n, p in parts.items()}
        self._steps = {n: torch.zeros((), dtype=torch.float32, device=p.device) for n, p in parts.items()}

    @property
    def steps(self) -> int:
        return int(next(iter(self._steps.values())).item())

    def zero_grad(self) -> None:
        for p in self.parameters.values():
            p.grad = None

    def gradients(self) -> list[Tensor]:
        """Of this process's rows."""
        return [local(p.grad) for p in self.parameters.values() if p.grad is not None]

    def gradient_norm(self) -> Tensor:
        """Of this process's rows, float32; it shows NaN and infinity."""
        return torch.nn.utils.get_total_norm(self.gradients())

    @torch.no_grad()
    def clip(self, norm: Tensor) -> None:
        """Scales the gradients so that their norm over all processes, which is given, is at most the limit."""
        scale = torch.clamp(self.settings.clip_norm / (norm + 1e-6), max=1.0)
        torch._foreach_mul_(self.gradients(), scale)  # pyright: ignore[reportPrivateUsage]

    @torch.no_grad()
    def step(self, lr: float) -> None:
        for decays in (True, False):
            # a process may have no row of a short parameter
            names = [n for n, p in self.parameters.items() if (p.ndim >= 2) == decays and self.m[n].numel()]
            if names:
                adamw(
                    [local(self.parameters[n]) for n in names],
                    [local(self.parameters[n].grad) for n in names],
                    [self.m[n] for n in names],
                    [self.v[n] for n in names],
                    [],
                    [self._steps[n] for n in names],
                    fused=True,
                    amsgrad=False,
                    beta1=self.settings.beta1,
                    beta2=self.settings.beta2,
                    lr=lr,
                    weight_decay=self.settings.weight_decay if decays else 0.0,
                    eps=self.settings.epsilon,
                    maximize=False,
                )
        for n, m in self.m.items():
            if not m.numel():
                self._steps[n] += 1

    def state(self) -> dict[str, Tensor]:
        """Moments as `m.<parameter>` and `v.<parameter>`; the step count is `steps`, kept as JSON beside them."""
        return {f"m.{n}": t for n, t in self.m.items()} | {f"v.{n}": t for n, t in self.v.items()}

    @torch.no_grad()
    def load(self, state: dict[str, Any], steps: int) -> None:
        """Takes a saved state up. Raises BadRequest if it is not of these parameters."""
        expected = self.state()
        if {k: v.shape for k, v in state.items()} != {k: v.shape for k, v in expected.items()}:
            raise BadRequest("train: the optimizer state does not fit the model")
        for name, tensor in expected.items():
            tensor.copy_(state[name])
        for s in self._steps.values():
            s.fill_(steps)
