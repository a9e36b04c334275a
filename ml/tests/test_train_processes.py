"""One phase over several real processes: what they compute, how they are stopped and killed, and another number."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from conftest import Workbench
from test_train_kills import Processes, Run
from tiny import make_plan, train_request

from cpt_ml.parallel import IMPORTED
from cpt_ml.store import Json

STEPS = 12
BUDGET = 128 * STEPS
LOSS_TOLERANCE = 1e-5  # of another number of processes, relative: sums in another order, 12 steps of a tiny model


@pytest.fixture(scope="module")
def processes() -> Iterator[Processes]:
    p = Processes(*IMPORTED)
    yield p
    p.close()


World = tuple[Path, Json, dict[int, Run]]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory, processes: Processes) -> World:
    """A store with a plan, the request of a phase, and the phase undisturbed on one, two and three processes."""
    bench = Workbench(tmp_path_factory.mktemp("world"))
    request = train_request(bench, make_plan(bench, BUDGET), BUDGET)
    undisturbed: dict[int, Run] = {}
    for count in (1, 2, 3):
        run = Run((bench.folder, request, {}), tmp_path_factory.mktemp(f"undisturbed-{count}"), processes)
        run.placement = {"checkpointEverySteps": 4, "processesPerNode": count}
        assert run.finish() == 0, log_of(run)
        undisturbed[count] = run
    return bench.folder, request, undisturbed


@pytest.fixture
def run(world: World, tmp_path: Path, processes: Processes) -> Run:
    """A phase on two processes, to be compared with the undisturbed one on two."""
    folder, request, undisturbed = world
    run = Run((folder, request, undisturbed[2].result()), tmp_path, processes)
    run.placement = {"checkpointEverySteps": 1, "processesPerNode": 2}
    return run


def log_of(run: Run) -> str:
    return (run.attempts[-1].folder / "end.json").read_text()


def end_of(run: Run) -> Json:
    return json.loads((run.attempts[-1].folder / "end.json").read_bytes())


def curve_of(run: Run) -> list[Json]:
    return [json.loads(line) for line in run.bench.path(run.result()["curve"]).read_text().splitlines()]


def rank_pid(run: Run, rank: int) -> int:
    return json.loads((run.attempts[-1].folder / "ranks.json").read_bytes())["pids"][rank]


def start_and_signal(run: Run, rank: int, number: int, after: int) -> int:
    """Starts an attempt and sends a rank of it a signal once there are so many checkpoints; how rank 0 ended."""
    pid = run.processes.start(run.attempt())
    end = run.attempts[-1].folder / "end.json"
    while run.last_seq() < after and not end.exists():
        os.sched_yield()
    os.kill(rank_pid(run, rank), number)
    return run.processes.wait(pid)


@pytest.mark.parametrize("count", [2, 3])
def test_several_processes_have_the_losses_gradients_and_validation_of_one(world: World, count: int) -> None:
    """8 sequences on 3 processes are 3, 3 and 2: shared unevenly, and still no mean of means."""
    one, several = world[2][1], world[2][count]
    expected, found = curve_of(one), curve_of(several)
    assert [c["tokens"] for c in found] == [c["tokens"] for c in expected]
    assert [c["loss"] for c in found] == pytest.approx([c["loss"] for c in expected], rel=LOSS_TOLERANCE)
    assert [c["gradNorm"] for c in found] == pytest.approx([c["gradNorm"] for c in expected], rel=1e-4)
    tables = [pq.read_table(r.bench.path(r.result()["measurement"]["perDoc"])) for r in (one, several)]
    assert tables[0].drop(["nll_sum"]) == tables[1].drop(["nll_sum"])
    assert tables[1]["nll_sum"].to_pylist() == pytest.approx(tables[0]["nll_sum"].to_pylist(), rel=LOSS_TOLERANCE)


@pytest.mark.parametrize("count", [1, 2])
def test_perplexity_in_bfloat16_is_that_of_evaluate_perplexity_on_one_process_and_on_two(run: Run, count: int) -> None:
    run.request = {**run.request, "dtype": "bfloat16"}
    run.placement = {"checkpointEverySteps": 4, "processesPerNode": count}
    assert run.finish() == 0, log_of(run)
    result, validation = run.result(), run.request["validation"]
    own = pq.read_table(run.bench.path(result["measurement"]["perDoc"]))
    found: dict[str, Json] = {}
    for dtype in ("bfloat16", "float32"):
        asked = {"model": result["model"], "validation": validation, "dtype": dtype}
        found[dtype] = run.bench.run("evaluate-perplexity", asked)["measurement"]
    assert pq.read_table(run.bench.path(found["bfloat16"]["perDoc"])) == own
    assert pq.read_table(run.bench.path(found["float32"]["perDoc"]))["nll_sum"] != own["nll_sum"]
    assert result["measurement"]["strata"] == found["bfloat16"]["strata"]


def test_micro_batches_that_some_processes_lack_change_nothing(world: World, run: Run) -> None:
    """Of 8 sequences 3 processes have 3, 3 and 2: with 1 at a time the last one's third weighs nothing."""
    run.placement = {"checkpointEverySteps": 4, "processesPerNode": 3, "batchTokens": 16}
    assert run.finish() == 0
    expected = [c["loss"] for c in curve_of(world[2][1])]
    assert [c["loss"] for c in curve_of(run)] == pytest.approx(expected, rel=LOSS_TOLERANCE)


def test_two_replicas_of_two_shards_have_the_losses_of_one_process(world: World, run: Run) -> None:
    run.placement = {"checkpointEverySteps": 4, "processesPerNode": 4, "replicas": 2, "batchTokens": 16}
    assert run.finish() == 0, log_of(run)
    expected, found = curve_of(world[2][1]), curve_of(run)
    assert [c["loss"] for c in found] == pytest.approx([c["loss"] for c in expected], rel=LOSS_TOLERANCE)
    assert [c["gradNorm"] for c in found] == pytest.approx([c["gradNorm"] for c in expected], rel=1e-4)
    names = {f["name"] for f in json.loads(run.checkpoints[-1].read_bytes())["files"] if "curve" not in f["name"]}
    assert names == {f"{n}-0000{i}-of-00002.safetensors" for n in ("model", "optimizer") for i in (0, 1)}


def test_two_processes_killed_again_and_again_end_with_the_same_weights_and_curve(run: Run) -> None:
    for rank, after in ((0, 1), (1, 2), (1, 5), (0, 9)):
        start_and_signal(run, rank, signal.SIGKILL, after)
    assert run.finish() == 0
    assert run.is_undisturbed()
    assert len(run.result()["restarts"]) == 4


def test_a_killed_rank_ends_the_attempt_which_says_what_happened(run: Run) -> None:
    start_and_signal(run, 1, signal.SIGKILL, 3)
    end = end_of(run)
    assert (end["endClass"], end["signal"]) == ("killed", "SIGKILL")
    assert end["message"].startswith("rank 1 (process ")
    with pytest.raises(ProcessLookupError):
        os.killpg(rank_pid(run, 0), 0)


@pytest.mark.parametrize("rank", [0, 1])
def test_a_signal_to_any_rank_has_all_save_and_leave(run: Run, rank: int) -> None:
    assert start_and_signal(run, rank, signal.SIGTERM, 3) == 75
    end, tip = end_of(run), json.loads(run.checkpoints[-1].read_bytes())
    assert end["endClass"] == "stopped"
    assert end["progressTokens"] == tip["tokens"] == 128 * tip["step"]
    assert run.finish() == 0
    assert run.is_undisturbed()


def test_two_processes_pause_at_their_next_checkpoint(run: Run) -> None:
    job = run.attempt()
    (job.folder / "pause").touch()
    assert run.processes.wait(run.processes.start(job)) == 75
    assert (end_of(run)["type"], run.last_seq()) == ("Paused", 1)


def test_a_damaged_part_costs_one_checkpoint(run: Run) -> None:
    start_and_signal(run, 0, signal.SIGTERM, 3)
    before, tip = (json.loads(p.read_bytes()) for p in run.checkpoints[-2:])
    damaged = run.bench.folder / "store" / next(f["path"] for f in tip["files"] if "00001-of" in f["name"])
    damaged.write_bytes(damaged.read_bytes()[:-1])
    assert run.finish() == 0
    assert run.is_undisturbed()
    assert [r["step"] for r in run.result()["restarts"]] == [before["step"]]


def test_one_two_one_processes_keep_the_order_of_tokens_and_the_losses(world: World, run: Run) -> None:
    for count, after in ((1, 3), (2, 7)):
        run.placement = {"checkpointEverySteps": 1, "processesPerNode": count}
        start_and_signal(run, 0, signal.SIGTERM, after) if count > 1 else run.signal_when(
            lambda after=after: run.last_seq() >= after, signal.SIGTERM
        )
    run.placement = {"checkpointEverySteps": 1}
    assert run.finish() == 0
    expected, found = curve_of(world[2][1]), curve_of(run)
    assert [(c["step"], c["tokens"], c["lr"]) for c in found] == [(c["step"], c["tokens"], c["lr"]) for c in expected]
    assert [c["loss"] for c in found] == pytest.approx([c["loss"] for c in expected], rel=LOSS_TOLERANCE)
    numerics = json.loads(run.checkpoints[-1].read_bytes())["state"]["numerics"]
    assert [n.get("processes", 1) for n in numerics] == [1, 2, 1]
    assert numerics[0]["fromStep"] == 0 < numerics[1]["fromStep"] < numerics[2]["fromStep"] < STEPS


def test_more_processes_than_can_be_shared_into_replicas_are_refused(run: Run) -> None:
    run.placement = {"processesPerNode": 3, "replicas": 2}
    assert run.finish() == 78
    assert "placement.replicas 2 does not divide the 3 processes" in end_of(run)["message"]
