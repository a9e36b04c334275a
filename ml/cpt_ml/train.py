"""train: one phase over one immutable token plan, to a model folder, a checkpoint to go on from, and a loss curve.

One process, on a GPU if there is one, else on `placement.threads` CPU threads. With unchanged numerics (numerics.py) a
phase killed any number of times ends with the bits of an undisturbed one: all that decides the next step is in the last
committed checkpoint, and a step depends on nothing else. Shape suffixes: B sequences, T tokens, D width.
"""

from __future__ import annotations

import json
import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from cpt_ml import contract, numerics
from cpt_ml.adamw import AdamW, OptimizerSettings
from cpt_ml.checkpoint_chain import CheckpointChain
from cpt_ml.errors import BadRequest, Diverged, Orphaned, Stopped
from cpt_ml.job import Job
from cpt_ml.llama import load_llama
from cpt_ml.schedule import Schedule, step_learning_rate
from cpt_ml.special_tokens import tokenizer_file, vocabulary_size
from cpt_ml.store import ArtifactRef, Json
from cpt_ml.token_stream import TokenStream, targets_within
from cpt_ml.train_state import (
    MODEL,
    OPTIMIZER,
    SaveRhythm,
    TrainState,
    read_folder_steps,
    restore_tensors,
    write_model,
    write_optimizer,
)
from cpt_ml.validation import ValidationSettings, measure
from cpt_ml.weights import copy_companions, weights_sha256


@dataclass(frozen=True)
class FromModel:
    """A Hugging Face folder, with a fresh optimizer."""

    kind: Literal["model"]
    model: ArtifactRef


@dataclass(frozen=True)
class FromCheckpoint:
    """The `checkpoint/` folder of an earlier phase."""

    kind: Literal["checkpoint"]
    checkpoint: ArtifactRef
    optimizer: Literal["keep", "reset"]


@dataclass(frozen=True)
class TrainRequest:
    """contracts/src/train.ts."""

    start: FromModel | FromCheckpoint
    plan: ArtifactRef
    tokenizer: ArtifactRef
    token_budget: int
    sequence_tokens: int
    global_batch_tokens: int
    schedule: Schedule
    optimizer: OptimizerSettings
    dtype: Literal["float32", "bfloat16"]
    seed: int
    validation: ValidationSettings
    document_masking: bool | None

    @property
    def sequences(self) -> int:
        """Sequences of a global batch."""
        return self.global_batch_tokens // self.sequence_tokens

    @property
    def steps(self) -> int:
        return self.token_budget // self.global_batch_tokens


def run(job: Job) -> None:
    """Trains from the last committed checkpoint to the end of the phase, validates, and commits.

    Raises BadRequest if plan, tokenizer, model and budget do not fit each other; Diverged if loss or gradient are not
    finite, before anything is saved; Stopped or Orphaned after saving, when told to leave.
    """
    request = contract.parse(TrainRequest, job.request)
    if job.world > 1:
        raise BadRequest(f"train: runs as one process, not {job.world}: set nodes and processesPerNode to 1")
    job.beat("load", 0, request.token_budget, "tokens")
    start = request.start.model if isinstance(request.start, FromModel) else request.start.checkpoint
    start_folder = job.store.folder(start)
    stream = TokenStream(job.store, job.store.folder(request.plan))
    _check(request, stream)
    device = numerics.prepare(job.threads, request.seed)
    model = load_llama(start_folder, device=device)
    model.recompute(job.placement.get("activationCheckpointing", "none"))
    if job.placement.get("compile"):
        model.compile_layers()
    vocabulary = vocabulary_size(tokenizer_file(job.store, request.tokenizer))
    if vocabulary > model.config.vocabulary:
        raise BadRequest(f"train: the tokenizer has ids below {vocabulary}, the model below {model.config.vocabulary}")
    state = TrainState(model, AdamW(model.named_parameters(), request.optimizer))
    if isinstance(request.start, FromCheckpoint) and request.start.optimizer == "keep":
        restore_tensors(start_folder / MODEL, start_folder / OPTIMIZER, read_folder_steps(start_folder), state)

    micro_batch = max(1, min(job.placement["batchTokens"] // request.sequence_tokens, request.sequences))
    chain = CheckpointChain(job)
    checkpoint = chain.resume()
    if checkpoint is not None:
        state.restore(checkpoint)
        state.restarts.append({"attempt": job.spec["attempt"], "step": state.step, "tokens": state.tokens})
        job.progress_tokens = state.tokens
        job.log("resumed", step=state.step, tokens=state.tokens)
    compiled = {"compile": True} if job.placement.get("compile") else {}
    _note_numerics(job, state, numerics.fingerprint(device, request.dtype, micro_batch) | compiled)
    _train(job, request, stream, state, chain, micro_batch, device)
    _finish(job, request, state, start_folder, device)


def _check(request: TrainRequest, stream: TokenStream) -> None:
    request.schedule.check()
    batch, length, budget = request.global_batch_tokens, request.sequence_tokens, request.token_budget
    if batch % length:
        raise BadRequest(f"train: globalBatchTokens {batch} is no multiple of sequenceTokens {length}")
    if budget % batch:
        raise BadRequest(f"train: tokenBudget {budget} is not a whole number of global batches of {batch}")
    if stream.num_tokens != budget + 1:
        raise BadRequest(f"train: the plan has {stream.num_tokens} tokens, expected tokenBudget + 1 = {budget + 1}")
    if stream.plan["tokenizer"]["sha256"] != request.tokenizer.sha256:
        raise BadRequest("train: the plan was made with another tokenizer; tokenize again")


def _note_numerics(job: Job, state: TrainState, now: Json) -> None:
    """A change is allowed and recorded: the token ledger stays exact, the bits do not."""
    before = {k: v for k, v in state.numerics[-1].items() if k != "fromStep"} if state.numerics else None
    if before != now:
        state.numerics.append({"fromStep": state.step, **now})
        if before is not None:
            job.log("numerics-changed", fromStep=state.step, before=before, now=now)


def _train(  # noqa: PLR0917
    job: Job,
    request: TrainRequest,
    stream: TokenStream,
    state: TrainState,
    chain: CheckpointChain,
    micro_batch: int,
    device: str,
) -> None:
    rhythm = SaveRhythm(job.placement.get("checkpointEverySteps"), request.steps)
    began, first = time.monotonic(), state.tokens
    unsaved_seconds = time.monotonic()

    def save() -> None:
        nonlocal unsaved_seconds
        started = time.monotonic()
        if not state.is_finite():
            raise Diverged(f"train: weights are not finite after step {state.step}, nothing is saved")
        state.train_seconds += started - unsaved_seconds
        record = chain.save(state.step, state.tokens, state.to_record(request.plan.sha256), state.write)
        state.committed(record)
        unsaved_seconds = time.monotonic()
        rhythm.saved(unsaved_seconds - started)
        job.log("checkpoint", step=state.step, tokens=state.tokens, seconds=round(unsaved_seconds - started, 3))

    try:
        while state.step < request.steps:
            line = train_step(request, stream, state, micro_batch, device)
            if rhythm.due(state.step) or state.step == request.steps:
                save()
                if state.step < request.steps:
                    job.check_pause()
            speed = (state.tokens - first) / (time.monotonic() - began)
            job.beat(
                "train", state.tokens, request.token_budget, "tokens", lastCommitTokens=job.progress_tokens,
                tokensPerSecond=speed, **line,
            )  # fmt: skip
    except (Stopped, Orphaned):
        # only beat() raises these, between two steps: the state is whole
        if state.curve:
            save()
        raise


def train_step(request: TrainRequest, stream: TokenStream, state: TrainState, micro_batch: int, device: str) -> Json:
    """One optimizer step on the next global batch; returns the curve's line.

    The loss is the sum over targets divided by the number of targets of the global batch, in nats per token. Raises
    Diverged, with the weights as they were, if it or the gradient is not finite.
    """
    length, sequences = request.sequence_tokens, request.sequences
    compute = torch.bfloat16 if request.dtype == "bfloat16" else torch.float32
    lr = step_learning_rate(request.schedule, state.tokens, request.global_batch_tokens)
    first = state.tokens // length
    targets = count_targets(request, stream, first, sequences)
    state.optimizer.zero_grad()
    nll = 0.0
    for at in range(0, sequences, micro_batch):
        count = min(micro_batch, sequences - at)
        inputs = read_batch(request, stream, first + at, count, device)
        with torch.autocast(device, torch.bfloat16, enabled=compute == torch.bfloat16):
            total = state.model(inputs.ids_BT, inputs.targets_BT, compute, inputs.documents_BT)
        (total / targets).backward()
        nll += total.item()
    loss = nll / targets
    norm = state.optimizer.clip()
    if not (math.isfinite(loss) and math.isfinite(norm)):
        raise Diverged(
            f"train: loss {loss}, gradient norm {norm} at step {state.step + 1} "
            f"(tokens {state.tokens} to {state.tokens + request.global_batch_tokens} of the plan), learning rate {lr}"
        )
    state.optimizer.step(lr)
    state.step += 1
    state.tokens += request.global_batch_tokens
    line = {"step": state.step, "tokens": state.tokens, "loss": loss, "lr": lr, "gradNorm": norm}
    state.curve.append(json.dumps(line).encode() + b"\n")
    return line


class Batch(NamedTuple):
    """What the model takes: `documents_BT` is None where attention is over all of a window."""

    ids_BT: Tensor
    targets_BT: Tensor
    documents_BT: Tensor | None


def read_batch(request: TrainRequest, stream: TokenStream, first: int, count: int, device: str) -> Batch:
    """Sequences [first, first + count) of the plan on the device; with document masking targets may be -1."""
    length = request.sequence_tokens
    tokens_BT = stream.sequences(first, count, length)
    if not request.document_masking:
        sent_BT = torch.from_numpy(tokens_BT).to(device)
        return Batch(sent_BT[:, :-1], sent_BT[:, 1:], None)
    documents_BT = stream.documents(first, count, length)
    arrays = (tokens_BT[:, :-1], targets_within(tokens_BT, documents_BT), documents_BT[:, :-1])
    return Batch(*(torch.from_numpy(a).to(device) for a in arrays))


def count_targets(request: TrainRequest, stream: TokenStream, first: int, count: int) -> int:
    """Targets of sequences [first, first + count), at least 1: with document masking fewer than tokens."""
    if not request.document_masking:
        return count * request.sequence_tokens
    documents_BT = stream.documents(first, count, request.sequence_tokens)
    return max(1, int((documents_BT[:, 1:] == documents_BT[:, :-1]).sum()))


def _finish(job: Job, request: TrainRequest, state: TrainState, start_folder: Path, device: str) -> None:
    """Validates and commits; a crash in here costs no training, the last checkpoint is at the phase's end."""
    attempt = job.attempt()
    measurement = measure(
        state.model,
        device,
        job.store.file(request.validation.sets),
        tokenizer_file(job.store, request.tokenizer),
        request.validation,
        job.placement["batchTokens"],
        attempt,
        lambda done, total: job.beat("validate", done, total, "tokens", lastCommitTokens=job.progress_tokens),
    )
    for name in ("model", "checkpoint"):
        write_model(attempt.path(f"{name}/{MODEL}"), state.model)
        copy_companions(start_folder, attempt.path(f"{name}/{MODEL}").parent, "float32")
    write_optimizer(attempt.path(f"checkpoint/{OPTIMIZER}"), state.optimizer)
    # no restarts or times in here: the folder's digest is part of the next phase's fingerprint
    saved = {"format": "cpt-train-state/1", "fingerprint": job.fingerprint, "planSha256": request.plan.sha256,
             "tokenizerSha256": request.tokenizer.sha256, "step": state.step, "tokens": state.tokens,
             "optimizerSteps": state.optimizer.steps}  # fmt: skip
    attempt.path("checkpoint/state.json").write_text(json.dumps(saved, indent=1) + "\n", encoding="utf-8")
    curve = b"".join(job.store.entry(s).read_bytes() for s in state.segments)
    attempt.path("curve.jsonl").write_bytes(curve)
    job.commit(
        attempt,
        {
            "model": attempt.folder_ref("model/"),
            "checkpoint": attempt.folder_ref("checkpoint/"),
            "curve": attempt.ref("curve.jsonl"),
            "tokens": state.tokens,
            "steps": state.step,
            "finalLoss": json.loads(curve.splitlines()[-1])["loss"],
            "weightsSha256": weights_sha256(attempt.folder / "model"),
            "restarts": state.restarts,
            "tokensPerSecond": state.tokens / max(state.train_seconds, 1e-9),
            "measurement": measurement,
        },
    )
