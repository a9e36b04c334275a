"""Checkpoints belong to one request: made for another, in any field, they are refused by name and not touched."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import Workbench
from test_train_kills import Processes, Run
from tiny import make_model, make_plan, train_request

from cpt_ml import train
from cpt_ml.errors import BadRequest, Stopped
from cpt_ml.parallel import IMPORTED
from cpt_ml.store import Json
from cpt_ml.train_request import TrainRequest

STEPS = 12
BUDGET = 128 * STEPS
OTHER = "0" * 64


def other(request: Json, field: str) -> Json:
    return {**request[field], "sha256": OTHER}


def within(field: str, **change: Any) -> Callable[[Json], Json]:
    return lambda request: {field: {**request[field], **change}}


GUARD = {"windowSteps": 8, "spikeZ": 6.0, "minRise": 0.5, "skipSteps": 4, "maxAmendments": 2}
# field of a request → what of it is another, the field that the refusal names, and what it says of both
CHANGES: dict[str, tuple[Callable[[Json], Json], str, str]] = {
    "engine": (lambda _: {"engine": "fsdp2"}, "engine", 'was absent, is "fsdp2"'),
    "start": (lambda r: {"start": {"kind": "model", "model": {**r["start"]["model"], "sha256": OTHER}}},
              "start.model.sha256", f'is "{OTHER}"'),
    "plan": (lambda r: {"plan": other(r, "plan")}, "plan.sha256", f'is "{OTHER}"'),
    "tokenizer": (lambda r: {"tokenizer": other(r, "tokenizer")}, "tokenizer.sha256", f'is "{OTHER}"'),
    "tokenBudget": (lambda _: {"tokenBudget": 2 * BUDGET}, "tokenBudget", f"was {BUDGET}, is {2 * BUDGET}"),
    "sequenceTokens": (lambda _: {"sequenceTokens": 32}, "sequenceTokens", "was 16, is 32"),
    "globalBatchTokens": (lambda _: {"globalBatchTokens": 64}, "globalBatchTokens", "was 128, is 64"),
    "schedule": (within("schedule", peakLr=4e-3), "schedule.peakLr", "was 0.003, is 0.004"),
    "optimizer": (within("optimizer", beta2=0.99), "optimizer.beta2", "was 0.95, is 0.99"),
    "dtype": (lambda _: {"dtype": "bfloat16"}, "dtype", 'was "float32", is "bfloat16"'),
    "seed": (lambda _: {"seed": 43}, "seed", "was 42, is 43"),
    "validation": (within("validation", windowTokens=16), "validation.windowTokens", "was 32, is 16"),
    "documentMasking": (lambda _: {"documentMasking": True}, "documentMasking", "was absent, is true"),
    "guard": (lambda _: {"guard": GUARD}, "guard", 'was absent, is {"maxAmendments": 2'),
    "validateEverySteps": (lambda _: {"validateEverySteps": 4}, "validateEverySteps", "was absent, is 4"),
}  # fmt: skip


def test_every_field_of_a_request_is_among_the_changes() -> None:
    names = [f.name.split("_") for f in dataclasses.fields(TrainRequest)]
    assert {n[0] + "".join(w.capitalize() for w in n[1:]) for n in names} == CHANGES.keys()


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Json, Json]:
    """A store with a phase that was stopped after step 7, its request, and the result of an undisturbed one."""
    bench = Workbench(tmp_path_factory.mktemp("undisturbed"))
    request = train_request(bench, make_plan(bench, BUDGET), BUDGET)
    folder = tmp_path_factory.mktemp("stopped")
    shutil.copytree(bench.folder, folder, dirs_exist_ok=True)
    undisturbed = bench.run("train", request)
    bench = Workbench(folder)
    bench.jobs = 100
    job = bench.job("train", request, checkpointEverySteps=2)
    beat = job.beat

    def stop(*of: Any, **more: Any) -> None:
        beat(*of, **more)
        if more.get("step") == 7:
            raise Stopped("train: told to stop (a test)")

    job.beat = stop
    with pytest.raises(Stopped):
        train.run(job)
    return folder, request, undisturbed


@pytest.fixture
def bench(stopped: tuple[Path, Json, Json], tmp_path: Path) -> Workbench:
    shutil.copytree(stopped[0], tmp_path, dirs_exist_ok=True)
    bench = Workbench(tmp_path)
    bench.jobs = 200
    return bench


def digest_of(record: Json) -> str:
    return hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()


def copy_chain(bench: Workbench, before: Json, after: Json, change: Callable[[Json], object] = lambda _: None) -> None:
    """The checkpoints of a request under the fingerprint of another, as somebody who knows the format would copy
    them: every digest is right."""
    of, to = (bench.job("train", request).fingerprint for request in (before, after))
    folder, parent = bench.folder / "store" / "checkpoints", None
    (folder / to[:2] / to).mkdir(parents=True, exist_ok=True)
    for path in sorted((folder / of[:2] / of).glob("*.json")):
        record = json.loads(path.read_bytes())
        del record["state"]["recordSha256"]
        record |= {"fingerprint": to, "parent": parent}
        change(record["state"])
        record["state"]["recordSha256"] = digest_of(record)
        data = json.dumps(record).encode()
        (folder / to[:2] / to / path.name).write_bytes(data)
        parent = hashlib.sha256(data).hexdigest()


def everything(bench: Workbench) -> dict[str, bytes | None]:
    """All that is in the store, folders too."""
    store = bench.folder / "store"
    return {str(p.relative_to(store)): p.read_bytes() if p.is_file() else None for p in store.rglob("*")}


@pytest.mark.parametrize("field", CHANGES)
def test_a_checkpoint_of_another_request_is_refused_by_the_field_and_nothing_is_touched(
    bench: Workbench, stopped: tuple[Path, Json, Json], field: str
) -> None:
    change, named, said = CHANGES[field]
    request = {**stopped[1], **change(stopped[1])}
    copy_chain(bench, stopped[1], request)
    before = everything(bench)
    with pytest.raises(BadRequest) as refused:
        bench.run("train", request, checkpointEverySteps=2)
    message = str(refused.value)
    assert f"was made for another request: {named} was " in message
    assert said in message
    assert everything(bench) == before


def test_a_copied_chain_of_the_same_request_is_taken_up(bench: Workbench, stopped: tuple[Path, Json, Json]) -> None:
    """References count by what they name: the same bytes at another place are the same request."""
    _, request, undisturbed = stopped
    shutil.copytree(bench.files / "model-0", bench.files / "elsewhere")
    moved = {**request, "start": {"kind": "model", "model": bench.ref("elsewhere/")}}
    assert moved["start"] != request["start"]
    copy_chain(bench, request, moved)
    result = bench.run("train", moved)
    assert [r["step"] for r in result["restarts"]] == [7]
    assert result["weightsSha256"] == undisturbed["weightsSha256"]


def test_records_from_before_there_was_an_identity_are_taken_up(
    bench: Workbench, stopped: tuple[Path, Json, Json]
) -> None:
    _, request, undisturbed = stopped
    copy_chain(bench, request, request, lambda state: state.pop("identity"))
    result = bench.run("train", request)
    assert [r["step"] for r in result["restarts"]] == [7]
    assert all(result[k] == undisturbed[k] for k in ("model", "checkpoint", "curve", "weightsSha256"))


@pytest.fixture(scope="module")
def processes() -> Iterator[Processes]:
    p = Processes(*IMPORTED)
    yield p
    p.close()


@pytest.mark.parametrize(
    "placement",
    [{"threads": 2}, {"batchTokens": 32}, {"checkpointEverySteps": 5}, {"processesPerNode": 2},
     {"checkpoints": {"keepLast": 5, "keepEvery": 3, "meanSecondsBetweenFailures": 60}}],
    ids=lambda p: next(iter(p)),
)  # fmt: skip
def test_another_placement_is_no_other_request(
    stopped: tuple[Path, Json, Json], tmp_path: Path, processes: Processes, placement: Json
) -> None:
    run = Run(stopped, tmp_path, processes)
    run.bench.jobs = 300
    run.placement = placement
    assert run.finish() == 0
    assert [r["step"] for r in run.result()["restarts"]] == [7]
    curves = [w.path(r["curve"]).read_text().splitlines() for w, r in ((run.bench, run.result()),)]
    assert [json.loads(line)["tokens"] for line in curves[0]] == [128 * n for n in range(1, STEPS + 1)]


def finished_phase(bench: Workbench, request: Json) -> Json:
    """The start that goes on from a phase with its optimizer."""
    return {"kind": "checkpoint", "checkpoint": bench.run("train", request)["checkpoint"], "optimizer": "keep"}


@pytest.mark.parametrize("optimizer", ["keep", "reset"])
def test_a_start_that_was_trained_with_another_tokenizer_is_refused(workbench: Workbench, optimizer: str) -> None:
    request = train_request(workbench, make_plan(workbench, BUDGET), BUDGET)
    start = {**finished_phase(workbench, request), "optimizer": optimizer}
    content = json.loads(workbench.path(request["tokenizer"]).read_bytes())
    # the same ids, written otherwise: only its digest tells it from the first
    tokenizer = workbench.files / "tiny" / "tokenizer.json"
    tokenizer.write_text(json.dumps(content, indent=1))
    another = train_request(workbench, make_plan(workbench, BUDGET), BUDGET, start=start)
    assert another["tokenizer"]["sha256"] != request["tokenizer"]["sha256"]
    with pytest.raises(BadRequest) as refused:
        workbench.run("train", another)
    for part in ("start.checkpoint", request["tokenizer"]["sha256"], another["tokenizer"]["sha256"]):
        assert part in str(refused.value)


def test_a_start_whose_moments_are_of_another_shape_is_refused_by_name(workbench: Workbench) -> None:
    request = train_request(workbench, make_plan(workbench, BUDGET), BUDGET)
    start = finished_phase(workbench, request)
    folder = workbench.files / "mixed"
    shutil.copytree(workbench.job("read", {}).store.folder(start["checkpoint"]), folder)
    make_model(workbench, 3, intermediate_size=48)
    for name in ("config.json", "model.safetensors"):
        shutil.copy(workbench.files / "model-3" / name, folder)
    start["checkpoint"] = workbench.ref("mixed/")
    with pytest.raises(
        BadRequest, match=r"m\.model\.layers\.0\.mlp\.down_proj\.weight is \(16, 32\), expected \(16, 48\)"
    ):
        workbench.run("train", {**request, "start": start})


@pytest.mark.parametrize("missing", ["state.json", "optimizer.safetensors"])
def test_a_start_that_is_no_checkpoint_of_a_phase_is_refused(workbench: Workbench, missing: str) -> None:
    request = train_request(workbench, make_plan(workbench, BUDGET), BUDGET)
    start = finished_phase(workbench, request)
    folder = workbench.files / "partial"
    shutil.copytree(workbench.job("read", {}).store.folder(start["checkpoint"]), folder)
    (folder / missing).unlink()
    start["checkpoint"] = workbench.ref("partial/")
    with pytest.raises(BadRequest, match=f"start.checkpoint has no {missing}"):
        workbench.run("train", {**request, "start": start})
