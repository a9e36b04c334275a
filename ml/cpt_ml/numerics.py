"""What decides the bits of a training run beside its request: recorded with every checkpoint, compared on resume."""

from __future__ import annotations

import os
from typing import Any

import torch

from cpt_ml.store import Json


def prepare(threads: int, seed: int) -> str:
    """Sets threads, seed and deterministic kernels; returns the device to train on."""
    torch.set_num_threads(threads)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cuda":
        # the kernels in use on a CPU are deterministic anyway, and the flag imports torch._inductor, 3 s of a start
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True)
        # the flag would also fill each new tensor with NaN: no result of ours reads memory it has not written
        deterministic: Any = torch.utils.deterministic
        deterministic.fill_uninitialized_memory = False
    torch.manual_seed(seed)
    return device


def fingerprint(device: str, dtype: str, micro_batch: int, processes: int = 1, replicas: int = 1) -> Json:
    """With all of these unchanged, a killed and resumed run ends with the bits of an undisturbed one."""
    return {
        "torch": torch.__version__,
        "device": torch.cuda.get_device_name() if device == "cuda" else "cpu",
        "cpuCapability": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
        "dtype": dtype,
        "microBatchSequences": micro_batch,
        **({"processes": processes, "replicas": replicas} if processes > 1 else {}),
    }
