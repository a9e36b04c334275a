"""The frozen sets measured within a phase: what it shows, what it leaves as it was, and the best step that is kept."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import Workbench
from test_train_divergence import GUARD, gibberish, make_poisoned
from test_train_kills import Processes, Run
from tiny import make_plan, train_request

from cpt_ml import train
from cpt_ml.errors import BadRequest, Stopped, TryAgain
from cpt_ml.job import Job
from cpt_ml.llama import load_llama
from cpt_ml.parallel import IMPORTED
from cpt_ml.store import Json
from cpt_ml.weights import read_weights, weights_sha256

STEPS = 24
BUDGET = 128 * STEPS
EVERY = 4
SAME = ("model", "checkpoint", "curve", "weightsSha256", "finalLoss", "measurement", "validations", "best")
# it learns for half of the steps, and then the rate is too high
HALF = BUDGET // 2
RISING = {
    "shape": "constant", "peakLr": 0.2, "minLr": 0.0, "warmupTokens": HALF, "decayTokens": 0, "totalTokens": HALF,
    "parts": [{"shape": "hold", "rewarmTokens": 128, "rewarmLr": 1.0, "tokens": HALF}],
}  # fmt: skip


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Json, Json]:
    """A store with a plan, the request of a phase that is best in its middle, and the result of it undisturbed."""
    bench = Workbench(tmp_path_factory.mktemp("world"))
    request = train_request(bench, make_plan(bench, BUDGET), BUDGET, schedule=RISING, validateEverySteps=EVERY)
    pristine = tmp_path_factory.mktemp("pristine")
    shutil.copytree(bench.folder, pristine, dirs_exist_ok=True)
    return pristine, request, bench.run("train", request)


@pytest.fixture
def bench(world: tuple[Path, Json, Json], tmp_path: Path) -> Workbench:
    shutil.copytree(world[0], tmp_path, dirs_exist_ok=True)
    bench = Workbench(tmp_path)
    bench.jobs = 100
    return bench


def read_lines(bench: Workbench, ref: Json) -> list[Json]:
    return [json.loads(line) for line in bench.path(ref).read_text().splitlines()]


def folder_of(bench: Workbench, ref: Json) -> Path:
    return bench.job("read", ref).store.folder(ref)


def is_same(a: Json, b: Json) -> bool:
    return all(a[k] == b[k] for k in SAME)


def records_of(bench: Workbench, job: Job) -> list[Json]:
    folder = bench.folder / "store" / "checkpoints" / job.fingerprint[:2] / job.fingerprint
    return [json.loads(p.read_bytes()) for p in sorted(folder.glob("*.json"))]


def without_validation(request: Json) -> Json:
    return {k: v for k, v in request.items() if k != "validateEverySteps"}


def test_the_phase_under_test_is_best_in_its_middle(world: tuple[Path, Json, Json]) -> None:
    assert EVERY < world[2]["best"]["step"] < STEPS


def test_each_so_many_steps_have_a_line_and_so_has_the_last(bench: Workbench, world: tuple[Path, Json, Json]) -> None:
    result = bench.run("train", world[1])
    lines = read_lines(bench, result["validations"])
    assert [(line["step"], line["tokens"]) for line in lines] == [(s, 128 * s) for s in range(EVERY, STEPS + 1, EVERY)]
    assert lines[-1]["strata"] == result["measurement"]["strata"]
    for line in lines:
        tokens = sum(s["tokens"] for s in line["strata"])
        nll = sum(s["nllPerToken"] * s["tokens"] for s in line["strata"])
        assert line["nllPerToken"] == pytest.approx(nll / tokens, rel=1e-12)
    best = min(lines, key=lambda line: line["nllPerToken"])
    assert {k: result["best"][k] for k in ("step", "tokens", "nllPerToken")} == {
        k: best[k] for k in ("step", "tokens", "nllPerToken")
    }


def test_the_last_step_has_a_line_also_where_it_is_no_multiple(
    bench: Workbench, world: tuple[Path, Json, Json]
) -> None:
    result = bench.run("train", {**world[1], "validateEverySteps": 10})
    assert [line["step"] for line in read_lines(bench, result["validations"])] == [10, 20, STEPS]


@pytest.mark.parametrize("threads", [1, 2])
def test_training_has_the_bits_it_has_without_validation(
    bench: Workbench, world: tuple[Path, Json, Json], threads: int
) -> None:
    watched = bench.run("train", world[1], threads=threads)
    plain = bench.run("train", without_validation(world[1]), threads=threads)
    assert not {"validations", "best"} & plain.keys()
    assert all(watched[k]["sha256"] == plain[k]["sha256"] for k in ("model", "curve"))
    assert watched["weightsSha256"] == plain["weightsSha256"]
    assert watched["measurement"]["strata"] == plain["measurement"]["strata"]
    ours, theirs = (folder_of(bench, r["checkpoint"]) / "optimizer.safetensors" for r in (watched, plain))
    assert ours.read_bytes() == theirs.read_bytes()


def test_the_best_models_folder_has_the_weights_of_its_step_and_measures_as_its_line_says(
    bench: Workbench, world: tuple[Path, Json, Json]
) -> None:
    job = bench.job("train", world[1], checkpointEverySteps=1, checkpoints={"keepLast": STEPS})
    train.run(job)
    result = job.store.record(job.fingerprint)["result"]
    best = result["best"]
    folder = folder_of(bench, best["model"])
    at_best = next(r for r in records_of(bench, job) if r["step"] == best["step"])
    (file,) = [f for f in at_best["files"] if f["name"] == "model.safetensors"]
    saved, expected = read_weights(folder), read_one(bench.folder / "store" / file["path"])
    assert saved.keys() == expected.keys()
    assert all(bool((saved[n] == expected[n]).all()) for n in saved)
    assert weights_sha256(folder) != result["weightsSha256"]
    assert {p.name for p in folder.iterdir()} == {p.name for p in folder_of(bench, result["model"]).iterdir()}
    request = {"model": best["model"], "validation": world[1]["validation"], "dtype": "float32"}
    line = next(x for x in read_lines(bench, result["validations"]) if x["step"] == best["step"])
    assert bench.run("evaluate-perplexity", request)["measurement"]["strata"] == line["strata"]


def read_one(path: Path) -> dict[str, Any]:
    from safetensors.torch import load_file  # noqa: PLC0415

    return load_file(path)


def test_where_the_last_step_is_the_best_its_model_is_named_and_not_written_twice(workbench: Workbench) -> None:
    request = train_request(workbench, make_plan(workbench, BUDGET), BUDGET, validateEverySteps=EVERY)
    result = workbench.run("train", request)
    assert result["best"]["step"] == STEPS
    assert result["best"]["model"] == result["model"]
    job = workbench.job("train", request)
    assert not any(f["name"].startswith("best/") for f in job.store.record(job.fingerprint)["files"])


def test_the_best_checkpoint_is_kept_beside_the_last_and_says_its_loss(
    bench: Workbench, world: tuple[Path, Json, Json]
) -> None:
    job = bench.job("train", world[1], checkpointEverySteps=1)
    seen: list[list[Json]] = []
    log = job.log

    def look(event: str, **fields: Any) -> None:
        log(event, **fields)
        if event == "checkpoint":
            seen.append(records_of(bench, job))

    job.log = look
    train.run(job)
    lines = read_lines(bench, job.store.record(job.fingerprint)["result"]["validations"])
    losses = {line["step"]: line["nllPerToken"] for line in lines}
    assert [r[-1]["step"] for r in seen] == list(range(1, STEPS + 1))
    for records in seen:
        tip = records[-1]["step"]
        said = {r["step"]: r["state"]["nllPerToken"] for r in records if "nllPerToken" in r["state"]}
        assert said.items() <= losses.items()
        measured = {s: loss for s, loss in losses.items() if s <= tip and s < STEPS}
        # a fall-back by one may have another best
        before = {s: loss for s, loss in measured.items() if s < tip}
        expected = {tip, max(1, tip - 1), *(min(m, key=lambda s: m[s]) for m in (measured, before) if m)}
        assert {r["step"] for r in records} == expected
    named = {f["path"] for r in seen[-1] for f in r["files"]}
    store = bench.folder / "store"
    assert {p.relative_to(store).as_posix() for p in store.rglob("*-checkpoints/**/*") if p.is_file()} == named


@pytest.mark.parametrize("every", [1, 3, 5, 24])
def test_where_other_checkpoints_lie_changes_nothing(
    bench: Workbench, world: tuple[Path, Json, Json], every: int
) -> None:
    assert is_same(bench.run("train", world[1], checkpointEverySteps=every), world[2])


class Stop:
    """Tells a job to stop at its so many-th chance to notice, and says in which phase that was."""

    def __init__(self, job: Job, chance: int) -> None:
        self.left, self.phase = chance, ""
        self.beat, self.check = job.beat, job.check_stop
        job.beat, job.check_stop = self.in_phase, self.in_time

    def in_phase(self, phase: str, *of: Any, **more: Any) -> None:
        self.phase = phase
        self.beat(phase, *of, **more)

    def in_time(self) -> None:
        self.left -= 1
        if self.left == 0:
            raise Stopped("train: told to stop (a test)")
        self.check()


def test_a_phase_told_to_stop_at_any_moment_also_while_it_validates_has_each_line_once(
    world: tuple[Path, Json, Json], tmp_path: Path
) -> None:
    phases: list[str] = []
    undisturbed = Workbench(shutil.copytree(world[0], tmp_path / "undisturbed"))
    undisturbed.jobs = 100
    expected = undisturbed.run("train", world[1], batchTokens=256)
    for seed in range(3):
        bench, rng = Workbench(shutil.copytree(world[0], tmp_path / str(seed))), random.Random(seed)
        bench.jobs = 100
        while True:
            job = bench.job("train", world[1], checkpointEverySteps=rng.choice([1, 3, 24]), batchTokens=256)
            stop = Stop(job, rng.randint(1, 30))
            try:
                train.run(job)
            except Stopped:
                phases.append(stop.phase)
                continue
            break
        result = job.store.record(job.fingerprint)["result"]
        steps = [line["step"] for line in read_lines(bench, result["validations"])]
        assert steps == list(range(EVERY, STEPS + 1, EVERY))
        assert is_same(result, expected)
    assert {"train", "validate"} <= set(phases)


@pytest.fixture(scope="module")
def processes() -> Iterator[Processes]:
    p = Processes(*IMPORTED)
    yield p
    p.close()


@pytest.fixture(scope="module")
def pair(world: tuple[Path, Json, Json], tmp_path_factory: pytest.TempPathFactory, processes: Processes) -> Run:
    """The phase on two processes, undisturbed."""
    run = Run(world, tmp_path_factory.mktemp("pair"), processes)
    run.placement = {"checkpointEverySteps": 3, "processesPerNode": 2}
    assert run.finish() == 0
    return run


POINTS = ("validated", "checkpoint-files", "checkpoint-written", "checkpoint-recorded", "checkpoint-pruned")
ON_ONE = [(1, point, at) for point in POINTS for at in (1, 4)]


@pytest.mark.parametrize(
    "killed", [*ON_ONE, (1, "commit-written", 1), (2, "validated", 2), (2, "checkpoint-pruned", 3)], ids=str
)
def test_a_phase_killed_around_a_validation_ends_with_the_same_bits(
    world: tuple[Path, Json, Json], tmp_path: Path, processes: Processes, pair: Run, killed: tuple[int, str, int]
) -> None:
    count, point, at = killed
    run = Run(world, tmp_path, processes)
    run.placement = {"checkpointEverySteps": 3, "processesPerNode": count}
    failpoints = run.bench.folder / "failpoints"
    failpoints.mkdir()
    (failpoints / point).write_text(str(at))
    codes: list[int] = []
    for _ in range(2):
        job = run.attempt()
        (job.folder / "request.json").write_text(json.dumps(job.spec))
        codes.append(
            processes.wait(processes.ask(f"train {job.folder}/request.json {job.folder}/result.json {failpoints}"))
        )
    assert codes[0] != 0
    assert codes[1] == 0
    assert is_same(run.result(), pair.result() if count == 2 else world[2])
    named = {f["path"] for p in run.checkpoints for f in json.loads(p.read_bytes())["files"]}
    store = run.bench.folder / "store"
    assert {p.relative_to(store).as_posix() for p in store.rglob("*-checkpoints/**/*") if p.is_file()} == named


def test_two_processes_measure_what_one_does_and_train_on_as_without(
    world: tuple[Path, Json, Json], bench: Workbench, tmp_path: Path, processes: Processes, pair: Run
) -> None:
    runs = ((bench, bench.run("train", world[1])), (pair.bench, pair.result()))
    expected, found = (read_lines(w, result["validations"]) for w, result in runs)
    assert [line["step"] for line in found] == [line["step"] for line in expected]
    for a, b in zip(found[:3], expected[:3], strict=True):  # later the rate is so high that rounding shows
        assert a["nllPerToken"] == pytest.approx(b["nllPerToken"], rel=1e-3)
    plain = Run((world[0], without_validation(world[1]), {}), tmp_path / "plain", processes)
    plain.placement = pair.placement
    assert plain.finish() == 0
    assert plain.result()["weightsSha256"] == pair.result()["weightsSha256"]
    assert plain.result()["curve"]["sha256"] == pair.result()["curve"]["sha256"]
    best, model = (load_llama(folder_of(pair.bench, of["model"])) for of in (pair.result()["best"], pair.result()))
    assert [tuple(p.shape) for p in best.parameters()] == [tuple(p.shape) for p in model.parameters()]


def test_what_a_phase_on_two_processes_leaves_is_a_start_with_its_optimizer_for_one(
    world: tuple[Path, Json, Json], pair: Run
) -> None:
    start = {"kind": "checkpoint", "checkpoint": pair.result()["checkpoint"], "optimizer": "keep"}
    pair.bench.jobs = 300
    assert pair.bench.run("train", {**without_validation(world[1]), "start": start})["steps"] == STEPS


def test_when_the_best_checkpoint_is_damaged_its_steps_are_trained_again(
    bench: Workbench, world: tuple[Path, Json, Json]
) -> None:
    job = bench.job("train", world[1], checkpointEverySteps=5)
    train.run(job)
    (bench.folder / "store" / "commits" / job.fingerprint[:2] / f"{job.fingerprint}.json").unlink()
    best = next(r for r in records_of(bench, job) if r["step"] == world[2]["best"]["step"])
    path = bench.folder / "store" / next(f["path"] for f in best["files"] if f["name"] == "model.safetensors")
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(TryAgain, match=rf"the best step, {best['step']}, is damaged"):
        bench.run("train", world[1], checkpointEverySteps=5)
    assert all(r["step"] < best["step"] for r in records_of(bench, job))
    assert is_same(bench.run("train", world[1], checkpointEverySteps=5), world[2])


@pytest.mark.parametrize("every", [1, 3, 40])
def test_lines_of_steps_that_were_rolled_back_go(workbench: Workbench, every: int) -> None:
    steps, more = 40, {"validateEverySteps": 2}
    request = make_poisoned(workbench, [(gibberish(18), 5.0)], **more)
    job = workbench.job("train", request, checkpointEverySteps=every)
    measured: list[int] = []
    log = job.log

    def look(event: str, **fields: Any) -> None:
        log(event, **fields)
        if event == "validated":
            measured.append(fields["step"])

    job.log = look
    train.run(job)
    result = job.store.record(job.fingerprint)["result"]
    (amendment, *_) = result["amendments"]
    assert amendment["reason"] == "spike"
    again = [s for s in measured if 128 * s > amendment["fromToken"] and measured.count(s) > 1]
    assert again, "nothing was measured that a rollback could take back"
    lines = read_lines(workbench, result["validations"])
    assert [line["step"] for line in lines] == list(range(2, steps + 1, 2))
    # within the window nothing was trained: the sets show what they showed where it begins
    at = {line["step"]: line["nllPerToken"] for line in lines}
    first = -(-amendment["fromToken"] // 256) * 2
    inside = [s for s in at if first <= s <= amendment["step"] and 128 * s >= amendment["fromToken"]]
    assert len({at[s] for s in inside}) == 1
    assert len(inside) >= GUARD["skipSteps"] // 2
    records = {r["step"]: r for r in records_of(workbench, job)}
    if result["best"]["step"] < steps:
        assert records[result["best"]["step"]]["state"]["nllPerToken"] == result["best"]["nllPerToken"]


def test_a_spiking_phase_has_the_same_lines_and_best_wherever_checkpoints_lie(tmp_path: Path) -> None:
    results: list[Json] = []
    for every in (1, 7, 40):
        bench = Workbench(tmp_path / str(every))
        request = make_poisoned(bench, [(gibberish(18), 5.0)], validateEverySteps=3)
        results.append(bench.run("train", request, checkpointEverySteps=every))
    assert is_same(results[0], results[1])
    assert is_same(results[0], results[2])


def test_a_number_of_steps_that_makes_no_sense_is_refused(bench: Workbench, world: tuple[Path, Json, Json]) -> None:
    with pytest.raises(BadRequest, match="validateEverySteps is 0, expected at least 1"):
        bench.run("train", {**world[1], "validateEverySteps": 0})
