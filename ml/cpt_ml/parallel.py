"""One training over several processes: who has which rows of a parameter, what each computes, and what all agree on.

World size 1 uses none of torch.distributed (2.4 s of a job's start). Otherwise parameters are sharded by rows with
FSDP2 (`fully_shard`, one group a layer and one for the rest) over a mesh of replicas × shards: rank = replica · shards
+ shard. Gradients are summed, never averaged: the loss is divided by the number of targets of the global batch already.
"""

from __future__ import annotations

import datetime
import math
import os
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from cpt_ml.errors import BadRequest
from cpt_ml.job import Job
from cpt_ml.llama import Llama, LlamaConfig, build_on_meta, load_weights, materialise
from cpt_ml.weights import stored_weights
from cpt_ml.world import ALONE, World, distributed

IMPORTED = ("torch.distributed.fsdp", "torch.distributed.tensor", "torch._dynamo")  # fully_shard imports the last


def open_world(job: Job, device: str) -> World:
    """Meets the other processes of the job, over gloo on CPUs, and nccl for what lies on GPUs.

    Raises BadRequest if `placement.replicas` does not divide their number, or a process has no GPU of its own.
    """
    if job.world == 1:
        return ALONE
    replicas = job.placement.get("replicas", 1)
    if job.world % replicas:
        raise BadRequest(f"train: placement.replicas {replicas} does not divide the {job.world} processes")
    if device == "cuda":
        if job.local_rank >= torch.cuda.device_count():
            raise BadRequest(
                f"train: process {job.local_rank} of a node with {torch.cuda.device_count()} GPUs has none: "
                f"set processesPerNode to at most {torch.cuda.device_count()}"
            )
        torch.cuda.set_device(job.local_rank)
    meet(job, "cpu:gloo,cuda:nccl" if device == "cuda" else "gloo")
    from torch.distributed.device_mesh import init_device_mesh  # noqa: PLC0415

    shape = (job.world,) if replicas == 1 else (replicas, job.world // replicas)
    names = ("shard",) if replicas == 1 else ("replicate", "shard")
    mesh = init_device_mesh(device, shape, mesh_dim_names=names)
    return World(job.rank, job.world, job.local_rank, int(os.environ["LOCAL_WORLD_SIZE"]), replicas, mesh)


def meet(job: Job, backend: str) -> None:
    """Opens the default process group of the job's processes."""
    # whoever watches finds a hang first, and has all ranks tell where they stand
    limit = datetime.timedelta(seconds=2 * max(60, job.placement.get("noProgressSeconds", 900)))
    if int(os.environ["LOCAL_WORLD_SIZE"]) == job.world and os.path.isdir("/sys/class/net/lo"):
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")  # needs no name of this machine that resolves
    store = _meeting_place(job, limit)
    distributed().init_process_group(backend, store=store, rank=job.rank, world_size=job.world, timeout=limit)


def _meeting_place(job: Job, limit: datetime.timedelta) -> Any:
    """The store of forked ranks (ranks.py): rank 0 has its socket since before. None: torchrun has its own."""
    fd = os.environ.pop("MASTER_FD", None)
    if fd is None:
        return None
    more = {"is_master": True, "master_listen_fd": int(fd)} if fd else {}
    host, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    return distributed().TCPStore(host, port, job.world, timeout=limit, wait_for_workers=False, **more)


def share_of(total: int, world: World) -> range:
    """Which of `total` sequences of a global batch this process computes: consecutive ones, as evenly as possible."""
    base, extra = divmod(total, world.size)
    first = world.rank * base + min(world.rank, extra)
    return range(first, first + base + (world.rank < extra))


def micro_steps(total: int, world: World, micro_batch: int) -> int:
    """Micro-batches of each process, so that all take part in the same collectives."""
    most = math.ceil(total / world.size)
    return math.ceil(most / micro_batch)


def set_last_micro_step(model: nn.Module, world: World, last: bool) -> None:
    """Gradients are reduced over shards at each micro-step, over replicas at the last one."""
    if world.replicas > 1:
        sharded: Any = model
        sharded.set_requires_all_reduce(last)


def local(tensor: Tensor) -> Tensor:
    """This process's rows of a parameter or gradient."""
    sharded: Any = tensor
    return sharded.to_local() if hasattr(sharded, "to_local") else tensor


def build_sharded(folder: Path, world: World, device: str, dtype: torch.dtype) -> Llama:
    """The model of a Hugging Face folder of which this process reads and holds its rows alone, fp32, computing in
    `dtype`. Raises BadRequest if the weights do not fit config.json."""
    from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard  # noqa: PLC0415
    from torch.distributed.fsdp import register_fsdp_forward_method as gather_inside  # noqa: PLC0415

    model = build_on_meta(LlamaConfig.read(folder))
    half = dtype == torch.bfloat16
    policy = MixedPrecisionPolicy(param_dtype=torch.bfloat16, reduce_dtype=torch.float32) if half else None
    sharding: dict[str, Any] = {"mesh": world.mesh, **({"mp_policy": policy} if policy else {})}
    for layer in model.model.layers:
        fully_shard(layer, **sharding)
    sharded: Any = fully_shard(model, **sharding)
    materialise(model, device)
    load_weights(model, stored_weights(folder), folder.name)
    for module in model.modules():
        if hasattr(module, "set_gradient_divide_factor"):
            part: Any = module
            part.set_gradient_divide_factor(1.0)
            part.set_force_sum_reduction_for_comms(True)
    # what is called through it finds the parameters whole that belong to no layer: embedding, norm and head
    sharded.run_inside = _run_inside.__get__(model)
    gather_inside(sharded, "run_inside")
    return model


def _run_inside(_model: nn.Module, work: Any) -> Any:
    return work()


def reshard(model: nn.Module, world: World) -> None:
    """Gives up what a forward pass without a backward one has left whole: embedding, norm and head."""
    if world.size > 1:
        sharded: Any = model
        sharded.reshard()


def as_sharded(part: Tensor, like: Any) -> Any:
    """The whole tensor that this process's rows belong to, shaped and placed as a parameter."""
    from torch.distributed.tensor import DTensor  # noqa: PLC0415

    return DTensor.from_local(
        part, like.device_mesh, like.placements, run_check=False, shape=like.shape, stride=like.stride()
    )


def whole(part: Tensor, like: Any) -> Tensor:
    """All rows of a tensor of which this process has `part`; every process has to ask at the same time."""
    return as_sharded(part, like).full_tensor() if hasattr(like, "device_mesh") else part
