"""Checkpoints: what a resumed phase needs to end with the same bits, and what each kind of damage costs."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import Workbench
from tiny import make_plan, train_request

from cpt_ml import train, train_state
from cpt_ml.errors import BadData, Superseded
from cpt_ml.schedule import Schedule
from cpt_ml.store import Json

BUDGET = 128 * 12


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Json, Json]:
    """A store with a finished phase of 12 steps, checkpoints kept at 8 and 12; its request and result."""
    bench = Workbench(tmp_path_factory.mktemp("finished"))
    request = train_request(bench, make_plan(bench, BUDGET), BUDGET)
    result = bench.run("train", request, checkpointEverySteps=4)
    return bench.folder, request, result


class Phase:
    """A copy of the finished phase as a crash right before its commit would leave it."""

    def __init__(self, finished: tuple[Path, Json, Json], folder: Path) -> None:
        source, self.request, self.undisturbed = finished
        shutil.copytree(source, folder, dirs_exist_ok=True)
        self.bench = Workbench(folder)
        self.bench.jobs = 100
        self.fingerprint = self.undisturbed["model"]["uri"].split(":")[1].split("/")[0]
        self.store = folder / "store"
        self.undisturbed_losses = self.losses(self.undisturbed)
        (self.store / "commits" / self.fingerprint[:2] / f"{self.fingerprint}.json").unlink()

    def records(self) -> list[Path]:
        return sorted((self.store / "checkpoints" / self.fingerprint[:2] / self.fingerprint).glob("*.json"))

    def file(self, record: Path, name: str) -> Path:
        files = json.loads(record.read_bytes())["files"]
        return self.store / next(f["path"] for f in reversed(files) if f["name"].startswith(name))

    def resume(self, **placement: Any) -> Json:
        return self.bench.run("train", self.request, checkpointEverySteps=4, **placement)

    def losses(self, result: Json) -> list[float]:
        return [json.loads(line)["loss"] for line in self.bench.path(result["curve"]).read_bytes().splitlines()]

    def is_undisturbed(self, result: Json) -> bool:
        same = ("model", "checkpoint", "curve", "weightsSha256", "finalLoss", "measurement")
        return all(result[k] == self.undisturbed[k] for k in same)

    def resumes_otherwise(self) -> bool:
        """Whether a resume ends with other bits, or is refused since its ledger is not the plan."""
        try:
            return not self.is_undisturbed(self.resume())
        except BadData as e:
            return "of the curve is" in str(e) or "are not the plan's" in str(e)


@pytest.fixture
def phase(finished: tuple[Path, Json, Json], tmp_path: Path) -> Phase:
    return Phase(finished, tmp_path)


def test_a_phase_that_crashed_after_its_last_step_only_validates_again(phase: Phase) -> None:
    before = [r.read_bytes() for r in phase.records()]
    result = phase.resume()
    assert phase.is_undisturbed(result)
    assert result["restarts"] == [{"attempt": 1, "step": 12, "tokens": BUDGET}]
    assert [r.read_bytes() for r in phase.records()] == before


def test_the_weights_of_a_phase_are_written_once_for_its_model_and_its_checkpoint(phase: Phase) -> None:
    curve = phase.bench.path(phase.resume()["curve"])
    paths = [curve.parent / n for n in ("model", "checkpoint")]
    names = [{p.name for p in path.iterdir()} for path in paths]
    assert names[1] - names[0] == {"optimizer.safetensors", "state.json"}
    assert all((paths[0] / n).samefile(paths[1] / n) for n in names[0])


def test_a_phase_without_its_last_checkpoint_ends_with_the_same_bits(phase: Phase) -> None:
    phase.records()[-1].unlink()
    result = phase.resume()
    assert phase.is_undisturbed(result)
    assert result["restarts"] == [{"attempt": 1, "step": 8, "tokens": 1024}]
    assert [r.name for r in phase.records()] == ["000-000002.json", "000-000003.json"]


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))


@pytest.mark.parametrize("damage", [truncate, flip, Path.unlink])
@pytest.mark.parametrize("name", ["model.safetensors", "optimizer.safetensors", "curve-", "record"])
def test_a_damaged_tip_costs_one_checkpoint_and_opens_a_branch(
    phase: Phase, name: str, damage: Callable[[Path], None], capfd: pytest.CaptureFixture[str]
) -> None:
    tip = phase.records()[-1]
    target = tip if name == "record" else phase.file(tip, name)
    damage(target)
    gone = name == "record" and not target.exists()
    result = phase.resume()
    assert phase.is_undisturbed(result)
    assert [r["step"] for r in result["restarts"]] == [8]
    assert phase.records()[-1].name == ("000-000003.json" if gone else "001-000003.json")
    log = capfd.readouterr().err
    assert gone or ("checkpoint-damaged" in log and target.name in log)


def test_when_every_checkpoint_is_damaged_the_phase_begins_again(phase: Phase) -> None:
    for record in phase.records():
        truncate(phase.file(record, "model"))
    result = phase.resume()
    assert phase.is_undisturbed(result)
    assert result["restarts"] == []
    assert phase.records()[-1].name == "001-000003.json"


def test_each_checkpoint_names_its_parents_bytes_and_only_two_are_kept(phase: Phase) -> None:
    import hashlib  # noqa: PLC0415

    first, second = phase.records()
    assert json.loads(second.read_bytes())["parent"] == hashlib.sha256(first.read_bytes()).hexdigest()
    named = {f["path"] for r in (first, second) for f in json.loads(r.read_bytes())["files"]}
    found = {p.relative_to(phase.store).as_posix() for p in phase.store.rglob("*-checkpoints/**/*") if p.is_file()}
    assert found == named


def test_files_of_a_save_that_never_finished_are_removed(phase: Phase) -> None:
    folder = phase.file(phase.records()[-1], "model").parent.parent
    debris = folder.parent / "attempt-0099-checkpoints" / "000-000004" / "model.safetensors"
    debris.parent.mkdir(parents=True)
    debris.write_bytes(b"half a")
    phase.resume()
    assert not debris.parent.exists()


def forget_moments(state: train_state.TrainState) -> None:
    for t in (*state.optimizer.m.values(), *state.optimizer.v.values()):
        t.zero_()


def forget_optimizer_steps(state: train_state.TrainState) -> None:
    state.optimizer.load(state.optimizer.state(), 0)


def forget_position(state: train_state.TrainState) -> None:
    state.tokens -= 128


def forget_weights(state: train_state.TrainState) -> None:
    with torch.no_grad():
        next(iter(state.model.parameters())).mul_(1 + 1e-6)


def forget_rng(state: train_state.TrainState) -> None:
    torch.rand(1)


def forget_curve(state: train_state.TrainState) -> None:
    state.segments = state.segments[:-1]


def plant_in_restore(bug: Callable[[train_state.TrainState], None], monkeypatch: pytest.MonkeyPatch) -> None:
    """Every checkpoint that is taken up has the bug from now on."""
    restore = train_state.TrainState.restore

    def restore_badly(self: train_state.TrainState, checkpoint: Any) -> None:
        restore(self, checkpoint)
        bug(self)

    monkeypatch.setattr(train_state.TrainState, "restore", restore_badly)


@pytest.mark.parametrize("bug", [forget_moments, forget_optimizer_steps, forget_weights, forget_rng])
def test_the_comparison_notices_whatever_a_resume_forgets(
    phase: Phase, bug: Callable[[train_state.TrainState], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    phase.records()[-1].unlink()
    plant_in_restore(bug, monkeypatch)
    assert phase.resumes_otherwise()


@pytest.mark.parametrize("bug", [forget_position, forget_curve])
def test_a_phase_whose_ledger_is_not_the_plan_is_never_committed(
    phase: Phase, bug: Callable[[train_state.TrainState], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    phase.records()[-1].unlink()
    plant_in_restore(bug, monkeypatch)
    with pytest.raises(BadData, match=r"line \d+ of the curve"):
        phase.resume()
    assert not (phase.store / "commits" / phase.fingerprint[:2] / f"{phase.fingerprint}.json").exists()


def test_the_comparison_notices_a_schedule_that_begins_anew(phase: Phase, monkeypatch: pytest.MonkeyPatch) -> None:
    phase.records()[-1].unlink()
    rate = train.step_learning_rate

    def restarted(schedule: Schedule, tokens_before: int, batch_tokens: int) -> float:
        return rate(schedule, tokens_before - 1024, batch_tokens)

    monkeypatch.setattr(train, "step_learning_rate", restarted)
    assert not phase.is_undisturbed(phase.resume())


def test_changed_numerics_are_recorded_and_the_loss_stays_within_rounding(phase: Phase) -> None:
    phase.records()[-1].unlink()
    result = phase.resume(batchTokens=32)
    state = json.loads(phase.records()[-1].read_bytes())["state"]
    assert [(n["fromStep"], n["microBatchSequences"]) for n in state["numerics"]] == [(0, 8), (8, 2)]
    assert phase.losses(result) == pytest.approx(phase.undisturbed_losses, rel=1e-5)


def test_a_stale_attempt_publishes_nothing(phase: Phase) -> None:
    phase.records()[-1].unlink()
    before = [r.name for r in phase.records()]
    claim = phase.store / "claims" / phase.fingerprint[:2] / phase.fingerprint / "0" / "2.json"
    claim.parent.mkdir(parents=True)
    claim.write_text("{}")
    with pytest.raises(Superseded, match="attempt 2 exists"):
        phase.resume()
    assert [r.name for r in phase.records()] == before
    assert not (phase.store / "commits" / phase.fingerprint[:2] / f"{phase.fingerprint}.json").exists()
