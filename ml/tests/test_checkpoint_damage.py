"""No damaged checkpoint is ever loaded: every cut of every file, hundreds of corruptions, kills within saves."""

from __future__ import annotations

import json
import random
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import Workbench
from damage import DAMAGES, Chain, cut, lengths
from test_train_kills import Processes
from tiny import make_plan, train_request

from cpt_ml.checkpoint_chain import CheckpointChain
from cpt_ml.job import Job
from cpt_ml.store import Json

STEPS = 16
BUDGET = 128 * STEPS
GUARD = {"windowSteps": 8, "spikeZ": 50.0, "minRise": 5.0, "skipSteps": 4, "maxAmendments": 2}
CORRUPTIONS = 350
SAME = ("model", "checkpoint", "curve", "weightsSha256", "finalLoss", "measurement")


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Json, Json]:
    """A store with a phase that ended right before its commit, four checkpoints left; its request and result."""
    bench = Workbench(tmp_path_factory.mktemp("chain"))
    request = {**train_request(bench, make_plan(bench, BUDGET), BUDGET), "guard": GUARD}
    result = bench.run("train", request, checkpointEverySteps=2)
    of = bench.job("train", request).fingerprint
    (bench.folder / "store" / "commits" / of[:2] / f"{of}.json").unlink()
    return bench.folder, request, result


class Stand:
    """A copy of the finished phase."""

    def __init__(self, finished: tuple[Path, Json, Json], folder: Path) -> None:
        source, self.request, self.undisturbed = finished
        shutil.copytree(source, folder, dirs_exist_ok=True)
        self.bench = Workbench(folder)
        self.bench.jobs = 100
        self.store = folder / "store"

    def job(self) -> Job:
        return self.bench.job("train", self.request, checkpointEverySteps=2)

    def chain(self) -> Chain:
        of = self.job().fingerprint
        return Chain(self.store, sorted((self.store / "checkpoints" / of[:2] / of).glob("*.json")))

    def is_undisturbed(self, result: Json) -> bool:
        return all(result[k] == self.undisturbed[k] for k in SAME)


@pytest.fixture
def stand(finished: tuple[Path, Json, Json], tmp_path: Path) -> Stand:
    return Stand(finished, tmp_path)


def put_back(chain: Chain, before: dict[Path, bytes]) -> None:
    for path in chain.records[-1].parent.iterdir():
        if path not in before:
            path.unlink()
    for path, data in before.items():
        if path.is_dir():
            path.rmdir()
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)


def resumed_name(stand: Stand) -> str | None:
    """Which checkpoint a job takes up, by the name of its record."""
    tip = CheckpointChain(stand.job()).resume()
    return None if tip is None else f"{tip.record['branch']:03d}-{tip.record['seq']:06d}.json"


def newest(intact: list[Path]) -> str | None:
    return intact[-1].name if intact else None


def test_every_length_that_a_file_of_the_tip_can_be_cut_to_costs_one_checkpoint(
    stand: Stand, capfd: pytest.CaptureFixture[str]
) -> None:
    chain = stand.chain()
    before = chain.snapshot()
    tip, parent = chain.records[-1], chain.records[-2]
    only = set(chain.files(tip)) - set(chain.files(parent))
    cuts = 0
    for path in sorted((tip, *only)):
        for length in lengths(len(before[path])):
            cut(path, length)
            capfd.readouterr()
            assert resumed_name(stand) == parent.name, (path.name, length)
            assert path.name in capfd.readouterr().err
            put_back(chain, before)
            cuts += 1
    assert cuts > 50
    assert resumed_name(stand) == tip.name


def test_of_hundreds_of_corruptions_none_is_loaded(stand: Stand, capfd: pytest.CaptureFixture[str]) -> None:
    chain = stand.chain()
    assert len(chain.records) >= 3
    before = chain.snapshot()
    fallen: dict[str | None, int] = {}
    for seed in range(CORRUPTIONS):
        rng = random.Random(seed)
        does = DAMAGES[seed % len(DAMAGES)]
        capfd.readouterr()
        what = does(chain, rng)
        intact = chain.intact(before)
        name = resumed_name(stand)
        assert name == newest(intact), (seed, does.__name__, what)
        if name != chain.records[-1].name:
            assert "checkpoint-damaged" in capfd.readouterr().err or not chain.records[-1].exists(), (seed, what)
        fallen[name] = fallen.get(name, 0) + 1
        put_back(chain, before)
    assert fallen[chain.records[-1].name] < CORRUPTIONS
    assert len(fallen) >= 3


@pytest.mark.parametrize("seed", range(6))
def test_after_any_corruption_the_phase_ends_with_the_same_bits(stand: Stand, seed: int) -> None:
    rng = random.Random(f"whole {seed}")
    for does in rng.sample(DAMAGES, 2):
        chain = stand.chain()
        chain = Chain(stand.store, [r for r in chain.records if is_readable(chain, r)])
        if len(chain.records) >= 2:
            does(chain, rng)
    result = stand.bench.run("train", stand.request, checkpointEverySteps=2)
    assert stand.is_undisturbed(result)


def is_readable(chain: Chain, record: Path) -> bool:
    try:
        return all(p.is_file() and p.stat().st_size for p in chain.files(record))
    except (ValueError, KeyError, TypeError):
        return False


def test_a_checker_that_does_not_look_at_digests_would_be_caught(stand: Stand, monkeypatch: pytest.MonkeyPatch) -> None:
    chain = stand.chain()
    before = chain.snapshot()

    def looks_fine(_chain: CheckpointChain, _checkpoint: object) -> None:
        return None

    monkeypatch.setattr(CheckpointChain, "_damage", looks_fine)
    wrong = 0
    for seed in range(48):
        DAMAGES[seed % len(DAMAGES)](chain, random.Random(seed))
        wrong += resumed_name(stand) != newest(chain.intact(before))
        put_back(chain, before)
    assert wrong > 5


def save_failpoints() -> list[str]:
    """Every failpoint on the way of a save, read from the code so that none is forgotten."""
    package = Path(__file__).parents[1] / "cpt_ml"
    names = {n for p in package.glob("*.py") for n in re.findall(r'failpoint\("([a-z-]+)"\)', p.read_text())}
    return sorted(n for n in names if n.startswith("checkpoint-"))


def test_the_failpoints_of_a_save_are_found() -> None:
    assert {"checkpoint-begun", "checkpoint-files", "checkpoint-written", "checkpoint-recorded"} <= set(
        save_failpoints()
    )


@pytest.fixture(scope="module")
def processes() -> Iterator[Processes]:
    p = Processes()
    yield p
    p.close()


@pytest.mark.parametrize("at", [1, 4])
@pytest.mark.parametrize("point", save_failpoints())
def test_a_job_killed_at_any_step_of_a_save_goes_on_with_the_same_bits_and_leaves_nothing(
    stand: Stand, processes: Processes, point: str, at: int
) -> None:
    for record in stand.chain().records:
        record.unlink()
    foreign = [
        stand.store / "data" / "aa" / ("a" * 64) / "attempt-0001-checkpoints" / "000-000001" / "model.safetensors",
        stand.store / "data" / stand.job().fingerprint[:2] / stand.job().fingerprint / "another" / "kept.json",
        stand.store / "checkpoints" / "aa" / ("a" * 64) / "000-000001.json",
    ]
    for path in foreign:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"another's")
    failpoints = stand.bench.folder / "failpoints"
    failpoints.mkdir()
    (failpoints / point).write_text(str(at))
    codes: list[int] = []
    for _ in range(2):
        job = stand.job()
        (job.folder / "request.json").write_text(json.dumps(job.spec))
        codes.append(
            processes.wait(processes.ask(f"train {job.folder}/request.json {job.folder}/result.json {failpoints}"))
        )
    assert codes == [-9, 0]
    job = stand.job()
    assert stand.is_undisturbed(job.store.record(job.fingerprint)["result"])
    assert all(path.read_bytes() == b"another's" for path in foreign)
    chain = stand.chain()
    named = {p for r in chain.records for p in chain.files(r)}
    of = job.fingerprint
    found = {p for p in (stand.store / "data" / of[:2] / of).glob("*-checkpoints/**/*") if p.is_file()}
    assert found == named


def test_what_looks_like_debris_but_points_elsewhere_costs_the_link_alone(stand: Stand, tmp_path: Path) -> None:
    outside = tmp_path / "elsewhere.safetensors"
    outside.write_bytes(b"not ours")
    of = stand.job().fingerprint
    link = stand.store / "data" / of[:2] / of / "attempt-0099-checkpoints" / "000-000009" / "model.safetensors"
    link.parent.mkdir(parents=True)
    link.symlink_to(outside)
    assert stand.is_undisturbed(stand.bench.run("train", stand.request, checkpointEverySteps=2))
    assert outside.read_bytes() == b"not ours"
