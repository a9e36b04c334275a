"""Steps of ours beside a bare PyTorch loop and Hugging Face's Trainer: same model, batches and settings, one thread.

`speed.py --work DIR --seed S`. The sides take turns step by step (turns.py); a step's time is that of the processor,
a ratio the median over the turns. Ours is the whole job: plan read from disk, beats, curve, checks. The bare loop has
our model and its batches in memory, torch's fused AdamW and its clipping, and nothing else. Trainer has its defaults
(fused AdamW) and logs nothing. That all three train the same is checked by their last losses.
"""

from __future__ import annotations

import cProfile
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import torch

import world  # the path to the tests' helpers  # isort: skip
from cpt_ml import contract
from cpt_ml.llama import load_llama
from cpt_ml.schedule import Schedule, step_learning_rate
from cpt_ml.store import Json
from cpt_ml.token_stream import TokenStream

from conftest import Workbench
from costly import costly_functions
from measured import NO_SAVES, processor_seconds, show, train_ours
from peer_trainer import make_trainer
from turns import Turns

MOST = 1.05
TOLERANCE = 1e-4  # of the last loss, nats per token, float32


def main() -> None:
    args = world.arguments()
    torch.set_num_threads(1)
    for case in (world.SMALL, world.LARGE):
        measure(args.work, case, args.seed)


def measure(work: Path, case: world.Case, seed: int) -> None:
    bench = world.opened(work, f"speed-{case.model}")
    request = world.train_request(bench, case, case.steps, seed)
    sequences = _sequences(bench, request)
    turns = Turns(processor_seconds)
    losses = turns.run(
        {
            "ours": lambda step_done: train_ours(bench, request, step_done, **_placement(case))["finalLoss"],
            "bare": lambda step_done: _bare(bench, request, case, sequences, step_done),
            "peer": lambda step_done: _peer(bench, request, case, sequences, step_done),
        }
    )
    if max(losses.values()) - min(losses.values()) > TOLERANCE:
        raise SystemExit(f"speed: the sides do not train the same, their last losses are {losses}")
    ours, bare, peer = (turns.seconds[side] for side in ("ours", "bare", "peer"))
    over, faster = _ratio(ours, bare), _ratio(peer, ours)
    goal = ">= 1" if case is world.LARGE else "printed"
    holds = goal == "printed" or faster >= 1
    profile = None if over <= MOST and holds else _profile(bench, case, seed)
    show(
        f"step of {world.BATCH} tokens, {case.name}", 1000 * median(ours), "ms", f"<= {MOST}", over <= MOST,
        peer=1000 * median(bare), peer_name="a bare PyTorch loop", ratio=over, profile=profile,
    )  # fmt: skip
    show(
        f"tokens trained, {case.name}", world.BATCH / median(ours), "tokens/s", goal, holds,
        peer=world.BATCH / median(peer), peer_name="Hugging Face Trainer", ratio=faster, profile=profile,
    )  # fmt: skip


def _ratio(a: list[float], b: list[float]) -> float:
    """Of each turn, its median over the turns."""
    return median(x / y for x, y in zip(a, b, strict=True))


def _placement(case: world.Case) -> Json:
    return {"batchTokens": case.micro_batch * world.SEQUENCE, "checkpointEverySteps": NO_SAVES}


def _sequences(bench: Workbench, request: Json) -> Any:
    store = bench.job("read", request).store
    stream = TokenStream(store, store.folder(request["plan"]))
    return stream.sequences(0, request["tokenBudget"] // world.SEQUENCE, world.SEQUENCE)


def _bare(bench: Workbench, request: Json, case: world.Case, sequences: Any, step_done: Callable[[], None]) -> float:
    model = load_llama(bench.files / case.model)
    o, schedule = request["optimizer"], contract.parse(Schedule, request["schedule"])
    parameters = list(model.parameters())
    optimizer = torch.optim.AdamW(
        [{"params": [p for p in parameters if p.ndim >= 2], "weight_decay": o["weightDecay"]},
         {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0}],
        betas=(o["beta1"], o["beta2"]), eps=o["epsilon"], fused=True,
    )  # fmt: skip
    batches = torch.from_numpy(sequences).split(world.BATCH // world.SEQUENCE)
    loss = 0.0
    for step, batch in enumerate(batches):
        for group in optimizer.param_groups:
            group["lr"] = step_learning_rate(schedule, step * world.BATCH, world.BATCH)
        optimizer.zero_grad()
        loss = 0.0
        for part in batch.split(case.micro_batch):
            nll = model(part[:, :-1], part[:, 1:]) / world.BATCH
            nll.backward()
            loss += nll.item()
        torch.nn.utils.clip_grad_norm_(parameters, o["clipNorm"])
        optimizer.step()
        step_done()
    return loss


def _peer(bench: Workbench, request: Json, case: world.Case, sequences: Any, step_done: Callable[[], None]) -> float:
    from transformers import TrainerCallback  # noqa: PLC0415

    class Clock(TrainerCallback):
        def on_step_end(self, *_args: Any, **_named: Any) -> None:
            step_done()

    schedule = contract.parse(Schedule, request["schedule"])
    trainer = make_trainer(
        bench.files / case.model, bench.folder / "peer", sequences, request,
        lambda i: step_learning_rate(schedule, i * world.BATCH, world.BATCH), case.micro_batch, [Clock()],
        logging_strategy="no",
    )  # fmt: skip
    steps: list[float] = []
    training_step = trainer.training_step

    def noted(*args: Any, **named: Any) -> Any:
        loss = training_step(*args, **named)
        steps.append(loss.item())
        return loss

    trainer.training_step = noted
    trainer.train()
    return sum(steps[-(world.BATCH // world.SEQUENCE // case.micro_batch) :])


def _profile(bench: Workbench, case: world.Case, seed: int) -> str:
    """Functions by their own share of a whole phase."""
    request = world.train_request(bench, case, case.steps, seed + 1)
    profiler = cProfile.Profile()
    profiler.runcall(train_ours, bench, request, lambda: None, **_placement(case))
    return costly_functions(profiler)


if __name__ == "__main__":
    main()
