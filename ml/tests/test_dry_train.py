"""dry-train: figures of some steps, and a save that is loaded again, in this process; e2e has several processes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from conftest import Workbench
from tiny import make_model, make_tokenizer

from cpt_ml.dry_train import SyntheticStream, run
from cpt_ml.errors import BadData, BadRequest
from cpt_ml.llama import LlamaConfig
from cpt_ml.mfu import flops_per_token
from cpt_ml.store import Json
from cpt_ml.train_state import TrainState


def request_of(bench: Workbench, **over: Any) -> Json:
    return {
        "model": make_model(bench), "tokenizer": make_tokenizer(bench), "steps": 6, "sequenceTokens": 32,
        "globalBatchTokens": 128, "dtype": "float32", "seed": 7, "windowTokens": 16, "asked": "test",
        "optimizer": {"beta1": 0.9, "beta2": 0.95, "epsilon": 1e-8, "weightDecay": 0.1, "clipNorm": 1}, **over,
    }  # fmt: skip


def test_the_figures_are_of_the_steps_asked_for_and_nothing_of_their_checkpoint_is_left(workbench: Workbench) -> None:
    request = request_of(workbench)
    result = workbench.run("dry-train", request, batchTokens=64)
    assert (result["steps"], result["tokens"], result["processes"], result["microBatchSequences"]) == (6, 768, 1, 2)
    assert result["tokensPerSecond"] == pytest.approx(128 / result["secondsPerStep"])
    assert result["evaluationTokens"] == 8 * 15
    # random weights know nothing: a little over the entropy of 300 equal ids
    assert 0.8 * np.log(300) < result["lastLoss"] < 4 * np.log(300)
    # weights and two moments in fp32
    assert result["checkpointBytes"] > 3 * 4 * result["parameters"]
    assert result["mfu"] is None
    folder = workbench.job("read", {}).store.folder
    from cpt_ml.store import ArtifactRef  # noqa: PLC0415

    config = LlamaConfig.read(folder(ArtifactRef(**request["model"])))
    assert result["utilisation"]["flopsPerToken"] == flops_per_token(config, 32)
    store = workbench.folder / "store"
    assert [p for p in store.rglob("*") if p.is_file() and "checkpoints" in p.as_posix()] == []


@pytest.mark.parametrize("settings", [{"activationCheckpointing": "full"}, {"checkpointEverySteps": 1}])
def test_settings_of_the_placement_are_the_runs(workbench: Workbench, settings: Json) -> None:
    assert workbench.run("dry-train", request_of(workbench, steps=3), **settings)["steps"] == 3


def test_bf16_is_measured_too(workbench: Workbench) -> None:
    assert workbench.run("dry-train", request_of(workbench, dtype="bfloat16"))["lastLoss"] > 0


def test_a_peak_that_is_stated_counts(workbench: Workbench) -> None:
    result = workbench.run("dry-train", request_of(workbench), peakTflops=0.25)
    used = result["utilisation"]
    assert used["peakFlops"] == 0.25e12
    assert result["mfu"] == pytest.approx(result["tokensPerSecond"] * used["flopsPerToken"] / 0.25e12)


def test_a_load_that_is_not_what_was_saved_is_no_success(workbench: Workbench, monkeypatch: pytest.MonkeyPatch) -> None:
    restore = TrainState.restore

    def restore_all_but_one_bit(self: TrainState, checkpoint: Any) -> None:
        restore(self, checkpoint)
        bits = next(iter(self.optimizer.m.values())).view(-1)[:1].view(torch.int32)
        bits += 1

    monkeypatch.setattr(TrainState, "restore", restore_all_but_one_bit)
    with pytest.raises(BadData, match="what was loaded at step 3 is not what was saved at step 3"):
        workbench.run("dry-train", request_of(workbench))


def test_an_attempt_after_one_that_saved_and_died_measures_anew(workbench: Workbench) -> None:
    request = request_of(workbench)
    first = workbench.job("dry-train", request)
    first.commit = lambda *_: (_ for _ in ()).throw(KeyboardInterrupt)  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        run(first)
    assert workbench.run("dry-train", request)["steps"] == 6


def test_what_train_would_refuse_is_refused(workbench: Workbench) -> None:
    with pytest.raises(BadRequest, match="globalBatchTokens 100 is no multiple of sequenceTokens 32"):
        workbench.run("dry-train", request_of(workbench, globalBatchTokens=100))
    small = make_model(workbench, seed=5, vocab_size=200)
    with pytest.raises(BadRequest, match="the tokenizer has ids below 300, the model below 200"):
        workbench.run("dry-train", request_of(workbench, model=small))


def test_a_sequence_is_the_same_whoever_reads_it() -> None:
    stream = SyntheticStream(300, seed=7)
    whole, part = stream.sequences(0, 8, 32), stream.sequences(5, 2, 32)
    assert whole.shape == (8, 33)
    np.testing.assert_array_equal(whole[5:7], part)
    assert (whole >= 0).all()
    assert (whole < 300).all()
    assert not np.array_equal(whole[0], whole[1])
