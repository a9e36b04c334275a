"""tokens/s and MFU of the trainer on a GPU, beside a bare compiled loop: Llama 3.2 shapes of 1B and 3B, bf16.

`gpu.py [--shapes 1b,3b] [--tokens 4096,8192] [--steps 10] [--rounds 2] [--out FILE]`; `--device cpu` runs the same code
with a tiny shape, uncompiled: it shows that it runs and says nothing of speed. Needs torch, numpy and safetensors.

Ours is `train_step` over a stream in memory, as a job calls it: layers compiled, deterministic kernels, chunked
cross-entropy, fp32 weights and AdamW. The bare loop is the same model compiled whole, with torch's cross-entropy over
all logits, torch's fused AdamW and clipping, and no deterministic kernels. The sides are built, warmed up, timed and
freed one after the other, `--rounds` times; the median over all steps counts. Weights are random, as speed is the
same. MFU is the trainer's own (cpt_ml/mfu.py: PaLM's formula, over the peak that it knows by the device's name).
"""

from __future__ import annotations

import argparse
import gc
import json
import shlex
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

home = Path(__file__).parents[3]
sys.path[:0] = [str(home / "ml"), str(home / "ml" / "tests" / "gpu")]

import torch  # noqa: E402
from cpt_ml import numerics, train  # noqa: E402
from cpt_ml.adamw import AdamW  # noqa: E402
from cpt_ml.llama import Llama, LlamaConfig  # noqa: E402
from cpt_ml.mfu import FORMULA, TERA, measure_against  # noqa: E402
from cpt_ml.train_state import TrainState  # noqa: E402

from phase import MemoryStream, Size, fill, make_request  # noqa: E402

WARM_UP = 3
LEAST, LEAST_MFU = 0.95, 0.5
ROPE = {"rope_type": "llama3", "rope_theta": 500_000.0, "factor": 32.0, "low_freq_factor": 1.0,
        "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}  # fmt: skip


@dataclass(frozen=True)
class Shape:
    """A published model's shape, and how many tokens of it are computed at a time."""

    name: str
    config: LlamaConfig
    micro_batch_tokens: int


def llama(  # noqa: PLR0917
    width: int, mlp_width: int, layers: int, heads: int, kv_heads: int, vocabulary: int
) -> LlamaConfig:
    return LlamaConfig(
        vocabulary=vocabulary, width=width, mlp_width=mlp_width, layers=layers, heads=heads, kv_heads=kv_heads,
        head_width=width // heads, norm_epsilon=1e-5, rope=ROPE, tied=True, attention_bias=False, mlp_bias=False,
        max_positions=131_072,
    )  # fmt: skip


SHAPES = {
    "1b": Shape("Llama-3.2-1B", llama(2048, 8192, 16, 32, 8, 128_256), 16_384),
    "3b": Shape("Llama-3.2-3B", llama(3072, 8192, 28, 24, 8, 128_256), 8_192),
    "tiny": Shape("tiny", llama(64, 128, 2, 4, 2, 512), 64),
}


def main() -> None:
    args = arguments()
    if args.device == "cpu":
        torch.set_num_threads(1)
    rows: list[dict[str, Any]] = []
    for name in args.shapes.split(","):
        for tokens in (int(t) for t in args.tokens.split(",")):
            rows += measure(SHAPES[name], tokens, args)
    about = {"device": torch.cuda.get_device_name() if args.device == "cuda" else "cpu", "torch": torch.__version__,
             "formula": FORMULA, "date": time.strftime("%Y-%m-%d"),
             "command": shlex.join(["gpu.py", *sys.argv[1:]])}  # fmt: skip
    text = json.dumps({"about": about, "rows": rows}, indent=1)
    print(text)
    if args.out:
        args.out.write_text(text + "\n")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    parser.add_argument("--shapes", default=None)
    parser.add_argument("--tokens", default=None)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--out", type=Path, default=None)
    args = parser.parse_args()
    on_gpu = args.device == "cuda"
    args.shapes = args.shapes or ("1b,3b" if on_gpu else "tiny")
    args.tokens = args.tokens or ("4096,8192" if on_gpu else "32")
    if on_gpu and not torch.cuda.is_available():
        parser.error("torch sees no CUDA device here; --device cpu runs the same code with a tiny shape")
    if unknown := [s for s in args.shapes.split(",") if s not in SHAPES]:
        parser.error(f"--shapes: expected some of {','.join(SHAPES)}, got {unknown[0]}")
    return args


def measure(shape: Shape, tokens: int, args: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Rows of a shape at a length of sequence: speed beside the bare loop, and both sides' share of the peak."""
    micro_batch = max(1, shape.micro_batch_tokens // tokens)
    size = Size(0, 0, 0, shape.config.vocabulary, tokens, 2 * micro_batch, 0)
    seconds: dict[str, list[float]] = {"ours": [], "bare": []}
    memory: dict[str, int] = {}
    for _ in range(args.rounds):
        for side, build in (("ours", ours), ("bare", bare)):
            memory[side] = timed(build, shape, size, micro_batch, args, seconds[side])
    batch = tokens * size.sequences
    speed = {side: batch / median(of) for side, of in seconds.items()}
    ratio = speed["ours"] / speed["bare"]
    used = measure_against(shape.config, tokens, args.device, "bfloat16", devices=1)
    what = f"{shape.name}, sequences of {tokens}"
    yield {"measure": f"tokens trained, {what}", "ours": speed["ours"], "peer": speed["bare"],
           "peerName": "a bare compiled loop", "unit": "tokens/s", "ratio": ratio, "goal": f">= {LEAST}",
           "holds": ratio >= LEAST}  # fmt: skip
    mfu, mfu_of_bare = used.of(speed["ours"]), used.of(speed["bare"])
    if used.peak_flops is not None and mfu is not None and mfu_of_bare is not None:
        aimed = tokens >= 8192
        holds = not aimed or mfu >= LEAST_MFU
        yield {"measure": f"MFU, {what}", "ours": mfu, "peer": mfu_of_bare, "peerName": "a bare compiled loop",
               "unit": f"of {used.peak_flops / TERA:.0f} TFLOP/s", "ratio": mfu / mfu_of_bare,
               "goal": f">= {LEAST_MFU}" if aimed else "printed", "holds": holds}  # fmt: skip
    if args.device == "cuda":
        yield {"measure": f"memory peak, {what}", "ours": memory["ours"] / 2**30, "peer": memory["bare"] / 2**30,
               "peerName": "a bare compiled loop", "unit": "GiB", "ratio": memory["ours"] / memory["bare"],
               "goal": "printed", "holds": True}  # fmt: skip


Step = Callable[[], Any]


def timed(  # noqa: PLR0917
    build: Callable[[Shape, Size, int, argparse.Namespace], Step],
    shape: Shape,
    size: Size,
    micro_batch: int,
    args: argparse.Namespace,
    seconds: list[float],
) -> int:
    """Builds a side, warms it up, times its steps, frees it; returns the peak of its memory in bytes (GPU)."""
    on_gpu = args.device == "cuda"
    if on_gpu:
        torch.cuda.reset_peak_memory_stats()
    step = build(shape, size, micro_batch, args)
    for i in range(WARM_UP + args.steps):
        began = time.perf_counter()
        step()
        if on_gpu:
            torch.cuda.synchronize()
        if i >= WARM_UP:
            seconds.append(time.perf_counter() - began)
    peak = torch.cuda.max_memory_allocated() if on_gpu else 0
    del step
    gc.collect()
    if on_gpu:
        torch.compiler.reset()
        torch.cuda.empty_cache()
    return peak


def new_model(config: LlamaConfig, device: str) -> Llama:
    with torch.device(device):
        model = Llama(config)
    fill(model, seed=0)
    return model


def ours(shape: Shape, size: Size, micro_batch: int, args: argparse.Namespace) -> Step:
    numerics.prepare(torch.get_num_threads(), seed=0)
    steps = WARM_UP + args.steps
    request = make_request(replace(size, steps=steps), "bfloat16", steps)
    model = new_model(shape.config, args.device)
    if args.device == "cuda":
        model.compile_layers()
    state = TrainState(model, AdamW(model.named_parameters(), request.optimizer))
    stream: Any = MemoryStream(size, steps)
    return lambda: train.train_step(request, stream, state, micro_batch, args.device)


def bare(shape: Shape, size: Size, micro_batch: int, args: argparse.Namespace) -> Step:
    torch.use_deterministic_algorithms(False)
    model = new_model(shape.config, args.device)
    matrices = [p for p in model.parameters() if p.ndim >= 2]
    vectors = [p for p in model.parameters() if p.ndim < 2]
    optimizer = torch.optim.AdamW(
        [{"params": matrices, "weight_decay": 0.1}, {"params": vectors, "weight_decay": 0.0}],
        lr=1e-3, betas=(0.9, 0.95), fused=True,
    )  # fmt: skip

    def loss_of(ids_BT: torch.Tensor, targets_BT: torch.Tensor) -> torch.Tensor:
        with torch.autocast(args.device, torch.bfloat16):
            logits_BTV = model(ids_BT)
        return torch.nn.functional.cross_entropy(logits_BTV.flatten(0, 1).float(), targets_BT.flatten())

    compiled = torch.compile(loss_of, dynamic=False) if args.device == "cuda" else loss_of
    steps = WARM_UP + args.steps
    tokens = torch.from_numpy(MemoryStream(size, steps).sequences(0, size.sequences * steps, size.tokens))
    batches = iter(tokens.split(size.sequences))

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        parts = next(batches).split(micro_batch)
        for part in parts:
            sent = part.to(args.device, non_blocking=True)
            (compiled(sent[:, :-1], sent[:, 1:]) / len(parts)).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()

    return step


if __name__ == "__main__":
    main()
