"""dry-train: the placement of a run for some steps, one save, one load and one evaluation, before its budget is spent.

Everything is the trainer's own (train.py): model, sharding, optimizer, steps, checkpoints. Only the tokens are made up:
seeded draws from the vocabulary, so a loss says nothing but that it is finite. What is measured depends on the moment,
so `asked` is part of the identity and no run takes up the figures of another.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch

from cpt_ml import contract, numerics
from cpt_ml.adamw import AdamW, OptimizerSettings
from cpt_ml.checkpoint_chain import CheckpointChain
from cpt_ml.errors import BadData, BadRequest, Diverged
from cpt_ml.job import Job
from cpt_ml.mfu import measure_against, memory_peak_bytes, total_parameters
from cpt_ml.nll import document_nll
from cpt_ml.parallel import IMPORTED, local, open_world
from cpt_ml.phase_validation import model_to_measure
from cpt_ml.saving import Saver
from cpt_ml.store import ArtifactRef, Json
from cpt_ml.train import Wishes, build_model, micro_batch_of, train_step, verified_folder
from cpt_ml.train_request import TrainRequest
from cpt_ml.train_state import SaveRhythm, TrainState

PARALLEL = IMPORTED
# a first step compiles, fills caches and lets the allocator find its size
WARM_UP_STEPS = 2


@dataclass(frozen=True)
class DryTrainRequest:
    """contracts/src/dry-train.ts."""

    model: ArtifactRef
    tokenizer: ArtifactRef
    steps: int
    sequence_tokens: int
    global_batch_tokens: int
    optimizer: OptimizerSettings
    dtype: Literal["float32", "bfloat16"]
    seed: int
    window_tokens: int
    asked: str


@dataclass(frozen=True)
class SyntheticStream:
    """Seeded tokens below `vocabulary`, read as a token plan is; a sequence is the same whoever reads it."""

    vocabulary: int
    seed: int

    def sequences(self, first: int, count: int, length: int) -> npt.NDArray[np.int64]:
        """Sequences first … first+count-1 of `length` targets: (count, length + 1)."""
        draws = [np.random.default_rng([self.seed, first + i]) for i in range(count)]
        return np.stack([d.integers(0, self.vocabulary, length + 1, dtype=np.int64) for d in draws])


def run(job: Job) -> None:
    """Measures and commits the figures. Raises BadRequest where train would, Diverged if a loss is not finite."""
    request = contract.parse(DryTrainRequest, job.request)
    if request.global_batch_tokens % request.sequence_tokens:
        raise BadRequest(
            f"dry-train: globalBatchTokens {request.global_batch_tokens} is no multiple of "
            f"sequenceTokens {request.sequence_tokens}"
        )
    job.beat("load", 0, request.steps, "steps")
    device = numerics.prepare(job.threads, request.seed)
    world = open_world(job, device)
    as_train = _as_train(job.request)
    began = time.monotonic()
    model, vocabulary = build_model(job, verified_folder(job, world, request.model), as_train, world, device)
    state = TrainState(model, AdamW(model.named_parameters(), request.optimizer), world)
    chain = CheckpointChain(job, world)
    chain.resume()  # an attempt before this one may have saved: names go on after it
    model_seconds = time.monotonic() - began

    stream = SyntheticStream(vocabulary, request.seed)
    micro_batch = micro_batch_of(job, as_train, world)
    steps = _steps(job, as_train, stream, state, chain, micro_batch, device)
    loaded_seconds = _load(job, state, steps.saved)
    evaluation = _evaluate(job, request, stream, state, device)
    peaks = world.gather(memory_peak_bytes(device))
    world.check_stop(job)
    if world.rank == 0:
        peak = job.placement.get("peakTflops")
        used = measure_against(model.config, request.sequence_tokens, device, request.dtype, world.size, peak)
        speed = request.global_batch_tokens / statistics.median(steps.seconds)
        job.commit(
            job.attempt(),
            {
                "device": torch.cuda.get_device_name() if device == "cuda" else "cpu",
                "processes": world.size,
                "parameters": total_parameters(model.config),
                "microBatchSequences": micro_batch,
                "steps": request.steps,
                "tokens": request.steps * request.global_batch_tokens,
                "lastLoss": steps.last_loss,
                "memoryPeakBytes": peaks,
                "tokensPerSecond": speed,
                "secondsPerStep": statistics.median(steps.seconds),
                "firstStepSeconds": steps.first_seconds,
                "mfu": used.of(speed),
                "utilisation": used.stated(),
                "modelSeconds": model_seconds,
                "saveStallSeconds": steps.stall_seconds,
                "saveSeconds": steps.save_seconds,
                "checkpointBytes": steps.checkpoint_bytes,
                "loadSeconds": loaded_seconds,
                **evaluation,
            },
        )
    world.share(None)
    if world.rank == 0:
        _forget(chain)


def _as_train(request: Json) -> TrainRequest:
    """The trainer's request for steps at a constant small rate; its plan and validation are never read."""
    start = {"kind": "model", "model": request["model"]}
    tokens = request["steps"] * request["globalBatchTokens"]
    schedule = {"shape": "constant", "peakLr": 1e-6, "minLr": 0, "warmupTokens": 0, "decayTokens": 0,
                "totalTokens": tokens, "startTokens": 0}  # fmt: skip
    same = {k: request[k] for k in ("tokenizer", "sequenceTokens", "globalBatchTokens", "optimizer", "dtype", "seed")}
    validation = {"sets": request["tokenizer"], "windowTokens": request["windowTokens"], "maxTokensPerDoc": 8}
    rest = {"start": start, "plan": request["model"], "tokenBudget": tokens, "schedule": schedule}
    return contract.parse(TrainRequest, {**same, **rest, "validation": validation})


@dataclass
class _Steps:
    """What the steps showed; `seconds` without the warm-up, `saved` a digest of the state that was saved."""

    seconds: list[float]
    first_seconds: float = 0.0
    last_loss: float = 0.0
    stall_seconds: float = 0.0
    save_seconds: float = 0.0
    checkpoint_bytes: int = 0
    saved: tuple[int, list[int]] = (0, [])


def _steps(  # noqa: PLR0917
    job: Job,
    request: TrainRequest,
    stream: Any,
    state: TrainState,
    chain: CheckpointChain,
    micro_batch: int,
    device: str,
) -> _Steps:
    """Trains the steps and saves once, half-way, while training goes on."""
    found = _Steps([])
    saver = Saver(job, state, chain, SaveRhythm(None, request.steps), request.plan.sha256)
    save_at = max(1, request.steps // 2)
    begun = 0.0

    def finish() -> None:
        found.stall_seconds += _timed(saver.finish)
        found.save_seconds = time.monotonic() - begun
        assert chain.tip is not None
        found.checkpoint_bytes = sum(f["bytes"] for f in chain.tip.record["files"])

    for _ in range(request.steps):
        wishes = Wishes(job, saver, due=state.step + 1 == save_at)
        began = time.monotonic()
        line, agreed = train_step(request, stream, state, micro_batch, device, wishes)
        seconds = time.monotonic() - began
        found.last_loss = line["loss"]
        if state.step == 1:
            found.first_seconds = seconds
        if state.step > min(WARM_UP_STEPS, request.steps - 1):
            found.seconds.append(seconds)
        if agreed.written:
            finish()
        if state.step == save_at:
            found.saved, begun = (state.step, digest_of(state)), time.monotonic()
            found.stall_seconds += _timed(saver.begin)
        job.beat(
            "train", state.step, request.steps, "steps", tokensPerSecond=request.global_batch_tokens / seconds,
            memoryPeakBytes=memory_peak_bytes(device), **line,
        )  # fmt: skip
        job.check_agreed(agreed.reason)
    if saver.in_flight:
        # a run has further steps to do meanwhile: the wait is no stall, the commit is
        saver.wait()
        state.world.share(None)
        finish()
    return found


def digest_of(state: TrainState) -> list[int]:
    """A number for each parameter and moment that this process holds; other bits, another number, but for chance."""
    own = [local(p) for p in state.model.parameters()]
    tensors = [*own, *state.optimizer.m.values(), *state.optimizer.v.values()]
    return [int(t.detach().contiguous().view(torch.int32).sum(dtype=torch.int64)) for t in tensors]


def _load(job: Job, state: TrainState, saved: tuple[int, list[int]]) -> float:
    """Takes up the checkpoint as a resumed job does. Raises BadData if it is not the state that was saved."""
    job.beat("load", 0, 1, "checkpoint")
    began = time.monotonic()
    found = CheckpointChain(job, state.world).resume()
    if found is None:
        raise BadData("dry-train: the checkpoint that was just saved is not there, or damaged")
    state.restore(found)
    seconds = time.monotonic() - began
    same = (state.step, digest_of(state)) == saved
    if state.world.sum([float(not same)])[0] > 0:
        raise BadData(f"dry-train: what was loaded at step {state.step} is not what was saved at step {saved[0]}")
    return seconds


def _evaluate(job: Job, request: DryTrainRequest, stream: SyntheticStream, state: TrainState, device: str) -> Json:
    """The loss of synthetic documents of a window each, about a global batch in all, shared by the processes."""
    window, world = request.window_tokens, state.world
    count = max(world.size, request.global_batch_tokens // window)
    # sequences that no step has read
    docs = [d.astype(np.uint32) for d in stream.sequences(1 << 40, count, window)[:, :window]]
    began = time.monotonic()
    model = model_to_measure(state, request.dtype, device)
    scores = document_nll(
        model, docs, window, window, window, job.placement["batchTokens"], device,
        lambda done, total: job.beat("validate", done, total, "tokens"), world,
    )  # fmt: skip
    seconds, tokens = time.monotonic() - began, sum(n for _, n in scores)
    total = sum(s for s, _ in scores)
    if not np.isfinite(total):
        raise Diverged(f"dry-train: the loss of the evaluation is {total}")
    return {"evaluationSeconds": seconds, "evaluationTokens": tokens}


def _timed(act: Callable[[], None]) -> float:
    began = time.monotonic()
    act()
    return time.monotonic() - began


def _forget(chain: CheckpointChain) -> None:
    """Removes the checkpoint: it is as large as a run's, and nobody goes on from it."""
    assert chain.tip is not None
    chain.backend.remove(*chain.backend.list(chain.prefix), *(f["path"] for f in chain.tip.record["files"]))
