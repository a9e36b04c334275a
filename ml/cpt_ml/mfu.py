"""Model FLOPs utilisation: FLOPs that the model needs per token, over what the device could do at its peak.

Formula (PaLM, arXiv:2204.02311, appendix B): 6N + 12·L·H·Q·T FLOPs per token, forward and backward, with L layers, H
heads of width Q and T tokens of a sequence. N counts what is multiplied by: all parameters but the look-up table of the
embeddings, and the head always, so tied and untied models of one shape cost the same. Recomputed activations do not
count, and attention counts whole although it is causal, as the published tables do it (PaLM, torchtitan).
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cpt_ml.llama import LlamaConfig
    from cpt_ml.store import Json

FORMULA = "6N + 12·L·H·Q·T (PaLM appendix B; N without the embedding table, with the head; no recomputation)"

TERA = 1e12
# Dense bf16 peaks of the makers' data sheets, without sparsity, in TFLOP/s. The first entry whose words all stand in
# the device's name is meant, so a special form stands before its family.
BF16_TFLOPS: tuple[tuple[tuple[str, ...], float], ...] = (
    (("gb200",), 2500.0),
    (("b200",), 2250.0),
    (("h200", "nvl"), 835.0),
    (("h100", "nvl"), 835.0),
    (("h100", "pcie"), 756.0),
    (("gh200",), 989.0),
    (("h200",), 989.0),
    (("h100",), 989.0),
    (("h800",), 989.0),
    (("a100",), 312.0),
    (("a800",), 312.0),
    (("l40s",), 362.0),
    (("mi300x",), 1307.0),
    (("mi250x",), 383.0),
)


@dataclass(frozen=True)
class Utilisation:
    """How a speed becomes a share of the peak: of `devices` devices with `peak_flops` FLOP/s each, None if unknown."""

    flops_per_token: int
    peak_flops: float | None
    devices: int

    def of(self, tokens_per_second: float) -> float | None:
        """MFU of all devices together, 0 to 1; None where no peak is known, as on a CPU."""
        if self.peak_flops is None:
            return None
        return tokens_per_second * self.flops_per_token / (self.peak_flops * self.devices)

    def stated(self) -> Json:
        """What a reader needs to check a figure."""
        return {"formula": FORMULA, "flopsPerToken": self.flops_per_token, "peakFlops": self.peak_flops,
                "devices": self.devices}  # fmt: skip


def layer_parameters(c: LlamaConfig) -> int:
    """Parameters of one layer: attention, gated MLP, two norms, and biases where the model has them."""
    heads, kv = c.heads * c.head_width, c.kv_heads * c.head_width
    attention = c.width * (2 * heads + 2 * kv) + (heads + 2 * kv + c.width) * c.attention_bias
    mlp = 3 * c.width * c.mlp_width + (2 * c.mlp_width + c.width) * c.mlp_bias
    return attention + mlp + 2 * c.width


def embedding_parameters(c: LlamaConfig) -> int:
    """Parameters of the embedding table, and of the head, which has the same shape."""
    return c.vocabulary * c.width


def total_parameters(c: LlamaConfig) -> int:
    """All parameters; a tied head is counted once, as the embedding."""
    return c.layers * layer_parameters(c) + c.width + embedding_parameters(c) * (1 if c.tied else 2)


def flops_per_token(c: LlamaConfig, sequence_tokens: int) -> int:
    """FLOPs of one token's forward and backward pass, by FORMULA."""
    multiplied = c.layers * layer_parameters(c) + c.width + embedding_parameters(c)
    return 6 * multiplied + 12 * c.layers * c.heads * c.head_width * sequence_tokens


def peak_flops(device_name: str, dtype: str) -> float | None:
    """Dense FLOP/s of one device, by the name that torch.cuda.get_device_name() gives; None if no figure is known.

    Only bfloat16 has figures: in float32 a GPU's peak depends on whether TF32 is allowed.
    """
    if dtype != "bfloat16":
        return None
    name = device_name.lower()
    return next((t * TERA for words, t in BF16_TFLOPS if all(w in name for w in words)), None)


def measure_against(  # noqa: PLR0917
    c: LlamaConfig, sequence_tokens: int, device: str, dtype: str, devices: int, given_tflops: float | None = None
) -> Utilisation:
    """The utilisation of a run on `devices` devices of the kind this process has.

    `given_tflops` is the peak of one device in TFLOP/s where its owner states it; it goes before the table.
    """
    peak = None if given_tflops is None else given_tflops * TERA
    if peak is None and device.startswith("cuda"):
        import torch  # noqa: PLC0415

        peak = peak_flops(torch.cuda.get_device_name(), dtype)
    return Utilisation(flops_per_token(c, sequence_tokens), peak, devices)


def memory_peak_bytes(device: str) -> int:
    """The most memory so far: what torch had allocated on this GPU, or on a CPU what this process had resident."""
    if device.startswith("cuda"):
        import torch  # noqa: PLC0415

        return torch.cuda.max_memory_allocated()
    try:
        status = Path("/proc/self/status").read_text(encoding="ascii")
        return int(status.split("VmHWM:")[1].split()[0]) * 1024
    except (OSError, IndexError):
        import resource  # noqa: PLC0415

        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024
