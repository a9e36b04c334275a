"""The end of a phase: what it leaves is measured, written whole, and committed.

All processes gather and write, while one of them already reads the weights for their digest: with a 70B model each
second here is a second of every GPU.
"""

from __future__ import annotations

import json
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from cpt_ml.amendments import check_ledger
from cpt_ml.checkpoint_chain import CheckpointChain
from cpt_ml.durable_files import files_under, link_or_copy
from cpt_ml.errors import Diverged
from cpt_ml.job import Job
from cpt_ml.phase_validation import PhaseValidation, best_of
from cpt_ml.store import Attempt, Json
from cpt_ml.train_request import TrainRequest
from cpt_ml.train_state import MODEL, TrainState, read_folder_amendments, write_folder, write_saved_model
from cpt_ml.validation import write_measurement
from cpt_ml.weights import copy_companions, weights_sha256


@dataclass(frozen=True)
class Left:
    """What a phase leaves beside its tensors. `best`: the line of its best step, where it was validated on its way."""

    measurement: Json
    best: Json | None
    weights_sha256: str


def finish_phase(  # noqa: PLR0917
    job: Job,
    request: TrainRequest,
    state: TrainState,
    chain: CheckpointChain,
    validation: PhaseValidation,
    start_folder: Path,
) -> None:
    """Validates and commits; a crash in here costs no training, the last checkpoint is at the phase's end.

    Raises BadData if validations are missing, Diverged if every step was skipped, TryAgain if the best step's
    checkpoint is damaged.
    """
    attempt, world = job.attempt(), state.world
    attempt.tell = job.tell_of("commit", "files")
    rows = validation.score()
    best = None
    job.say("write")
    if request.validate_every_steps is not None:
        state.note_validation(world.share(validation.line(rows)))
        validation.check(state.validations)
        best = best_of(state.validations)
        if best["step"] < state.step:
            saved = chain.validated(best["step"])
            if world.rank == 0:
                folder = attempt.path(f"best/{MODEL}").parent
                attempt.know(folder, write_saved_model(folder, saved, state))
                copy_companions(start_folder, folder, "float32")
    model, checkpoint = (attempt.path(f"{name}/{MODEL}").parent for name in ("model", "checkpoint"))
    tell = job.tell_of("write", "tensors")
    with ThreadPoolExecutor(1) as beside:
        weights = write_folder(model, state, False, tell)
        digest: Future[str] | None = beside.submit(weights_sha256, model) if world.rank == 0 else None
        moments = write_folder(checkpoint, state, True, tell)
        if digest is not None:
            attempt.know(model, weights)
            attempt.know(checkpoint, moments)
            copy_companions(start_folder, model, "float32")
            for path in files_under(model):
                link_or_copy(path, checkpoint / path.name)
            job.say("commit")
            left = Left(write_measurement(rows, attempt), best, digest.result())
            _commit(job, request, state, attempt, left, start_folder)
    world.share(None)


def _commit(  # noqa: PLR0917
    job: Job, request: TrainRequest, state: TrainState, attempt: Attempt, left: Left, start_folder: Path
) -> None:
    # no restarts or times in here: the folder's digest is part of the next phase's fingerprint
    saved: Json = {"format": "cpt-train-state/1", "fingerprint": job.fingerprint, "planSha256": request.plan.sha256,
             "tokenizerSha256": request.tokenizer.sha256, "step": state.step, "tokens": state.tokens,
             "optimizerSteps": state.optimizer.steps}  # fmt: skip
    before = read_folder_amendments(start_folder) if request.start.kind == "checkpoint" else []
    if skipped := [*before, *({"planSha256": request.plan.sha256, **a} for a in state.amendments.to_json())]:
        saved["amendments"] = skipped
    attempt.path("checkpoint/state.json").write_text(json.dumps(saved, indent=1) + "\n", encoding="utf-8")
    curve = b"".join(job.store.entry(s).read_bytes() for s in state.saved_lines("curve"))
    attempt.path("curve.jsonl").write_bytes(curve)
    lines = [json.loads(line) for line in curve.splitlines()]
    check_ledger(lines, state.amendments, request.token_budget, request.global_batch_tokens)
    losses = [line["loss"] for line in lines if "loss" in line]
    if not losses:
        raise Diverged(f"train: not one step of the phase was trained, all were skipped: {state.amendments.to_json()}")
    model = attempt.folder_ref("model/")
    job.commit(
        attempt,
        {
            "model": model,
            "checkpoint": attempt.folder_ref("checkpoint/"),
            "curve": attempt.ref("curve.jsonl"),
            "tokens": state.tokens,
            "steps": state.step,
            "finalLoss": losses[-1],
            "weightsSha256": left.weights_sha256,
            "restarts": state.restarts,
            "tokensPerSecond": state.tokens / max(state.train_seconds, 1e-9),
            "measurement": left.measurement,
            **({"amendments": state.amendments.to_json()} if request.guard else {}),
            **(_validated(job, state, attempt, left.best, model) if left.best else {}),
        },
    )


def _validated(job: Job, state: TrainState, attempt: Attempt, best: Json, model: Json) -> Json:
    """What a phase that was validated on its way adds to the result."""
    before = b"".join(job.store.entry(s).read_bytes() for s in state.saved_lines("validation"))
    attempt.path("validation.jsonl").write_bytes(before + b"".join(state.measured))
    of_best = model if best["step"] == state.step else attempt.folder_ref("best/")
    return {
        "validations": attempt.ref("validation.jsonl"),
        "best": {**{k: best[k] for k in ("step", "tokens", "nllPerToken")}, "model": of_best},
    }
