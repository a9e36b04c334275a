"""Document masking against Hugging Face's Trainer, and the bugs that a comparison has to notice, masked too.

The peer is told by attention mask, positions and targets what is one document; ours by the plan. Tolerances as in
test_train_parity.py.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import Workbench
from peer_trainer import PeerLine, Sequences, lines_of, make_trainer
from test_train_parity import BATCH, BUDGET, LOSS, NORM, STEPS, WEIGHT, Peer, model_folder, rate_of
from test_train_resume import (
    Phase,
    forget_curve,
    forget_moments,
    forget_optimizer_steps,
    forget_position,
    forget_rng,
    forget_weights,
    plant_in_restore,
)
from tiny import make_plan, plan_folder, train_request

from cpt_ml import train, train_state
from cpt_ml.llama import Llama
from cpt_ml.schedule import Schedule
from cpt_ml.store import Json
from cpt_ml.token_stream import Ids, TokenStream
from cpt_ml.weights import read_weights

SEQUENCES = BATCH // 16


class MaskedSequences(Sequences):
    """Sequences with what keeps documents apart: a mask (1, T, T), positions, and targets of -100 at their ends."""

    def __init__(self, sequences_NT: Ids, documents_NT: Ids) -> None:
        super().__init__(sequences_NT)
        self.documents_NT = documents_NT

    def __getitem__(self, i: int) -> dict[str, torch.Tensor]:
        item, documents = super().__getitem__(i), self.documents_NT[i]
        inside = documents[:-1]
        begins = np.maximum.accumulate(np.where(np.diff(inside, prepend=-1) != 0, np.arange(len(inside)), 0))
        mask = torch.from_numpy((inside[:, None] == inside[None]) & np.tri(len(inside), dtype=np.bool_))[None]
        targets = torch.where(torch.from_numpy(documents[1:] == inside), item["labels"], -100)
        positions = torch.from_numpy(np.arange(len(inside)) - begins)
        return {**item, "shift_labels": targets, "labels": targets, "attention_mask": mask, "position_ids": positions}


class MaskedPeer(Peer):
    """The phase of test_train_parity.py with documents kept apart."""

    def __init__(self, folder: Path) -> None:
        self.bench, self.seed = Workbench(folder), 100
        plan = make_plan(self.bench, BUDGET)
        self.request: Json = {**train_request(self.bench, plan, BUDGET), "documentMasking": True}
        stream = TokenStream(self.bench.job("read", {}).store, plan_folder(self.bench, plan))
        count = STEPS * SEQUENCES
        sequences, documents = stream.sequences(0, count, 16), stream.documents(0, count, 16)
        self.targets = (documents[:, 1:] == documents[:, :-1]).reshape(STEPS, -1).sum(1).tolist()
        start = model_folder(self.bench, self.request["start"]["model"])
        trainer = make_trainer(
            start, folder / "peer", sequences, self.request, lambda i: rate_of(self.request, i), micro_batch=4
        )
        trainer.train_dataset = MaskedSequences(sequences, documents)
        trainer.train()
        self.lines: list[PeerLine] = lines_of(trainer)
        self.weights = {n: p.detach().numpy() for n, p in trainer.model.named_parameters()}


@pytest.fixture(scope="module")
def peer(tmp_path_factory: pytest.TempPathFactory) -> MaskedPeer:
    return MaskedPeer(tmp_path_factory.mktemp("masked-peer"))


def test_losses_gradients_and_weights_are_those_of_hugging_face_trainer_when_documents_are_masked(
    peer: MaskedPeer,
) -> None:
    result = peer.bench.run("train", peer.request)
    curve = peer.curve(result)
    assert len(set(peer.targets)) > 1  # batches differ in how many targets they have
    assert max(peer.targets) < BATCH
    assert [c["loss"] for c in curve] == pytest.approx([e.loss for e in peer.lines], rel=LOSS)
    assert [c["gradNorm"] for c in curve] == pytest.approx([e.grad_norm for e in peer.lines], rel=NORM)
    ours = read_weights(model_folder(peer.bench, result["model"]))
    for name, theirs in peer.weights.items():
        assert np.abs(ours[name].numpy() - theirs).max() < WEIGHT * np.abs(theirs).max(), name


def test_the_comparison_notices_that_documents_were_not_masked(peer: MaskedPeer) -> None:
    unmasked = {k: v for k, v in peer.another().items() if k != "documentMasking"}
    assert not peer.agrees(peer.curve(peer.bench.run("train", unmasked)))


def test_uneven_micro_batches_change_rounding_alone_when_masked(peer: MaskedPeer) -> None:
    assert peer.agrees(peer.curve(peer.bench.run("train", peer.another(), batchTokens=48)))


def test_the_comparison_notices_a_mean_of_means_when_masked_even_of_even_micro_batches(
    peer: MaskedPeer, monkeypatch: pytest.MonkeyPatch
) -> None:
    forward, micro_batches, calls = Llama.forward, 2, 0

    def mean_of_means(self: Llama, ids_BT: torch.Tensor, targets_BT: Any = None, *more: Any) -> torch.Tensor:
        nonlocal calls
        targets = peer.targets[min(calls // micro_batches, STEPS - 1)]
        calls += targets_BT is not None
        total = forward(self, ids_BT, targets_BT, *more)
        # the trainer divides by the batch's targets: what is left is this micro-batch's own mean, over their number
        return total if targets_BT is None else total * (targets / micro_batches / int((targets_BT >= 0).sum()))

    monkeypatch.setattr(Llama, "forward", mean_of_means)
    curve = peer.curve(peer.bench.run("train", peer.another(), batchTokens=64))
    assert calls == STEPS * micro_batches
    assert not peer.agrees(curve)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Json, Json]:
    """A store with a finished masked phase of 12 steps, checkpoints kept at 8 and 12; its request and result."""
    bench, budget = Workbench(tmp_path_factory.mktemp("finished-masked")), BATCH * 12
    request = {**train_request(bench, make_plan(bench, budget), budget), "documentMasking": True}
    return bench.folder, request, bench.run("train", request, checkpointEverySteps=4)


@pytest.fixture
def phase(finished: tuple[Path, Json, Json], tmp_path: Path) -> Phase:
    return Phase(finished, tmp_path)


def test_a_masked_phase_without_its_last_checkpoint_ends_with_the_same_bits(phase: Phase) -> None:
    phase.records()[-1].unlink()
    assert phase.is_undisturbed(phase.resume())


@pytest.mark.parametrize(
    "bug", [forget_moments, forget_optimizer_steps, forget_position, forget_weights, forget_rng, forget_curve]
)
def test_the_comparison_notices_whatever_a_masked_resume_forgets(
    phase: Phase, bug: Callable[[train_state.TrainState], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    phase.records()[-1].unlink()
    plant_in_restore(bug, monkeypatch)
    assert phase.resumes_otherwise()


def test_the_comparison_notices_a_schedule_that_begins_anew_in_a_masked_phase(
    phase: Phase, monkeypatch: pytest.MonkeyPatch
) -> None:
    phase.records()[-1].unlink()
    rate = train.step_learning_rate

    def restarted(schedule: Schedule, tokens_before: int, batch_tokens: int) -> float:
        return rate(schedule, tokens_before - 1024, batch_tokens)

    monkeypatch.setattr(train, "step_learning_rate", restarted)
    assert phase.resumes_otherwise()
