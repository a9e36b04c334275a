"""What befalls one process of several: it spikes, hangs, finds no space, fails alone or is told to leave."""

from __future__ import annotations

import json
import math
import os
import resource
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from conftest import Workbench
from safetensors.torch import load_file
from test_train_divergence import GUARD, LOADED, gibberish, loaded_model, make_poisoned
from test_train_kills import DEADLINE_SECONDS, Processes, Run
from tiny import make_plan, make_validation, train_request

from cpt_ml.amendments import Amendments, check_ledger
from cpt_ml.durable_files import sha256_file
from cpt_ml.parallel import IMPORTED
from cpt_ml.ranks import Ending, tell_ending, told_ending
from cpt_ml.store import Json
from cpt_ml.tensor_files import split_files
from cpt_ml.train_state import OPTIMIZER
from cpt_ml.weights import weights_sha256

STEPS = 12
BUDGET = 128 * STEPS
LOSS_TOLERANCE = 1e-5  # of another number of processes, relative


@pytest.fixture(scope="module")
def processes() -> Iterator[Processes]:
    p = Processes(*IMPORTED)
    yield p
    p.close()


Phase = tuple[Path, Json, dict[int, Json]]


def undisturbed(bench: Workbench, request: Json, folders: Callable[[str], Path], processes: Processes) -> Phase:
    """The folder and request of a phase, and its results on one process and on two."""
    results: dict[int, Json] = {}
    for count in (1, 2):
        run = Run((bench.folder, request, {}), folders(f"undisturbed-{count}"), processes)
        run.placement = {"checkpointEverySteps": 3, "processesPerNode": count}
        assert run.finish() == 0, end_of(run)
        results[count] = {**run.result(), "lines": curve_of(run)}
    return bench.folder, request, results


@pytest.fixture(scope="module")
def calm(tmp_path_factory: pytest.TempPathFactory, processes: Processes) -> Phase:
    bench = Workbench(tmp_path_factory.mktemp("calm"))
    request = train_request(bench, make_plan(bench, BUDGET), BUDGET)
    return undisturbed(bench, request, tmp_path_factory.mktemp, processes)


@pytest.fixture(scope="module")
def spiked(tmp_path_factory: pytest.TempPathFactory, processes: Processes) -> Phase:
    bench = Workbench(tmp_path_factory.mktemp("spiked"))
    request = make_poisoned(bench, [(gibberish(18), 5.0)])
    return undisturbed(bench, request, tmp_path_factory.mktemp, processes)


@pytest.fixture
def run(calm: Phase, tmp_path: Path, processes: Processes) -> Run:
    """A phase on two processes."""
    return on_two(calm, tmp_path, processes)


def on_two(phase: Phase, folder: Path, processes: Processes) -> Run:
    source, request, results = phase
    run = Run((source, request, results[2]), folder, processes)
    run.placement = {"checkpointEverySteps": 1, "processesPerNode": 2}
    return run


def end_of(run: Run) -> Json:
    return json.loads((run.attempts[-1].folder / "end.json").read_bytes())


def curve_of(run: Run) -> list[Json]:
    return [json.loads(line) for line in run.bench.path(run.result()["curve"]).read_text().splitlines()]


def beat_of(run: Run) -> Json:
    path = run.attempts[-1].folder / "beat.json"
    return json.loads(path.read_bytes()) if path.exists() else {}


def log_of(run: Run) -> str:
    return (run.attempts[-1].folder / "log.jsonl").read_text()


def pids_of(run: Run) -> list[int]:
    """The processes of the running attempt, by rank."""
    path = run.attempts[-1].folder / "ranks.json"
    until(path.exists)
    return json.loads(path.read_bytes())["pids"]


def until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not holds():
        assert time.monotonic() < deadline
        threading.Event().wait(0.002)


def nobody_is_left(run: Run) -> bool:
    try:
        os.killpg(json.loads((run.attempts[-1].folder / "started.json").read_bytes())["pid"], 0)
    except ProcessLookupError:
        return True
    return False


def start_with_failpoint(run: Run, point: str) -> int:
    """One attempt of which the first process that comes to the point is killed; how it ended."""
    name, *count = point.split()
    failpoints = run.bench.folder / "failpoints"
    failpoints.mkdir(exist_ok=True)
    (failpoints / name).write_text(" ".join(count))
    job = run.attempt()
    (job.folder / "request.json").write_text(json.dumps(job.spec))
    line = f"train {job.folder}/request.json {job.folder}/result.json {failpoints}"
    return run.processes.wait(run.processes.ask(line))


def checkpoint_path(run: Run, name: str) -> Path:
    """Where the next attempt writes a file of a checkpoint, which is not there yet."""
    job = run.attempts[-1]
    return job.store.backend.local(f"data/{job.fingerprint[:2]}/{job.fingerprint}/{job.token}-checkpoints/{name}")


def intact(run: Run) -> list[int]:
    """The steps of all visible checkpoints, each of whose files is there."""
    records = [json.loads(p.read_bytes()) for p in run.checkpoints]
    backend = run.attempts[-1].store.backend
    for f in (f for r in records for f in r["files"]):
        assert backend.fetch(f["path"], f["sha256"])[1] == f["sha256"]
    return [r["step"] for r in records]


def unnamed_files(run: Run) -> set[str]:
    """Files of saves that no record names."""
    store = run.bench.folder / "store"
    named = {f["path"] for p in run.checkpoints for f in json.loads(p.read_bytes())["files"]}
    there = {p.relative_to(store).as_posix() for p in store.rglob("*-checkpoints/**/*") if p.is_file()}
    return there - named


# --- the guard ---


def test_a_spiking_phase_skips_on_two_processes_what_it_skips_on_one(spiked: Phase) -> None:
    one, two = spiked[2][1], spiked[2][2]
    assert two["amendments"] == one["amendments"] != []
    same = ("step", "tokens", "skipped", "lr")
    assert [[c.get(k) for k in same] for c in two["lines"]] == [[c.get(k) for k in same] for c in one["lines"]]
    losses = [[c["loss"] for c in r["lines"] if "loss" in c] for r in (one, two)]
    assert losses[1] == pytest.approx(losses[0], rel=LOSS_TOLERANCE)
    amendments = Amendments.from_json(two["amendments"])
    trained = check_ledger(two["lines"], amendments, spiked[1]["tokenBudget"], 128)
    assert trained + amendments.tokens == spiked[1]["tokenBudget"]


@pytest.mark.parametrize("point", ["rolled-back", "amended", "checkpoint-recorded 9"])
def test_two_processes_killed_around_an_amendment_end_with_the_same_bits(
    spiked: Phase, tmp_path: Path, processes: Processes, point: str
) -> None:
    """The one that dies is whoever comes to the point first."""
    run = on_two(spiked, tmp_path, processes)
    run.placement["checkpointEverySteps"] = 3
    assert start_with_failpoint(run, point) in {1, -signal.SIGKILL}
    assert run.finish() == 0, end_of(run)
    assert run.is_undisturbed()
    assert run.result()["amendments"] == spiked[2][2]["amendments"]


def test_two_processes_told_to_stop_again_and_again_skip_the_same_window(
    spiked: Phase, tmp_path: Path, processes: Processes
) -> None:
    run = on_two(spiked, tmp_path, processes)
    for after in (19, 26):
        run.signal_when(lambda after=after: run.last_seq() >= after, signal.SIGTERM)
    assert run.finish() == 0, end_of(run)
    assert run.is_undisturbed()
    assert run.result()["amendments"] == spiked[2][2]["amendments"]


def test_a_batch_without_a_number_is_skipped_by_all_processes(tmp_path: Path, processes: Processes) -> None:
    """The bad document is in the share of one process; the other one's part of the gradient is whole."""
    bench = Workbench(tmp_path / "bench")
    request = make_poisoned(bench, [(f"the sea {LOADED} and the stones", 4.0)])
    request["start"] = {"kind": "model", "model": loaded_model(bench)}
    _, _, results = undisturbed(bench, request, lambda name: tmp_path / name, processes)
    assert results[2]["amendments"] == results[1]["amendments"] != []
    assert {a["reason"] for a in results[2]["amendments"]} == {"not-finite"}
    assert all(math.isfinite(c["loss"]) for c in results[2]["lines"] if "loss" in c)


def test_what_repeats_parks_two_processes_which_name_its_documents(tmp_path: Path, processes: Processes) -> None:
    bench = Workbench(tmp_path / "bench")
    poison = [(f"the sea {LOADED} and the stones", nll) for nll in (2.0, 3.0, 4.0, 5.0)]
    request = make_poisoned(bench, poison, start={"kind": "model", "model": loaded_model(bench)})
    run = on_two((bench.folder, request, {2: {}}), tmp_path / "run", processes)
    assert run.finish() == 95
    end = end_of(run)
    assert (end["endClass"], end["type"]) == ("diverged", "LossNotFinite")
    for part in ("at step", "poison-", f"guard.maxAmendments {GUARD['maxAmendments']}"):
        assert part in end["message"]
    assert nobody_is_left(run)


# --- standing still ---


@pytest.mark.parametrize("rank", [0, 1])
def test_a_write_that_blocks_in_one_process_is_a_hang_of_the_phase_save_which_the_stacks_explain(
    run: Run, rank: int
) -> None:
    job = run.attempt()
    pipe = checkpoint_path(run, f"000-000003/model-0000{rank}-of-00002.safetensors")
    pipe.parent.mkdir(parents=True)
    os.mkfifo(pipe)  # whoever opens it to write waits for a reader, for ever
    pid = run.processes.start(job)
    # the step after it was begun, all wait for it
    until(lambda: (beat_of(run).get("phase"), beat_of(run).get("step")) == ("save", 3))
    os.kill(pids_of(run)[rank], signal.SIGUSR1)
    until(lambda: "in write_tensors" in log_of(run) and "in finish" in log_of(run))
    assert run.phase_of_beat() == "save"
    assert intact(run) == [1, 2]
    os.killpg(pid, signal.SIGKILL)
    run.processes.wait(pid)
    pipe.unlink()
    assert run.finish() == 0
    assert run.is_undisturbed()
    assert [r["step"] for r in run.result()["restarts"]] == [2]


def test_a_halted_process_that_is_woken_and_told_to_leave_saves_with_the_others(run: Run) -> None:
    pid = run.processes.start(run.attempt())
    until(lambda: run.last_seq() >= 3)
    halted = pids_of(run)[1]
    os.kill(halted, signal.SIGSTOP)
    for number in (signal.SIGTERM, signal.SIGCONT):  # as the runner stops a job that stands still
        for member in (pid, halted):
            os.kill(member, number)
    assert run.processes.wait(pid) == 75
    assert end_of(run)["endClass"] == "stopped"
    assert run.finish() == 0
    assert run.is_undisturbed()


# --- a process that fails alone ---


@pytest.mark.parametrize("rank", [0, 1])
def test_a_disk_that_is_full_for_one_process_ends_the_job_as_full_and_keeps_the_checkpoints(
    run: Run, rank: int
) -> None:
    job = run.attempt()
    full = checkpoint_path(run, f"000-000003/optimizer-0000{rank}-of-00002.safetensors")
    full.parent.mkdir(parents=True)
    full.symlink_to("/dev/full")
    assert run.processes.wait(run.processes.start(job)) == 1
    end = end_of(run)
    assert (end["endClass"], end["type"]) == ("failed", "DiskFull")
    assert "No space left on device" in end["message"]
    assert str(full.parent) in end["message"]
    assert ("rank 1" in end["message"]) == (rank == 1)
    assert nobody_is_left(run)
    assert intact(run) == [1, 2]
    assert unnamed_files(run) == set()
    assert run.finish() == 0
    assert run.is_undisturbed()
    assert [r["step"] for r in run.result()["restarts"]] == [2]


def test_a_process_that_can_write_nothing_at_all_has_the_others_say_so(run: Run) -> None:
    """Not even the word that it leaves of its end, nor a line of the log."""
    pid = run.processes.start(run.attempt())
    until(lambda: run.last_seq() >= 2)
    resource.prlimit(pids_of(run)[1], resource.RLIMIT_FSIZE, (0, 0))
    assert run.processes.wait(pid) == 1
    end = end_of(run)
    assert (end["endClass"], end["type"]) == ("failed", "DiskFull")
    assert "rank 1: OSError: [Errno 27] File too large" in end["message"]
    assert nobody_is_left(run)
    assert unnamed_files(run) == set()
    assert run.finish() == 0
    assert run.is_undisturbed()


def test_a_stale_attempt_of_two_processes_publishes_nothing_and_all_of_it_leaves(run: Run) -> None:
    """Rank 0 alone looks for a newer claim, and the other one waits for what it commits."""
    pid = run.processes.start(run.attempt())
    until(lambda: run.last_seq() >= 2)
    fingerprint = run.attempts[-1].fingerprint
    claim = run.bench.folder / "store" / "claims" / fingerprint[:2] / fingerprint / "0" / "2.json"
    claim.parent.mkdir(parents=True)
    claim.write_text("{}")
    assert run.processes.wait(pid) == 94
    assert end_of(run)["message"] == "train: attempt 2 exists, this one is 1"
    assert nobody_is_left(run)
    assert run.last_seq() < STEPS


def test_a_damaged_token_shard_is_told_by_its_name_whoever_looks_at_it(run: Run) -> None:
    """Each process verifies its share of the shards."""
    store = run.bench.folder / "store"
    for number, path in enumerate(sorted(store.rglob("tokens-*.u32"))):
        good = path.read_bytes()
        path.write_bytes(bytes([good[0] ^ 1]) + good[1:])
        assert run.finish() == 65
        end = end_of(run)
        assert (end["endClass"], end["type"]) == ("bad-data", "StoreCorrupt")
        assert f"tokens-{number}.u32" in end["message"]
        assert nobody_is_left(run)
        path.write_bytes(good)
    assert run.finish() == 0
    assert run.is_undisturbed()


def test_of_ranks_that_others_started_the_one_that_tells_its_cause_is_believed(tmp_path: Path) -> None:
    assert told_ending(tmp_path, 4, 0) is None
    tell_ending(tmp_path, 1, Ending("failed", "JobEnded", "connection closed by peer", 1, lost=True))
    assert told_ending(tmp_path, 4, 0) is None
    cause = Ending("bad-data", "StoreCorrupt", "a shard is damaged", 65)
    telling = threading.Timer(0.2, tell_ending, (tmp_path, 3, cause))
    telling.start()
    assert told_ending(tmp_path, 4, DEADLINE_SECONDS) == cause
    telling.join()


# --- what a phase leaves, in many files ---


def leave_small_files(run: Run) -> list[list[str]]:
    """One attempt that leaves files of at most 3000 bytes; the names of those that each process wrote, by rank."""
    job = run.attempt()
    assert run.processes.wait(run.processes.start(job, setup="small_files:3000")) == 0
    return [(job.folder / f"written-{rank}").read_text().split() for rank in (0, 1)]


def test_processes_take_turns_at_the_files_that_a_phase_leaves(run: Run) -> None:
    written = leave_small_files(run)
    job, result = run.attempts[-1], run.result()
    record = job.store.record(job.fingerprint)
    names = [f["name"] for f in record["files"]]
    for stem in ("model/model-", "checkpoint/optimizer-"):
        found = [n for n in names if n.startswith(stem)]
        assert len(found) > 4
        assert [[n for n in of if n.startswith(stem)] for of in written] == [found[0::2], found[1::2]]
    for entry in record["files"]:
        assert sha256_file(job.store.backend.local(entry["path"])) == entry["sha256"], entry["name"]
    folders = [job.store.folder(result[name]) for name in ("model", "checkpoint")]
    assert result["weightsSha256"] == run.undisturbed["weightsSha256"]
    assert [weights_sha256(f) for f in folders] == [result["weightsSha256"]] * 2
    kept = folders[1]
    forget_commits(run)
    assert run.finish() == 0
    assert run.is_undisturbed()
    whole = run.attempts[-1].store.folder(run.result()["checkpoint"])
    moments = [{n: t for p in split_files(f, OPTIMIZER) for n, t in load_file(p).items()} for f in (kept, whole)]
    assert moments[0].keys() == moments[1].keys()
    assert all(torch.equal(moments[0][n], moments[1][n]) for n in moments[0])


@pytest.mark.parametrize("rank", [0, 1])
def test_a_disk_that_is_full_for_one_process_at_a_phases_end_is_told_by_all_and_costs_no_training(
    run: Run, rank: int
) -> None:
    name = next(n for n in leave_small_files(run)[rank] if n.startswith("checkpoint/optimizer-"))
    forget_commits(run)
    job = run.attempt()
    full = job.attempt().path(name)
    full.symlink_to("/dev/full")
    assert run.processes.wait(run.processes.start(job, setup="small_files:3000")) == 1
    end = end_of(run)
    assert (end["endClass"], end["type"]) == ("failed", "DiskFull")
    assert str(full) in end["message"]
    assert ("rank 1" in end["message"]) == (rank == 1)
    assert nobody_is_left(run)
    assert run.finish() == 0
    assert [r["step"] for r in run.result()["restarts"]] == [STEPS]
    assert run.is_undisturbed()


def forget_commits(run: Run) -> None:
    """The phase is at its last checkpoint, and has left nothing yet."""
    fingerprint = run.attempts[-1].fingerprint
    (run.bench.folder / "store" / "commits" / fingerprint[:2] / f"{fingerprint}.json").unlink()


def check_against_anew(run: Run) -> None:
    """The phase has ended with what an attempt ends with that finds nothing of it and that nobody disturbs."""
    kept = ("model", "checkpoint", "curve", "weightsSha256", "finalLoss", "measurement")
    found, fingerprint = run.result(), run.attempts[-1].fingerprint
    for folder in ("commits", "checkpoints"):
        for path in (run.bench.folder / "store" / folder / fingerprint[:2]).rglob("*.json"):
            path.unlink()
    assert run.finish() == 0
    assert {k: run.result()[k] for k in kept} == {k: found[k] for k in kept}


# --- told to leave at an awkward moment ---


def signal_while(run: Run, awkward: Callable[[], bool], number: int, victim: int) -> int:
    """Starts an attempt, halts all of it while the condition holds, and signals one process before they go on."""
    pid = run.processes.start(run.attempt())
    members = pids_of(run)
    end = run.attempts[-1].folder / "end.json"
    while True:
        until(lambda: awkward() or end.exists())
        assert not end.exists(), end_of(run)
        for member in members:
            os.kill(member, signal.SIGSTOP)
        until(lambda: all(is_halted(m) for m in members))
        if held := awkward():
            os.kill(members[victim], number)
        for member in members:
            os.kill(member, signal.SIGCONT)
        if held:
            return run.processes.wait(pid)


def is_halted(pid: int) -> bool:
    """Whether all threads of a process stand."""
    tasks = Path(f"/proc/{pid}/task").glob("*/stat")
    return all(t.read_text().rsplit(")", 1)[1].split()[0] == "T" for t in tasks)


@pytest.mark.parametrize(("number", "victim"), [(signal.SIGTERM, 0), (signal.SIGUSR2, 1)])
def test_two_processes_told_to_leave_while_a_save_is_in_flight_commit_it_and_go_on_from_there(
    run: Run, number: int, victim: int
) -> None:
    before = 0

    def in_flight() -> bool:
        nonlocal before
        before = run.last_seq()
        return before >= 2 and run.saving()

    assert signal_while(run, in_flight, number, victim) == 75
    end, tip = end_of(run), json.loads(run.checkpoints[-1].read_bytes())
    assert (end["endClass"], end["type"]) == ("stopped", "Stopped")
    assert end["progressTokens"] == tip["tokens"] == 128 * tip["step"]
    assert tip["seq"] > before
    assert unnamed_files(run) == set()
    assert run.finish() == 0
    assert run.is_undisturbed()


@pytest.mark.parametrize("save_every", [1, 100], ids=["saved-before", "first-save"])
def test_two_processes_told_to_leave_while_they_validate_on_their_way_save_what_they_trained(
    run: Run, save_every: int
) -> None:
    sets = make_validation(run.bench, 100)
    run.request = {**run.request, "validation": {**run.request["validation"], "sets": sets}, "validateEverySteps": 3}
    run.placement |= {"batchTokens": 64, "checkpointEverySteps": save_every}
    assert signal_while(run, lambda: run.phase_of_beat() == "validate", signal.SIGUSR2, 1) == 75, end_of(run)
    assert end_of(run)["endClass"] == "stopped"
    assert json.loads(run.checkpoints[-1].read_bytes())["step"] == 3
    assert run.finish() == 0
    assert [r["step"] for r in run.result()["restarts"]] == [3]
    check_against_anew(run)


def test_two_processes_told_to_leave_while_they_validate_do_not_train_again(run: Run) -> None:
    run.request = {**run.request, "validation": {**run.request["validation"], "sets": make_validation(run.bench, 100)}}
    run.placement["batchTokens"] = 64
    assert signal_while(run, lambda: run.phase_of_beat() == "validate", signal.SIGTERM, 1) == 75
    assert end_of(run)["endClass"] == "stopped"
    assert run.last_seq() == STEPS
    records = [p.read_bytes() for p in run.checkpoints]
    assert run.finish() == 0
    assert [p.read_bytes() for p in run.checkpoints] == records
    check_against_anew(run)
