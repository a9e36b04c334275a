"""Memory of a training run by part, per rank, computed before anything runs; `cpt plan` and `cpt train --dry` show it.

`python -m cpt_ml.memory_plan` reads a PlanRequest as JSON from standard input and prints what fits. The formulas follow
train.py, llama.py and cross_entropy.py; tests hold them to what torch saves for the backward pass, to the local shards
that `fully_shard` makes, and to the peak that torch's memory tracker sees. All sizes are bytes of one rank, the first,
which has the largest shards. Shape letters: D width, F width of the MLP, H heads, Q head width, V vocabulary, T tokens.

A compiled model (placement.compile) keeps less than is computed here: its norms and activations are fused.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from cpt_ml import contract
from cpt_ml.cross_entropy import CPU_LOGITS, GPU_LOGITS
from cpt_ml.errors import BadRequest
from cpt_ml.llama import LlamaConfig
from cpt_ml.mfu import FORMULA, TERA, flops_per_token, peak_flops, total_parameters
from cpt_ml.special_tokens import padded_rows, vocabulary_size
from cpt_ml.store import Json

FP32 = 4
GB = 1_000_000_000
# what the allocator cannot use of what it holds: between blocks, and in blocks of sizes that do not come again
FRAGMENTATION = 0.08
# CUDA's context, the kernels' workspaces and NCCL's channels, which no tensor shows
CONTEXT_BYTES = 2 * GB
# rows and columns of flex_attention's blocks
MASK_BLOCK = 128
# Python and torch themselves, resident on a CPU
LIBRARY_BYTES = 400_000_000

Shape = tuple[int, ...]
Phase = Literal["loss", "backward", "end of backward"]
Part = Literal[
    "parameters", "optimizer moments", "gradients", "unsharded layers", "unsharded embedding and head",
    "gradient buffers", "activations", "document masks", "one layer's backward", "loss",
]  # fmt: skip


@dataclass(frozen=True)
class Layout:
    """How a phase is spread over ranks and cut into micro-batches.

    `shard` ranks hold one copy of the parameters together, `replicas` such copies exist (HSDP where above 1). Every
    `checkpoint_every`-th layer keeps only its input and is computed again: 1 is every layer, 0 none. `masked`: the
    documents of a window are hidden from each other.
    """

    shard: int
    replicas: int
    micro_batch: int
    sequence_tokens: int
    dtype: Literal["float32", "bfloat16"]
    checkpoint_every: int
    gpu: bool
    masked: bool = False

    @property
    def ranks(self) -> int:
        return self.shard * self.replicas

    @property
    def wrapped(self) -> bool:
        """Whether `fully_shard` holds the parameters; a rank alone has plain tensors, and computes bf16 by autocast."""
        return self.ranks > 1

    @property
    def compute_bytes(self) -> int:
        return 2 if self.dtype == "bfloat16" else FP32

    @property
    def tokens(self) -> int:
        """Tokens of a micro-batch."""
        return self.micro_batch * self.sequence_tokens


@dataclass(frozen=True)
class Memory:
    """Bytes of each part in each phase of a step; the peak is the phase whose parts sum to the most."""

    phases: dict[Phase, dict[Part, int]]
    gpu: bool

    @property
    def peak_phase(self) -> Phase:
        return max(self.phases, key=lambda p: sum(self.phases[p].values()))

    @property
    def tensors(self) -> int:
        """Bytes of all tensors at the peak."""
        return sum(self.phases[self.peak_phase].values())

    @property
    def reserve(self) -> int:
        """What is set aside beside the tensors."""
        return int(self.tensors * FRAGMENTATION) + (CONTEXT_BYTES if self.gpu else LIBRARY_BYTES)

    @property
    def total(self) -> int:
        return self.tensors + self.reserve


def layer_shapes(c: LlamaConfig) -> Iterator[Shape]:
    """Shapes of one layer's parameters."""
    heads, kv = c.heads * c.head_width, c.kv_heads * c.head_width
    yield from ((heads, c.width), (kv, c.width), (kv, c.width), (c.width, heads))
    yield from ((c.mlp_width, c.width), (c.mlp_width, c.width), (c.width, c.mlp_width))
    yield from ((c.width,), (c.width,))
    if c.attention_bias:
        yield from ((heads,), (kv,), (kv,), (c.width,))
    if c.mlp_bias:
        yield from ((c.mlp_width,), (c.mlp_width,), (c.width,))


def root_shapes(c: LlamaConfig) -> Iterator[Shape]:
    """Shapes of what is in no layer: embedding, final norm, and a head of its own."""
    yield (c.vocabulary, c.width)
    yield (c.width,)
    if not c.tied:
        yield (c.vocabulary, c.width)


def shard_elements(shape: Shape, shard: int) -> int:
    """Elements of the first rank's shard: `fully_shard` cuts the first dimension into equal pieces, rounded up."""
    rows, rest = shape[0], 1
    for n in shape[1:]:
        rest *= n
    return -(-rows // shard) * rest


def sharded_elements(c: LlamaConfig, shard: int) -> int:
    """Elements of the parameters that the first of `shard` ranks holds."""
    layer = sum(shard_elements(s, shard) for s in layer_shapes(c))
    return c.layers * layer + sum(shard_elements(s, shard) for s in root_shapes(c))


def layer_activations(c: LlamaConfig, layout: Layout) -> int:
    """Bytes per token that one layer keeps for its backward pass where nothing is computed again.

    Each norm keeps its input in fp32, its scale and its normalised output; attention keeps q, k and v (k and v repeated
    for all heads), its output and one fp32 logarithm a head; the MLP four tensors of its width; and every linear its
    input. Where autocast computes in bf16 (a rank alone), norms stay in fp32 and each linear keeps a copy of its own.
    """
    e, heads = layout.compute_bytes, c.heads * c.head_width
    autocast = e < FP32 and not layout.wrapped
    norm = FP32 * c.width + FP32 + (FP32 if autocast else e) * c.width
    inputs = (5 if autocast else 2) * e * c.width
    attention = 4 * e * heads + FP32 * c.heads
    return 2 * norm + inputs + attention + 4 * e * c.mlp_width


def kept_activations(c: LlamaConfig, layout: Layout) -> int:
    """Bytes that a micro-batch keeps from its forward to its backward pass."""
    e, every = layout.compute_bytes, layout.checkpoint_every
    autocast = e < FP32 and not layout.wrapped
    stream = FP32 if autocast else e
    checkpointed = -(-c.layers // every) if every else 0
    layers = (c.layers - checkpointed) * layer_activations(c, layout) + checkpointed * stream * c.width
    final_norm = FP32 * c.width + FP32 + stream * c.width
    loss_gradient = e * c.width
    ids = 8
    # positions count within a document, so with masking each window has angles of its own
    rope = 2 * layout.sequence_tokens * c.head_width * stream * (layout.micro_batch if layout.masked else 1)
    return layout.tokens * (layers + final_norm + loss_gradient + ids) + rope


def document_masks(c: LlamaConfig, layout: Layout) -> int:
    """Bytes that keep the documents of a micro-batch apart, from its forward to its backward pass; 0 without masking.

    A GPU has the documents' numbers and one BlockMask for all layers: which blocks of MASK_BLOCK² scores hold any or
    nothing but what is seen, by rows and by columns. A CPU has a mask of all T² scores: each layer keeps one in the
    type it computes in, and layers that are computed again share one of booleans.
    """
    if not layout.masked:
        return 0
    length, every = layout.sequence_tokens, layout.checkpoint_every
    if layout.gpu:
        blocks = -(-length // MASK_BLOCK)
        return layout.micro_batch * (4 * 4 * (blocks + blocks**2) + 8 * length)
    keeping = c.layers - (-(-c.layers // every) if every else 0)
    return layout.micro_batch * length**2 * (layout.compute_bytes * keeping + (every > 0))


def layer_backward(c: LlamaConfig, layout: Layout) -> int:
    """Bytes while one layer goes backward: what it computes again, and gradients of its activations."""
    e = layout.compute_bytes
    again = layer_activations(c, layout) if layout.checkpoint_every else 0
    mask_again = layout.sequence_tokens * e if layout.masked and layout.checkpoint_every and not layout.gpu else 0
    return layout.tokens * (again + mask_again + 3 * e * c.mlp_width + 2 * FP32 * c.width)


def loss_bytes(c: LlamaConfig, layout: Layout) -> int:
    """Bytes inside of the chunked cross-entropy: a chunk of logits, the head's gradient and what is added to it."""
    e, head = layout.compute_bytes, c.vocabulary * c.width
    rows = min(layout.tokens, max(64, (GPU_LOGITS if layout.gpu else CPU_LOGITS) // c.vocabulary))
    narrow = e if e < FP32 else 0
    copy = 0 if layout.wrapped else narrow * head
    return rows * c.vocabulary * (FP32 + narrow) + FP32 * head + narrow * head + copy


def memory_of(c: LlamaConfig, layout: Layout) -> Memory:
    """Bytes by part of one rank in each phase of a step in which gradients of earlier micro-batches stand already."""
    e = layout.compute_bytes
    own = FP32 * sharded_elements(c, layout.shard)
    layer = sum(shard_elements(s, 1) for s in layer_shapes(c))
    root = sum(shard_elements(s, 1) for s in root_shapes(c))
    head = c.vocabulary * c.width
    always: dict[Part, int] = {"parameters": own, "optimizer moments": 2 * own, "gradients": own}
    kept = kept_activations(c, layout)
    masks: dict[Part, int] = {"document masks": document_masks(c, layout)} if layout.masked else {}
    if layout.wrapped:
        # one layer computes, the next is gathered, and the buffer that the last one was copied from is let go of later
        gathered = 3 * e * layer
        # the gradient of one layer, the last one's on its way in fp32, and its sum over the ranks
        buffers = e * layer + FP32 * layer + FP32 * sum(shard_elements(s, layout.shard) for s in layer_shapes(c))
        roots = e * root
        ends = e * root + FP32 * root
    else:
        # autocast's copies of the weights live until the forward pass ends, and the linears keep them
        gathered = e * c.layers * layer if e < FP32 else 0
        buffers, roots, ends = FP32 * (c.width * c.mlp_width), 0, FP32 * head
    phases: dict[Phase, dict[Part, int]] = {
        "loss": {
            **always, "unsharded layers": min(gathered, e * layer) if layout.wrapped else gathered,
            "unsharded embedding and head": roots, "activations": kept, **masks, "loss": loss_bytes(c, layout),
        },
        "backward": {
            **always, "unsharded layers": gathered, "unsharded embedding and head": roots, "gradient buffers": buffers,
            "activations": kept, **masks, "one layer's backward": layer_backward(c, layout),
            "loss": (e if layout.wrapped else FP32) * head,
        },
        "end of backward": {
            **always, "unsharded embedding and head": roots, "gradient buffers": ends,
            "activations": FP32 * layout.tokens * c.width,
        },
    }  # fmt: skip
    return Memory(phases, layout.gpu)


@dataclass(frozen=True)
class PlanRequest:
    """What `cpt plan` asks: a model's shape, the training settings, and where it runs.

    `model` is a folder with a config.json. `ranks` processes train, one a device; `device` is the name of a GPU as
    torch gives it, or "cpu". `device_bytes` is the memory of one device (of a CPU: what a process may use), None if
    unknown. `peak_tflops` is the peak of one device where its owner states it, instead of the table in mfu.py.
    `tokenizer`: a tokenizer.json that takes the place of the model's; rows are padded to `vocabulary_multiple_of`.
    `evaluated_tokens`: what all evaluations of the training score together.
    """

    model: str
    tokenizer: str | None
    vocabulary_multiple_of: int
    tokens: int
    evaluated_tokens: int
    sequence_tokens: int
    global_batch_tokens: int
    batch_tokens: int
    dtype: Literal["float32", "bfloat16"]
    ranks: int
    replicas: int
    checkpoint_every: int
    device: str
    device_bytes: int | None
    assumed_mfu: float
    peak_tflops: float | None
    document_masking: bool


def layout_of(request: PlanRequest) -> Layout:
    """Raises BadRequest, naming the field, if ranks, replicas and batch do not fit each other."""
    if request.global_batch_tokens % request.sequence_tokens:
        raise BadRequest(
            f"training.globalBatchTokens {request.global_batch_tokens} is no multiple of "
            f"training.sequenceTokens {request.sequence_tokens}"
        )
    if request.ranks % request.replicas:
        raise BadRequest(
            f"placement.train.replicas {request.replicas} does not divide the {request.ranks} processes: "
            "give a divisor, so that each copy of the model has as many ranks"
        )
    sequences = request.global_batch_tokens // request.sequence_tokens
    if sequences < request.ranks:
        raise BadRequest(
            f"training.globalBatchTokens {request.global_batch_tokens} is {sequences} sequences, "
            f"fewer than the {request.ranks} processes: raise it, or use fewer processes"
        )
    most = -(-sequences // request.ranks)
    micro_batch = max(1, min(request.batch_tokens // request.sequence_tokens, most))
    return Layout(
        shard=request.ranks // request.replicas, replicas=request.replicas, micro_batch=micro_batch,
        sequence_tokens=request.sequence_tokens, dtype=request.dtype, checkpoint_every=request.checkpoint_every,
        gpu=request.device != "cpu", masked=request.document_masking,
    )  # fmt: skip


def advice(c: LlamaConfig, layout: Layout, device_bytes: int) -> list[str]:
    """What to change so that a layout that is too large fits: each line alone is enough, the mildest first."""

    def fits(changed: Layout) -> bool:
        return memory_of(c, changed).total <= device_bytes

    lines: list[str] = []
    smaller = next((m for m in range(layout.micro_batch - 1, 0, -1) if fits(replace(layout, micro_batch=m))), None)
    if smaller is not None:
        lines.append(f"placement.train.batchTokens {smaller * layout.sequence_tokens}: micro-batches of {smaller}")
    if layout.checkpoint_every != 1 and fits(replace(layout, checkpoint_every=1)):
        lines.append("placement.train.activationCheckpointing full: layers are computed again in the backward pass")
    if layout.replicas > 1:
        fewer = [r for r in range(layout.replicas - 1, 0, -1) if layout.ranks % r == 0]
        found = next((r for r in fewer if fits(replace(layout, replicas=r, shard=layout.ranks // r))), None)
        if found is not None:
            lines.append(f"placement.train.replicas {found}: each copy over {layout.ranks // found} devices")
    if lines:
        return lines
    least = replace(layout, micro_batch=1, checkpoint_every=1, shard=layout.ranks, replicas=1)
    if fits(least):
        together = "activationCheckpointing full and replicas 1 together"
        return [f"placement.train.batchTokens {layout.sequence_tokens}, {together}"]
    more = next((n for n in (2**i * layout.ranks for i in range(1, 12)) if fits(replace(least, shard=n))), None)
    if more is not None:
        return [f"at least {more} devices, with micro-batches of one sequence and activationCheckpointing full"]
    return ["a shorter training.sequenceTokens or devices with more memory: no number of these devices is enough"]


def plan(request: PlanRequest) -> Json:
    """Memory by part, whether it fits and what to change, speed and time at an assumed MFU where a peak is known."""
    c = LlamaConfig.read(Path(request.model))
    if request.tokenizer is not None:
        size = vocabulary_size(Path(request.tokenizer))
        c = replace(c, vocabulary=padded_rows(size, request.vocabulary_multiple_of))
    layout = layout_of(request)
    memory = memory_of(c, layout)
    sequences = request.global_batch_tokens // request.sequence_tokens
    steps = request.tokens // request.global_batch_tokens
    flops = flops_per_token(c, request.sequence_tokens)
    given = request.peak_tflops
    peak = given * TERA if given is not None else peak_flops(request.device, request.dtype)
    speed = None if peak is None else request.assumed_mfu * peak * layout.ranks / flops
    fits = None if request.device_bytes is None else memory.total <= request.device_bytes
    most, least = -(-sequences // layout.ranks), sequences // layout.ranks

    def hours(tokens: float) -> float | None:
        return None if speed is None else tokens / speed / 3600

    forward_alone = request.evaluated_tokens / 3
    return {
        "parameters": total_parameters(c),
        "vocabulary": c.vocabulary,
        "steps": steps,
        "tokens": steps * request.global_batch_tokens,
        "globalBatchTokens": request.global_batch_tokens,
        "sequences": sequences,
        "ranks": layout.ranks,
        "shard": layout.shard,
        "replicas": layout.replicas,
        "microBatchSequences": layout.micro_batch,
        "microBatchesPerRank": -(-most // layout.micro_batch),
        "sequencesPerRank": [least, most],
        "checkpointEvery": layout.checkpoint_every,
        "memory": {
            "phase": memory.peak_phase,
            "parts": memory.phases[memory.peak_phase],
            "phases": {p: sum(parts.values()) for p, parts in memory.phases.items()},
            "tensors": memory.tensors,
            "reserve": memory.reserve,
            "total": memory.total,
        },
        "deviceBytes": request.device_bytes,
        "fits": fits,
        "advice": advice(c, layout, request.device_bytes) if request.device_bytes is not None and not fits else [],
        "flopsPerToken": flops,
        "formula": FORMULA,
        "peakFlops": peak,
        "assumedMfu": request.assumed_mfu,
        "tokensPerSecond": speed,
        "hours": hours(request.tokens + forward_alone),
        "evaluationHours": hours(forward_alone),
    }


def main() -> int:
    """Answers the request on standard input; an error is an answer too: {"error": …}."""
    try:
        answer = plan(contract.parse(PlanRequest, json.loads(sys.stdin.buffer.read())))
    except (BadRequest, OSError, ValueError, KeyError) as e:
        print(json.dumps({"error": f"{e}" if isinstance(e, BadRequest | OSError) else f"{type(e).__name__}: {e}"}))
        return 1
    print(json.dumps(answer))
    return 0


if __name__ == "__main__":
    sys.exit(main())
