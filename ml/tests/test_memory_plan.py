"""Memory by part against what torch does: tensors saved for backward, local shards, and the peak of a tracked step."""

from __future__ import annotations

import functools
import json
import subprocess
import sys
from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.autograd.graph import saved_tensors_hooks

from cpt_ml.document_attention import block_mask
from cpt_ml.errors import BadRequest
from cpt_ml.llama import Llama, LlamaConfig
from cpt_ml.memory_plan import (
    GB,
    Layout,
    PlanRequest,
    advice,
    document_masks,
    kept_activations,
    layer_shapes,
    layout_of,
    memory_of,
    plan,
    root_shapes,
    shard_elements,
    sharded_elements,
)

ROOT = Path(__file__).parents[2]
SHAPES = ROOT / "samples" / "shapes"
SMALL = LlamaConfig(
    vocabulary=500, width=64, mlp_width=160, layers=4, heads=8, kv_heads=2, head_width=8, norm_epsilon=1e-5,
    rope={"rope_type": "default", "rope_theta": 1e4}, tied=False, attention_bias=False, mlp_bias=False,
    max_positions=256,
)  # fmt: skip
ALONE = Layout(
    shard=1, replicas=1, micro_batch=2, sequence_tokens=128, dtype="float32", checkpoint_every=0, gpu=False
)  # fmt: skip
LLAMA_8B = PlanRequest(
    model=str(SHAPES / "llama-3-8b"), tokenizer=None, vocabulary_multiple_of=1, tokens=10_000_000_000,
    evaluated_tokens=0, sequence_tokens=8192, global_batch_tokens=1_048_576, batch_tokens=8192, dtype="bfloat16",
    ranks=8, replicas=1, checkpoint_every=2, device="NVIDIA H100 80GB HBM3", device_bytes=80 * GB, assumed_mfu=0.4,
    peak_tflops=None, document_masking=False,
)  # fmt: skip
LLAMA_70B = replace(LLAMA_8B, model=str(SHAPES / "llama-3-70b"), ranks=64, checkpoint_every=1)


def saved_bytes(c: LlamaConfig, layout: Layout) -> int:
    """Bytes of distinct storages, parameters apart, that a forward pass with its loss keeps for the backward pass."""
    narrow = layout.dtype == "bfloat16"
    model = Llama(c)
    for p in model.parameters():
        torch.nn.init.normal_(p, std=0.02)
    if narrow and layout.wrapped:  # what fully_shard's policy gives the layers to compute with
        model = model.bfloat16()
    if layout.checkpoint_every:
        checkpoint_layers(model, layout.checkpoint_every)
    own = {p.untyped_storage().data_ptr() for p in model.parameters()}
    kept: dict[int, Any] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = tensor
        return tensor

    ids = torch.randint(0, c.vocabulary, (layout.micro_batch, layout.sequence_tokens + 1))
    documents = documents_of(layout) if layout.masked else None
    autocast = torch.autocast("cpu", torch.bfloat16, enabled=narrow and not layout.wrapped)
    with saved_tensors_hooks(pack, lambda t: t), autocast:
        model(ids[:, :-1], ids[:, 1:], torch.bfloat16 if narrow else torch.float32, documents)
    return sum(t.untyped_storage().nbytes() for t in kept.values())


def documents_of(layout: Layout) -> torch.Tensor:
    """Windows of three documents each, cut at other places."""
    generator = torch.Generator().manual_seed(0)
    cuts = torch.randint(1, layout.sequence_tokens, (layout.micro_batch, 2), generator=generator)
    return (torch.arange(layout.sequence_tokens)[None, None] >= cuts[:, :, None]).sum(1)


def checkpoint_layers(model: Llama, every: int) -> None:
    from torch.utils.checkpoint import checkpoint  # noqa: PLC0415

    for layer in list(model.model.layers)[::every]:
        layer.forward = functools.partial(checkpoint, layer.forward, use_reentrant=False)


@pytest.mark.parametrize("every", [0, 1, 2])
@pytest.mark.parametrize(
    "layout",
    [
        ALONE,
        replace(ALONE, dtype="bfloat16", shard=2),
        replace(ALONE, dtype="bfloat16"),
        replace(ALONE, micro_batch=5),
        replace(ALONE, masked=True),
        replace(ALONE, dtype="bfloat16", shard=2, masked=True, micro_batch=3),
        replace(ALONE, dtype="bfloat16", masked=True),
    ],
    ids=[
        "fp32",
        "bf16 wrapped",
        "bf16 autocast",
        "fp32, five sequences",
        "fp32 masked",
        "bf16 wrapped, masked",
        "bf16 autocast, masked",
    ],
)
def test_the_activations_kept_are_those_that_torch_saves(layout: Layout, every: int) -> None:
    layout = replace(layout, checkpoint_every=every)
    head_gradient = SMALL.vocabulary * SMALL.width * 4
    # autocast's copies of the weights are the part `unsharded layers`
    copies = memory_of(SMALL, layout).phases["loss"]["unsharded layers"] if not layout.wrapped else 0
    if every:
        copies = copies * (SMALL.layers - -(-SMALL.layers // every)) // SMALL.layers
    saved = saved_bytes(SMALL, layout) - head_gradient - copies
    assert kept_activations(SMALL, layout) + document_masks(SMALL, layout) == pytest.approx(saved, rel=0.02)


@pytest.mark.parametrize("length", [128, 1000, 4096])
def test_the_masks_of_a_gpu_are_the_tensors_of_flex_attentions_block_mask(length: int) -> None:
    layout = replace(ALONE, gpu=True, masked=True, sequence_tokens=length, micro_batch=3)
    documents = documents_of(layout)
    mask = block_mask(documents)
    tensors = [t for t in vars(mask).values() if isinstance(t, torch.Tensor)]
    assert len(tensors) == 8
    assert document_masks(SMALL, layout) == sum(t.nbytes for t in (*tensors, documents))
    assert document_masks(SMALL, replace(layout, masked=False)) == 0


@contextmanager
def fake_world(ranks: int) -> Generator[None]:
    """A process group of one process that believes it is the first of many."""
    import torch.distributed as dist  # noqa: PLC0415
    from torch.testing._internal.distributed.fake_pg import FakeStore  # noqa: PLC0415

    dist.init_process_group("fake", store=FakeStore(), rank=0, world_size=ranks)
    try:
        yield
    finally:
        dist.destroy_process_group()


def mesh_of(layout: Layout) -> Any:
    from torch.distributed.device_mesh import init_device_mesh  # noqa: PLC0415

    if layout.replicas > 1:
        return init_device_mesh("cpu", (layout.replicas, layout.shard), mesh_dim_names=("replicate", "shard"))
    return init_device_mesh("cpu", (layout.shard,))


def wrap(model: Llama, layout: Layout, mesh: Any) -> None:
    """`fully_shard` on every layer and on the root, as training does it."""
    from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard  # noqa: PLC0415

    narrow = layout.dtype == "bfloat16"
    policy = MixedPrecisionPolicy(torch.bfloat16, torch.float32) if narrow else MixedPrecisionPolicy()
    for layer in model.model.layers:
        fully_shard(layer, mesh=mesh, mp_policy=policy)
    fully_shard(model, mesh=mesh, mp_policy=policy)


@pytest.mark.parametrize(
    ("request_", "replicas"), [(LLAMA_8B, 1), (LLAMA_8B, 2), (LLAMA_70B, 1), (LLAMA_70B, 2)],
    ids=["8B on 8", "8B on 2 x 4", "70B on 64", "70B on 2 x 32"],
)  # fmt: skip
def test_a_large_model_is_built_and_sharded_into_the_pieces_that_were_computed(
    request_: PlanRequest, replicas: int
) -> None:
    layout = layout_of(replace(request_, replicas=replicas))
    c = LlamaConfig.read(Path(request_.model))
    with fake_world(layout.ranks):
        with torch.device("meta"):
            model = Llama(c)
        wrap(model, layout, mesh_of(layout))
        pieces = [(tuple(p.shape), p.to_local().numel()) for p in model.parameters()]  # pyright: ignore
    expected = [*root_shapes(c), *(s for _ in range(c.layers) for s in layer_shapes(c))]
    assert sorted(pieces) == sorted((s, shard_elements(s, layout.shard)) for s in expected)
    state = memory_of(c, layout).phases["backward"]
    local = 4 * sum(n for _, n in pieces)
    assert (state["parameters"], state["optimizer moments"], state["gradients"]) == (local, 2 * local, local)


def test_a_shard_of_rows_that_do_not_divide_is_the_first_ranks_larger_one() -> None:
    odd = replace(SMALL, vocabulary=501)
    with fake_world(4):
        with torch.device("meta"):
            model = Llama(odd)
        layout = replace(ALONE, shard=4)
        wrap(model, layout, mesh_of(layout))
        assert sum(p.to_local().numel() for p in model.parameters()) == sharded_elements(odd, 4)  # pyright: ignore


@pytest.mark.parametrize(
    "layout",
    [
        Layout(8, 1, 1, 1024, "float32", 0, gpu=False),
        Layout(8, 1, 2, 1024, "bfloat16", 0, gpu=False),
        Layout(8, 1, 2, 1024, "bfloat16", 1, gpu=False),
        Layout(4, 2, 2, 1024, "bfloat16", 2, gpu=False),
    ],
    ids=["fp32", "bf16", "bf16, all layers computed again", "bf16 HSDP, every second layer"],
)
def test_the_peak_of_a_tracked_step_is_at_most_what_was_computed_and_at_least_four_fifths(layout: Layout) -> None:
    """torch's FSDPMemTracker counts every storage of two micro-batches that run on fake tensors, gradients kept."""
    from torch._subclasses.fake_tensor import FakeTensorMode  # noqa: PLC0415
    from torch.distributed._tools.fsdp2_mem_tracker import FSDPMemTracker  # noqa: PLC0415

    c = replace(SMALL, layers=8, width=1024, mlp_width=3584, heads=16, kv_heads=4, head_width=64, vocabulary=16000)
    compute = torch.bfloat16 if layout.dtype == "bfloat16" else torch.float32
    with ExitStack() as stack:
        stack.enter_context(fake_world(layout.ranks))
        mesh = mesh_of(layout)
        stack.enter_context(FakeTensorMode(allow_non_fake_inputs=True))
        model = Llama(c)
        if layout.checkpoint_every:
            checkpoint_layers(model, layout.checkpoint_every)
        wrap(model, layout, mesh)
        optimizer = torch.optim.AdamW(model.parameters())
        tracker = FSDPMemTracker(model, optimizer)  # pyright: ignore[reportArgumentType]
        tracker.track_inputs(())
        ids = torch.randint(0, c.vocabulary, (layout.micro_batch, layout.sequence_tokens + 1))
        with tracker:
            for micro_batch in range(2):
                model(ids[:, :-1], ids[:, 1:], compute).backward()
                if micro_batch == 0:
                    optimizer.step()
                    tracker.reset_mod_stats()
        tracked = next(iter(tracker.get_tracker_snapshot("peak").values()))["Total"]
    computed = memory_of(c, layout).tensors
    assert 0.8 * computed <= tracked <= computed


@pytest.mark.parametrize("request_", [LLAMA_8B, LLAMA_70B], ids=["8B on 8", "70B on 64"])
def test_the_shipped_shapes_fit_80_gb_with_their_reserve(request_: PlanRequest) -> None:
    made = plan(request_)
    memory = made["memory"]
    assert made["fits"] is True
    assert made["advice"] == []
    assert memory["total"] == memory["tensors"] + memory["reserve"] <= 80 * GB
    assert memory["tensors"] == sum(memory["parts"].values())
    assert memory["reserve"] >= 2 * GB + 0.08 * memory["tensors"] - 1


def test_a_micro_batch_that_is_too_large_does_not_fit_and_one_that_does_is_named() -> None:
    made = plan(replace(LLAMA_8B, batch_tokens=65_536))
    assert made["fits"] is False
    assert made["microBatchSequences"] == 8
    named = next(line for line in made["advice"] if line.startswith("placement.train.batchTokens "))
    smaller = int(named.split()[1].rstrip(":"))
    assert plan(replace(LLAMA_8B, batch_tokens=smaller))["fits"] is True
    assert plan(replace(LLAMA_8B, batch_tokens=smaller + 8192))["fits"] is False


def test_each_line_of_advice_is_enough() -> None:
    request = replace(LLAMA_70B, replicas=4, checkpoint_every=0)
    c, layout = LlamaConfig.read(Path(request.model)), layout_of(request)
    assert advice(c, layout, 80 * GB) == [
        "placement.train.batchTokens 8192, activationCheckpointing full and replicas 1 together"
    ]
    assert plan(replace(request, replicas=1, checkpoint_every=1))["fits"] is True
    full = plan(replace(LLAMA_8B, checkpoint_every=0))
    assert full["fits"] is False
    assert any("activationCheckpointing full" in line for line in full["advice"])
    split = plan(replace(LLAMA_70B, replicas=4))
    assert [line for line in split["advice"] if "replicas 2" in line]
    assert plan(replace(LLAMA_70B, replicas=2))["fits"] is True


def test_what_needs_more_devices_says_how_many() -> None:
    alone = plan(replace(LLAMA_70B, ranks=8))
    assert alone["fits"] is False
    count = int(alone["advice"][0].split()[2])
    assert plan(replace(LLAMA_70B, ranks=count))["fits"] is True
    assert plan(replace(LLAMA_70B, ranks=count // 2))["fits"] is False


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"replicas": 3}, "placement.train.replicas 3 does not divide the 8 processes"),
        (
            {"global_batch_tokens": 32_768},
            "training.globalBatchTokens 32768 is 4 sequences, fewer than the 8 processes",
        ),
        ({"global_batch_tokens": 9000}, "no multiple of training.sequenceTokens"),
    ],
)
def test_what_cannot_be_spread_names_its_field(change: dict[str, Any], said: str) -> None:
    with pytest.raises(BadRequest, match=said.replace(".", r"\.")):
        layout_of(replace(LLAMA_8B, **change))


def test_micro_batches_share_the_global_batch_as_evenly_as_it_goes() -> None:
    made = plan(replace(LLAMA_8B, global_batch_tokens=8192 * 21, batch_tokens=16_384, checkpoint_every=1))
    assert made["sequencesPerRank"] == [2, 3]
    assert (made["microBatchSequences"], made["microBatchesPerRank"]) == (2, 2)


def test_time_follows_from_the_assumed_utilisation_and_is_unknown_without_a_peak() -> None:
    made = plan(LLAMA_8B)
    assert made["tokensPerSecond"] == pytest.approx(8 * 0.4 * 989e12 / made["flopsPerToken"])
    assert made["hours"] == pytest.approx(LLAMA_8B.tokens / made["tokensPerSecond"] / 3600)
    on_cpu = plan(replace(LLAMA_8B, device="cpu", device_bytes=None))
    assert (on_cpu["tokensPerSecond"], on_cpu["hours"], on_cpu["fits"]) == (None, None, None)


def test_the_command_answers_a_request_and_an_error_in_json() -> None:
    def ask(text: str) -> tuple[int, Any]:
        command = [sys.executable, "-m", "cpt_ml.memory_plan"]
        done = subprocess.run(command, input=text, capture_output=True, text=True, cwd=ROOT / "ml", check=False)
        return done.returncode, json.loads(done.stdout)

    camel = {
        "model": LLAMA_8B.model, "tokenizer": None, "vocabularyMultipleOf": 1, "tokens": 1_048_576,
        "evaluatedTokens": 0, "sequenceTokens": 8192, "globalBatchTokens": 1_048_576, "batchTokens": 8192,
        "dtype": "bfloat16", "ranks": 8, "replicas": 1, "checkpointEvery": 2, "device": "cpu", "deviceBytes": None,
        "assumedMfu": 0.4, "peakTflops": None, "documentMasking": True,
    }  # fmt: skip
    code, answer = ask(json.dumps(camel))
    assert code == 0
    assert answer["steps"] == 1
    assert answer["ranks"] == 8
    assert answer["memory"]["parts"]["document masks"] > 0
    code, answer = ask(json.dumps({**camel, "replicas": 5}))
    assert code == 1
    assert "replicas 5 does not divide" in answer["error"]
