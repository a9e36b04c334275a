"""The trainer against Hugging Face's: the same model, batches and settings give the same losses and gradients.

Tolerances, relative, float32 on both sides over 24 steps: losses 1e-6, gradient norms 3e-6, weights 1e-5 of the
largest of their tensor (seen: 9e-8, 2e-7, 2.4e-6). What differs is the order of sums: theirs is taken over whole
logits, ours over chunks and in float64.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import Workbench, fingerprint
from peer_trainer import PeerLine, lines_of, make_trainer
from tiny import make_plan, plan_folder, train_request

from cpt_ml import train
from cpt_ml.errors import BadData, StoreCorrupt
from cpt_ml.llama import Llama
from cpt_ml.store import Json
from cpt_ml.token_stream import Ids, TokenStream
from cpt_ml.train_request import TrainRequest
from cpt_ml.train_state import TrainState
from cpt_ml.weights import read_weights

STEPS = 24
BATCH = 128
BUDGET = BATCH * STEPS
LOSS, NORM, WEIGHT = 1e-6, 3e-6, 1e-5


def rate_of(request: Json, step: int) -> float:
    """Warm-up, plateau, 1 - sqrt: written out again, so that a bug of schedule.py is no bug of the peer."""
    s, middle = request["schedule"], BATCH * step + BATCH / 2
    if middle < s["warmupTokens"]:
        return s["peakLr"] * middle / s["warmupTokens"]
    x = max(0.0, (middle - (s["totalTokens"] - s["decayTokens"])) / s["decayTokens"])
    return s["minLr"] + (s["peakLr"] - s["minLr"]) * (1 - x**0.5)


def model_folder(bench: Workbench, ref: Json) -> Path:
    return bench.job("read", ref).store.folder(ref)


class Peer:
    """A phase that both have trained: the request, what Trainer logged, and its weights."""

    def __init__(self, folder: Path, micro_batch: int) -> None:
        self.bench = Workbench(folder)
        self.request = train_request(self.bench, make_plan(self.bench, BUDGET), BUDGET)
        stream = TokenStream(self.bench.job("read", {}).store, plan_folder(self.bench, self.request["plan"]))
        start = model_folder(self.bench, self.request["start"]["model"])
        sequences = stream.sequences(0, BUDGET // 16, 16)
        trainer = make_trainer(
            start, folder / "peer", sequences, self.request, lambda i: rate_of(self.request, i), micro_batch
        )
        trainer.train()
        self.seed = 100
        self.lines: list[PeerLine] = lines_of(trainer)
        self.weights = {n: p.detach().numpy() for n, p in trainer.model.named_parameters()}

    def curve(self, result: Json) -> list[Json]:
        return [json.loads(line) for line in self.bench.path(result["curve"]).read_bytes().splitlines()]

    def another(self) -> Json:
        """The request of the same phase at another fingerprint: the seed draws nothing, the models have no dropout."""
        self.seed += 1
        return {**self.request, "seed": self.seed}

    def agrees(self, curve: list[Json]) -> bool:
        """Whether losses and gradient norms of a run of ours are the peer's, within the tolerances."""
        return [c["loss"] for c in curve] == pytest.approx([e.loss for e in self.lines], rel=LOSS) and [
            c["gradNorm"] for c in curve
        ] == pytest.approx([e.grad_norm for e in self.lines], rel=NORM)


@pytest.fixture(scope="module")
def peer(tmp_path_factory: pytest.TempPathFactory) -> Peer:
    return Peer(tmp_path_factory.mktemp("peer"), micro_batch=4)


def test_losses_gradients_and_weights_are_those_of_hugging_face_trainer(peer: Peer) -> None:
    result = peer.bench.run("train", peer.request)
    curve = peer.curve(result)
    assert len(curve) == len(peer.lines) == STEPS
    assert [c["loss"] for c in curve] == pytest.approx([e.loss for e in peer.lines], rel=LOSS)
    assert [c["gradNorm"] for c in curve] == pytest.approx([e.grad_norm for e in peer.lines], rel=NORM)
    assert curve[-1]["loss"] < curve[0]["loss"] - 0.5
    ours = read_weights(model_folder(peer.bench, result["model"]))
    assert ours.keys() == peer.weights.keys()
    for name, theirs in peer.weights.items():
        assert np.abs(ours[name].numpy() - theirs).max() < WEIGHT * np.abs(theirs).max(), name


@pytest.mark.parametrize("batch_tokens", [16, 48])
def test_uneven_micro_batches_change_rounding_alone(peer: Peer, batch_tokens: int) -> None:
    # 48: three sequences, three, and two
    assert peer.agrees(peer.curve(peer.bench.run("train", peer.another(), batchTokens=batch_tokens)))


def test_the_comparison_notices_a_mean_of_means(peer: Peer, monkeypatch: pytest.MonkeyPatch) -> None:
    forward = Llama.forward
    micro_batches = 3

    def mean_of_means(self: Llama, ids_BT: torch.Tensor, *more: Any, **named: Any) -> torch.Tensor:
        # the trainer divides by BATCH: what is left is each micro-batch's own mean, over the number of them
        return forward(self, ids_BT, *more, **named) * (BATCH / micro_batches / ids_BT.numel())

    def run(batch_tokens: int) -> list[Json]:
        with monkeypatch.context() as patch:
            patch.setattr(Llama, "forward", mean_of_means)
            return peer.curve(peer.bench.run("train", peer.another(), batchTokens=batch_tokens))

    assert not peer.agrees(run(48))
    micro_batches = 2  # even ones hide it, which is why the comparison is made with uneven ones
    assert peer.agrees(run(64))


def test_checkpoints_some_steps_apart_share_no_tensor_file(peer: Peer) -> None:
    request = peer.another()
    peer.bench.run("train", request, checkpointEverySteps=8)
    of = fingerprint("train", request)
    paths = sorted((peer.bench.folder / "store" / "checkpoints" / of[:2] / of).glob("*.json"))
    earlier, later = [json.loads(p.read_bytes()) for p in paths]
    assert (earlier["step"], later["step"]) == (16, 24)
    digests = [{f["sha256"] for f in r["files"] if f["name"].endswith((".safetensors", ".distcp"))}
               for r in (earlier, later)]  # fmt: skip
    assert digests[0]
    assert digests[1]
    assert not digests[0] & digests[1]


def end_early(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(TrainRequest, "steps", property(lambda _: STEPS - 1))


def pass_over_a_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    train_step = train.train_step

    def skipping(*args: Any, **named: Any) -> Any:
        taken = train_step(*args, **named)
        state = next(a for a in args if isinstance(a, TrainState))
        if state.step == STEPS // 2:
            state.step, state.tokens = state.step + 1, state.tokens + BATCH
        return taken

    monkeypatch.setattr(train, "train_step", skipping)


@pytest.mark.parametrize("bug", [end_early, pass_over_a_batch])
def test_a_phase_that_trained_fewer_tokens_than_planned_is_no_success(
    peer: Peer, bug: Callable[[pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    request = peer.another()
    bug(monkeypatch)
    with pytest.raises(
        BadData, match=r"2944 tokens trained \+ 0 skipped are not the plan's 3072|line 1[123] of the curve"
    ):
        peer.bench.run("train", request)
    of = fingerprint("train", request)
    assert not (peer.bench.folder / "store" / "commits" / of[:2] / f"{of}.json").exists()


def test_a_token_shard_that_is_cut_is_no_success(tmp_path: Path) -> None:
    bench = Workbench(tmp_path)
    request = train_request(bench, make_plan(bench, BUDGET), BUDGET)
    shard = next((tmp_path / "store").rglob("tokens-0.u32"))
    shard.write_bytes(shard.read_bytes()[:-4])
    with pytest.raises(StoreCorrupt, match=r"tokens-0\.u32"):
        bench.run("train", request)


def test_a_piece_that_reaches_past_its_shard_is_named_and_never_filled_up(
    peer: Peer, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream = TokenStream(peer.bench.job("read", {}).store, plan_folder(peer.bench, peer.request["plan"]))
    piece: Any = getattr(TokenStream, "_piece")  # noqa: B009

    def one_token(self: TokenStream, i: int) -> Ids:
        return piece(self, i)[:1]  # numpy would repeat it over the whole place

    monkeypatch.setattr(TokenStream, "_piece", one_token)
    with pytest.raises(StoreCorrupt, match=r"piece 0 of the plan has 1 token, expected \d+"):
        stream.sequences(0, 8, 16)
