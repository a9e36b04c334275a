"""train: one phase over one immutable token plan, to a model folder, a checkpoint to go on from, and a loss curve.

ENGINES has what carries a request out: docs/architecture.md, Training, says what another one needs.

One process or several (parallel.py), each on a GPU if there is one, else on `placement.threads` CPU threads. With
unchanged numerics (numerics.py) a phase killed any number of times ends with the bits of an undisturbed one: all that
decides the next step is in the last committed checkpoint, and a step depends on nothing else. Shape suffixes: B
sequences, T tokens, D width.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from cpt_ml import contract, numerics
from cpt_ml.adamw import AdamW
from cpt_ml.amendments import Amendment
from cpt_ml.checkpoint_chain import CheckpointChain
from cpt_ml.divergence import LossWatch, UnfitStep
from cpt_ml.errors import BadRequest, Diverged, JobFailure, Orphaned, Paused, Stopped
from cpt_ml.failpoint import failpoint
from cpt_ml.job import Job
from cpt_ml.llama import Llama, load_llama
from cpt_ml.mfu import measure_against, memory_peak_bytes
from cpt_ml.nll import sent
from cpt_ml.parallel import IMPORTED, build_sharded, micro_steps, open_world, set_last_micro_step, share_of
from cpt_ml.phase_end import finish_phase
from cpt_ml.phase_validation import PhaseValidation
from cpt_ml.plan_documents import documents_between
from cpt_ml.saving import Saver
from cpt_ml.schedule import step_learning_rate
from cpt_ml.special_tokens import tokenizer_file, vocabulary_size
from cpt_ml.store import ArtifactRef, Json
from cpt_ml.tensor_files import split_files
from cpt_ml.token_stream import TokenStream, targets_within
from cpt_ml.train_request import FromCheckpoint, FromModel, TrainRequest
from cpt_ml.train_state import (
    OPTIMIZER,
    SaveRhythm,
    TrainState,
    check_folder,
    read_folder_steps,
    restore_tensors,
)
from cpt_ml.weights import weight_files
from cpt_ml.world import World, agreed_reason, stop_flags

# what several processes need: imported before they are forked (job.py)
PARALLEL = IMPORTED
NAMED_DOCUMENTS = 10


def run(job: Job) -> None:
    """Trains from the last committed checkpoint to the end of the phase, validates, and commits.

    Raises BadRequest if plan, tokenizer, model, start and budget do not fit each other, or a checkpoint of the phase
    was made for another request; Diverged if loss, gradient or weights are not finite, before anything is saved, or
    with a guard when that or a spike repeats (amendments.py); Stopped or Orphaned after saving, when told to leave.
    """
    request = contract.parse(TrainRequest, job.request)
    ENGINES[request.engine or "fsdp2"](job, request)


def train_with_fsdp2(job: Job, request: TrainRequest) -> None:
    """PyTorch alone: plain tensors on one process, FSDP2 over several."""
    job.beat("load", 0, request.token_budget, "tokens")
    device = numerics.prepare(job.threads, request.seed)
    world = open_world(job, device)
    kept = job.placement.get("checkpoints", {})
    chain = CheckpointChain(job, world, kept.get("keepLast", 2), kept.get("keepEvery"))
    checkpoint = chain.resume()
    start = request.start.model if isinstance(request.start, FromModel) else request.start.checkpoint
    start_folder = verified_folder(job, world, start)
    if isinstance(request.start, FromCheckpoint):
        check_folder(start_folder, request.tokenizer.sha256, request.start.optimizer == "keep")
    stream = TokenStream(
        job.store, verified_folder(job, world, request.plan), lambda shards: verified_shards(job, world, shards)
    )
    _check(request, stream)
    model, _ = build_model(job, start_folder, request, world, device)
    state = TrainState(model, AdamW(model.named_parameters(), request.optimizer), world, watch=LossWatch(request.guard))
    if isinstance(request.start, FromCheckpoint) and request.start.optimizer == "keep":
        restore_tensors(
            weight_files(start_folder), split_files(start_folder, OPTIMIZER), read_folder_steps(start_folder), state
        )

    micro_batch = micro_batch_of(job, request, world)
    if checkpoint is not None:
        state.restore(checkpoint)
        state.restarts.append({"attempt": job.spec["attempt"], "step": state.step, "tokens": state.tokens})
        job.progress_tokens = state.tokens
        job.log("resumed", step=state.step, tokens=state.tokens)
    world.check_stop(job)
    compiled = {"compile": True} if job.placement.get("compile") else {}
    now = numerics.fingerprint(device, request.dtype, micro_batch, world.size, world.replicas)
    _note_numerics(job, state, now | compiled)
    validation = PhaseValidation(
        job, state, request.validation, request.tokenizer, request.validate_every_steps, request.steps, request.dtype,
        device,
    )  # fmt: skip
    _train(job, request, stream, state, chain, validation, micro_batch, device)
    finish_phase(job, request, state, chain, validation, start_folder)


ENGINES: dict[str, Callable[[Job, TrainRequest], None]] = {"fsdp2": train_with_fsdp2}


def verified_folder(job: Job, world: World, ref: ArtifactRef) -> Path:
    """A folder whose digests one process of each machine has verified."""
    tell = job.tell_of("load", "files")
    verified = world.each(lambda: job.store.folder(ref, tell) if world.local_rank == 0 else None)
    folder = verified[world.rank - world.local_rank]
    assert folder is not None
    return folder


def verified_shards(job: Job, world: World, entries: Sequence[Json]) -> list[Path]:
    """Files of manifest entries, whose digests the processes of each machine have verified, each its share."""
    if world.size == 1:
        return [job.store.shard(e) for e in entries]
    world.each(lambda: [job.store.shard(e) for e in entries[world.local_rank :: world.local_size]])
    return [job.store.glimpse(e) for e in entries]


def build_model(job: Job, folder: Path, request: TrainRequest, world: World, device: str) -> tuple[Llama, int]:
    """The model of a folder as the placement has it, and the size of the tokenizer's vocabulary.

    Raises BadRequest if that is larger than the model's.
    """
    if world.size == 1:
        model = load_llama(folder, device=device)
    else:
        model = build_sharded(folder, world, device, getattr(torch, request.dtype))
    model.recompute(job.placement.get("activationCheckpointing", "none"))
    if job.placement.get("compile"):
        model.compile_layers()
    vocabulary = vocabulary_size(tokenizer_file(job.store, request.tokenizer))
    if vocabulary > model.config.vocabulary:
        raise BadRequest(f"train: the tokenizer has ids below {vocabulary}, the model below {model.config.vocabulary}")
    return model, vocabulary


def micro_batch_of(job: Job, request: TrainRequest, world: World) -> int:
    """Sequences that a process computes at a time: as many as `placement.batchTokens` allows, at least one."""
    most = -(-request.sequences // world.size)
    return max(1, min(job.placement["batchTokens"] // request.sequence_tokens, most))


def _check(request: TrainRequest, stream: TokenStream) -> None:
    request.schedule.check()
    if request.guard is not None:
        request.guard.check()
    if request.validate_every_steps is not None and request.validate_every_steps < 1:
        raise BadRequest(f"train: validateEverySteps is {request.validate_every_steps}, expected at least 1")
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
    validation: PhaseValidation,
    micro_batch: int,
    device: str,
) -> None:
    kept = job.placement.get("checkpoints", {})
    rhythm = SaveRhythm(
        job.placement.get("checkpointEverySteps"), request.steps, kept.get("meanSecondsBetweenFailures", 6 * 3600.0)
    )
    saver = Saver(job, state, chain, rhythm, request.plan.sha256)
    size = state.world.size
    peak = job.placement.get("peakTflops")
    utilisation = measure_against(state.model.config, request.sequence_tokens, device, request.dtype, size, peak)
    if state.world.rank == 0:
        job.log("utilisation", **utilisation.stated())
    began, first = time.monotonic(), state.tokens
    counted = began

    def count_time() -> None:
        nonlocal counted
        now = time.monotonic()
        state.train_seconds, counted = state.train_seconds + now - counted, now

    def amend(unfit: UnfitStep) -> None:
        """Has the window of an unfit step skipped, from the state that the phase had where it begins."""
        saver.finish()  # of a state before
        reached = state.tokens
        amendment = next_amendment(job, request, state, unfit)
        if amendment.from_token < reached or unfit.reason == "weights-not-finite":
            state.roll_back(chain.roll_back(amendment.from_token))
            if not state.is_finite():
                raise Diverged(f"{unfit}; they were not finite at the start of the phase either")
            state.amendments.add(amendment)
            failpoint("rolled-back")
            saver.save()
        else:
            state.amendments.add(amendment)
        failpoint("amended")
        if state.world.rank == 0:
            job.log("amended", **amendment.to_json(), goesOnFrom=state.tokens, why=str(unfit))

    if request.guard is not None:
        chain.horizon_tokens = request.guard.skip_steps * request.global_batch_tokens
        chain.fits = lambda c: state.amendments.agree(c.state.get("amendments", []), c.tokens)
    try:
        if request.guard is not None and chain.tip is None:
            saver.save()  # what the first steps may have to roll back to
        while state.step < request.steps:
            wishes = Wishes(job, saver, due=rhythm.due(state.step + 1) or validation.is_due(state.step + 1))
            try:
                if validation.catch_up():  # a job was told to leave while it measured
                    saver.begin()
                    counted = time.monotonic()
                skipped = skip_step(request, state, wishes)
                line, agreed = skipped or train_step(request, stream, state, micro_batch, device, wishes)
                count_time()
                if agreed.written:
                    saver.finish(all_written=True)
                if agreed.due or state.step == request.steps:
                    validation.catch_up()
                    saver.begin()
                    if agreed.pause or state.step == request.steps:
                        saver.finish()
                    if agreed.pause and state.step < request.steps:
                        raise Paused("train: paused at a commit")
            except UnfitStep as unfit:
                amend(unfit)
                continue
            counted = time.monotonic()
            speed = (state.tokens - first) / (time.monotonic() - began)
            mfu = utilisation.of(speed)
            job.beat(
                "train", state.tokens, request.token_budget, "tokens", lastCommitTokens=job.progress_tokens,
                tokensPerSecond=speed, memoryPeakBytes=memory_peak_bytes(device), **({"mfu": mfu} if mfu else {}),
                **line,
            )  # fmt: skip
            job.check_agreed(agreed.reason)
    except (Stopped, Orphaned):
        # raised between two steps alone, by all processes at the same one: the state is whole
        saver.finish()
        if state.curve:
            saver.save()
        raise
    except Diverged:
        saver.finish()  # of a state before; what diverged is not saved
        raise


def next_amendment(job: Job, request: TrainRequest, state: TrainState, unfit: UnfitStep) -> Amendment:
    """What the phase skips because of an unfit step.

    Raises Diverged, which names the documents of the window, when the phase has no guard or has skipped all it may.
    """
    if request.guard is None:
        raise unfit
    if unfit.reason == "not-finite" and not state.is_finite():
        unfit.reason = "weights-not-finite"
    batch = request.global_batch_tokens
    step = min(state.step + 1, request.steps)
    try:
        return state.amendments.amend(request.guard, unfit.reason, step, batch)
    except Diverged as spent:
        first = max(0, step - request.guard.skip_steps)
        # rank 0 speaks for the job
        names = name_documents(job, request, first * batch, step * batch) if state.world.rank == 0 else "told by rank 0"
        raise Diverged(f"{unfit}; documents of steps {first + 1} to {step}: {names}; {spent}") from unfit


def name_documents(job: Job, request: TrainRequest, from_token: int, to_token: int) -> str:
    """The first documents of a range of the plan, for people; why not, where their corpus cannot be read any more."""
    try:
        names = documents_between(job.store, request.plan, from_token, to_token)
    except (JobFailure, OSError) as e:
        return f"not to be named ({e})"
    more = f" and {len(names) - NAMED_DOCUMENTS} more" if names[NAMED_DOCUMENTS:] else ""
    return f"{', '.join(names[:NAMED_DOCUMENTS])}{more}"


@dataclass(frozen=True)
class Wishes:
    """What a process would have all do after the step at hand; `agreed` is what they do."""

    job: Job
    saver: Saver
    due: bool

    def numbers(self) -> list[float]:
        pause = self.due and self.job.pausing
        first = self.job.rank == 0
        return [*stop_flags(self.job), float(self.saver.written), float(first and self.due), float(first and pause)]


@dataclass(frozen=True)
class Agreed:
    """What all processes do after a step. `written`: the save in flight is, by all."""

    reason: str | None = None
    written: bool = False
    due: bool = False
    pause: bool = False

    @staticmethod
    def of(numbers: Sequence[float], world: World) -> Agreed:
        *reasons, written, due, pause = numbers
        return Agreed(agreed_reason(reasons), written == world.size, due > 0, pause > 0)


def skip_step(request: TrainRequest, state: TrainState, wishes: Wishes) -> tuple[Json, Agreed] | None:
    """Passes over the next global batch if it was amended away, with what train_step returns, else None."""
    amendment = state.amendments.at(state.tokens)
    if amendment is None:
        return None
    state.step += 1
    state.tokens += request.global_batch_tokens
    line = {"step": state.step, "tokens": state.tokens, "skipped": amendment.reason}
    state.curve.append(json.dumps(line).encode() + b"\n")
    return line, Agreed.of(state.world.sum(wishes.numbers()), state.world)


def train_step(  # noqa: PLR0917
    request: TrainRequest,
    stream: TokenStream,
    state: TrainState,
    micro_batch: int,
    device: str,
    wishes: Wishes | None = None,
) -> tuple[Json, Agreed]:
    """One optimizer step on the next global batch; returns the curve's line, and what all processes agreed to do next.

    The loss is the sum over targets divided by the number of targets of the global batch, in nats per token. Raises
    UnfitStep, with the weights as they were, if it or the gradient is not finite, or the loss is a spike.
    """
    world = state.world
    lr = step_learning_rate(request.schedule, state.tokens, request.global_batch_tokens)
    state.optimizer.zero_grad()
    targets = count_targets(request, stream, state.tokens // request.sequence_tokens, request.sequences)
    nll = _gradients(request, stream, state, micro_batch, device, targets)
    norm = state.optimizer.gradient_norm()
    # the only numbers of a step that come from the device: a GPU is waited for here and nowhere before
    nll, gradient_norm = torch.stack([nll, norm.to(nll)]).tolist()
    agreed = Agreed()
    if world.size > 1:
        told = wishes.numbers() if wishes else [0.0] * 6
        # equal replicas count their rows once each
        nll, squares, *numbers = world.sum([nll, gradient_norm**2 / world.replicas, *told])
        agreed = Agreed.of(numbers, world)
        norm = torch.tensor(math.sqrt(squares) if squares >= 0 else math.nan, dtype=torch.float32)
        gradient_norm = float(norm)
        norm = norm.to(device)
    elif wishes is not None:
        agreed = Agreed.of(wishes.numbers(), world)
    loss = nll / targets
    if (reason := state.watch.judge(loss, gradient_norm)) is not None:
        what = (
            f"train: loss {loss}, gradient norm {gradient_norm} at step {state.step + 1} "
            f"(tokens {state.tokens} to {state.tokens + request.global_batch_tokens} of the plan), learning rate {lr}"
        )
        raise UnfitStep(what, reason)
    state.optimizer.clip(norm)
    state.optimizer.step(lr)
    state.watch.took(loss)
    state.step += 1
    state.tokens += request.global_batch_tokens
    line = {"step": state.step, "tokens": state.tokens, "loss": loss, "lr": lr, "gradNorm": gradient_norm}
    state.curve.append(json.dumps(line).encode() + b"\n")
    return line, agreed


def _gradients(  # noqa: PLR0917
    request: TrainRequest, stream: TokenStream, state: TrainState, micro_batch: int, device: str, targets: int
) -> Tensor:
    """Gradients of the next global batch's loss, summed over all processes; returns this one's part of the summed loss
    (float64 scalar on the device).

    A process with fewer micro-batches than others goes along with ones that weigh nothing.
    """
    world = state.world
    compute = torch.bfloat16 if request.dtype == "bfloat16" else torch.float32
    mixed = compute == torch.bfloat16 and world.size == 1  # sharded parameters have a policy for it
    mine = share_of(request.sequences, world)
    first = state.tokens // request.sequence_tokens
    nll = torch.zeros((), dtype=torch.float64, device=device)
    steps = micro_steps(request.sequences, world, micro_batch)
    for i in range(steps):
        part = mine[i * micro_batch : (i + 1) * micro_batch]
        weightless = not part
        part = part or range(1)
        inputs = read_batch(request, stream, first + part.start, len(part), device)
        set_last_micro_step(state.model, world, i == steps - 1)
        with torch.autocast(device, torch.bfloat16, enabled=mixed):
            total = state.model(inputs.ids_BT, inputs.targets_BT, compute, inputs.documents_BT)
        (total * 0.0 if weightless else total / targets).backward()
        if not weightless:
            nll += total.detach()
    return nll


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
        sent_BT = sent(tokens_BT, device)
        return Batch(sent_BT[:, :-1], sent_BT[:, 1:], None)
    documents_BT = stream.documents(first, count, length)
    arrays = (tokens_BT[:, :-1], targets_within(tokens_BT, documents_BT), documents_BT[:, :-1])
    return Batch(*(sent(a, device) for a in arrays))


def count_targets(request: TrainRequest, stream: TokenStream, first: int, count: int) -> int:
    """Targets of sequences [first, first + count), at least 1: with document masking fewer than tokens."""
    if not request.document_masking:
        return count * request.sequence_tokens
    documents_BT = stream.documents(first, count, request.sequence_tokens)
    return max(1, int((documents_BT[:, 1:] == documents_BT[:, :-1]).sum()))
