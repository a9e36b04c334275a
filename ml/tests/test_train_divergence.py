"""What is poison to a training: documents and weights that really give NaN and spikes, and what becomes of them."""

from __future__ import annotations

import json
import math
import random
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import Workbench
from test_train_kills import Processes
from tiny import Doc, make_docs, make_model, make_pool, make_tokenizer, plan_request, stratum, train_request

from cpt_ml import train
from cpt_ml.amendments import Amendment, Amendments, check_ledger
from cpt_ml.divergence import GuardSettings, LossWatch
from cpt_ml.errors import BadData, BadRequest, Diverged, Stopped
from cpt_ml.job import Job
from cpt_ml.store import Json

STEPS = 40
BUDGET = 128 * STEPS
GUARD = {"windowSteps": 8, "spikeZ": 6.0, "minRise": 0.5, "skipSteps": 4, "maxAmendments": 2}
# a character that no other document has; its embedding is finite, but too large for the gradient of its square
LOADED = "~"


def gibberish(words: int) -> str:
    rng = random.Random(3)
    return " ".join("".join(rng.choices("qzxjkQZXJK0123456789%&#@!?", k=6)) for _ in range(words))


def make_poisoned(bench: Workbench, poison: list[tuple[str, float]], **more: Any) -> Json:
    """A train request over English documents with poison among them: texts, and where in the order (nll) they stand."""
    docs = [Doc(f"poison-{i}", text, "en", "web", "Others", nll) for i, (text, nll) in enumerate(poison)]
    pool = make_pool(bench, [*make_docs("en", "web", 90, "Others"), *docs])
    strata = [stratum("en", "web", 1.0, "Others")]
    plan = bench.run("sample-mixture", plan_request(bench, [pool], strata, BUDGET))["plan"]
    schedule = {"shape": "constant", "peakLr": 2e-2, "warmupTokens": 128}
    return {**train_request(bench, plan, BUDGET, schedule=schedule), "guard": GUARD, **more}


def loaded_model(bench: Workbench) -> Json:
    """A model whose embedding of LOADED overflows the gradient of RMSNorm; every weight is a number."""
    from safetensors.torch import load_file, save_file  # noqa: PLC0415
    from tokenizers import Tokenizer  # noqa: PLC0415

    make_model(bench, 7, tie_word_embeddings=False)
    tokenizer: Any = Tokenizer.from_file(str(bench.path(make_tokenizer(bench))))
    path = bench.files / "model-7" / "model.safetensors"
    tensors = load_file(path)
    tensors["model.embed_tokens.weight"][tokenizer.encode(LOADED).ids] = 3e38
    save_file(tensors, path, {"format": "pt"})
    return bench.ref("model-7/")


def curve_of(bench: Workbench, result: Json) -> list[Json]:
    return [json.loads(line) for line in bench.path(result["curve"]).read_text().splitlines()]


def records_of(bench: Workbench, job: Job) -> list[Json]:
    folder = bench.folder / "store" / "checkpoints" / job.fingerprint[:2] / job.fingerprint
    return [json.loads(p.read_bytes()) for p in sorted(folder.glob("*.json"))]


@pytest.fixture(scope="module")
def spiked(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Json, Json]:
    """A store with a phase over one document of gibberish; its request and result with checkpoints every 3 steps."""
    bench = Workbench(tmp_path_factory.mktemp("spiked"))
    request = make_poisoned(bench, [(gibberish(18), 5.0)])
    pristine = bench.folder.with_name("pristine")
    shutil.copytree(bench.folder, pristine)
    return pristine, request, bench.run("train", request, checkpointEverySteps=3)


@pytest.fixture
def copy(spiked: tuple[Path, Json, Json], tmp_path: Path) -> Workbench:
    shutil.copytree(spiked[0], tmp_path, dirs_exist_ok=True)
    bench = Workbench(tmp_path)
    bench.jobs = 100
    return bench


SAME = ("model", "checkpoint", "curve", "weightsSha256", "amendments", "finalLoss", "measurement")


def is_same(a: Json, b: Json) -> bool:
    return all(a[k] == b[k] for k in SAME)


def test_a_spike_is_rolled_back_and_its_window_skipped(spiked: tuple[Path, Json, Json]) -> None:
    path, _, result = spiked
    bench = Workbench(path.with_name("spiked0"))
    bench.jobs = 100
    curve = curve_of(bench, result)
    (amendment, *_) = result["amendments"]
    step = amendment["step"]
    assert amendment == {
        "fromToken": 128 * (step - 4), "toToken": 128 * step, "reason": "spike", "step": step,
    }  # fmt: skip
    assert [c["step"] for c in curve if "skipped" in c][:4] == list(range(step - 3, step + 1))
    assert (result["tokens"], result["steps"], len(curve)) == (BUDGET, STEPS, STEPS)
    assert result["finalLoss"] == curve[-1]["loss"]
    settings = GuardSettings(8, 6.0, 0.5, 4, 2)
    trained = check_ledger(curve, Amendments.from_json(result["amendments"]), BUDGET, 128)
    assert trained + sum(a["toToken"] - a["fromToken"] for a in result["amendments"]) == BUDGET
    watch = LossWatch(settings)
    for line in curve:
        if "loss" in line:
            assert watch.judge(line["loss"], line["gradNorm"]) is None
            watch.took(line["loss"])


def test_what_a_phase_skipped_stands_in_the_checkpoints_of_all_later_phases(
    copy: Workbench, spiked: tuple[Path, Json, Json]
) -> None:
    first = copy.run("train", spiked[1], checkpointEverySteps=40)
    start = {"kind": "checkpoint", "checkpoint": first["checkpoint"], "optimizer": "keep"}
    calm = {k: v for k, v in spiked[1].items() if k != "guard"}
    second = copy.run("train", {**calm, "start": start})
    assert "amendments" not in second
    folder = copy.job("read", second).store.folder(second["checkpoint"])
    plan = spiked[1]["plan"]["sha256"]
    expected = [{"planSha256": plan, **a} for a in first["amendments"]]
    assert json.loads((folder / "state.json").read_text())["amendments"] == expected


@pytest.mark.parametrize("every", [1, 2, 7, 40])
def test_where_checkpoints_lie_does_not_change_what_is_skipped(
    copy: Workbench, spiked: tuple[Path, Json, Json], every: int
) -> None:
    assert is_same(copy.run("train", spiked[1], checkpointEverySteps=every), spiked[2])


def test_the_state_after_the_skip_is_the_one_before_the_window(
    copy: Workbench, spiked: tuple[Path, Json, Json]
) -> None:
    first = spiked[2]["amendments"][0]
    job = copy.job("train", spiked[1], checkpointEverySteps=1)
    saved: dict[int, list[str]] = {}
    log = job.log

    def after_each(event: str, **fields: Any) -> None:
        log(event, **fields)
        if event == "checkpoint":
            tip = records_of(copy, job)[-1]
            digests = [f["sha256"] for f in tip["files"] if f["name"] in {"model.safetensors", "optimizer.safetensors"}]
            saved.setdefault(tip["tokens"], []).extend(digests)

    job.log = after_each
    train.run(job)
    before, after = saved[first["fromToken"]], saved[first["toToken"]]
    assert after[:2] == before[:2]
    assert records_of(copy, job)[-1]["state"]["amendments"] == spiked[2]["amendments"]


def test_only_checkpoints_that_a_rollback_may_need_are_kept_beside_the_last_two(
    copy: Workbench, spiked: tuple[Path, Json, Json]
) -> None:
    job = copy.job("train", spiked[1], checkpointEverySteps=1)
    kept: list[list[Json]] = []
    log = job.log

    def after_each(event: str, **fields: Any) -> None:
        log(event, **fields)
        if event == "checkpoint":
            kept.append(records_of(copy, job))

    job.log = after_each
    train.run(job)
    assert max(map(len, kept)) <= 4
    for records in kept:
        # a window begins where the last one ended, or as far before the spike as it may
        skipped = max((a["fromToken"] for a in records[-1]["state"]["amendments"]), default=0)
        assert min(r["tokens"] for r in records) <= max(skipped, records[-1]["tokens"] - 128 * GUARD["skipSteps"])


def test_a_batch_without_a_number_is_skipped_and_the_weights_stay_whole(workbench: Workbench) -> None:
    request = make_poisoned(workbench, [(f"the sea {LOADED} and the stones", 4.0)])
    request["start"] = {"kind": "model", "model": loaded_model(workbench)}
    with pytest.raises(Diverged, match=r"gradient norm nan at step \d+ \(tokens"):
        workbench.run("train", {k: v for k, v in request.items() if k != "guard"})
    result = workbench.run("train", request, checkpointEverySteps=3)
    curve = curve_of(workbench, result)
    assert {a["reason"] for a in result["amendments"]} == {"not-finite"}
    for a in result["amendments"]:
        assert (a["fromToken"], a["toToken"]) == (128 * (a["step"] - 1), 128 * a["step"])
        assert curve[a["step"] - 1] == {"step": a["step"], "tokens": a["toToken"], "skipped": "not-finite"}
    assert all(math.isfinite(c["loss"]) for c in curve if "loss" in c)
    assert is_same(workbench.run("train", request, checkpointEverySteps=5), result)


def test_what_repeats_parks_and_names_step_tokens_rate_and_documents(workbench: Workbench) -> None:
    poison = [(f"the sea {LOADED} and the stones", nll) for nll in (2.0, 3.0, 4.0, 5.0)]
    request = make_poisoned(workbench, poison, start={"kind": "model", "model": loaded_model(workbench)})
    job = workbench.job("train", request, checkpointEverySteps=3)
    with pytest.raises(Diverged) as parked:
        train.run(job)
    message = str(parked.value)
    for part in (
        "at step",
        "tokens",
        "learning rate 0.02",
        "poison-",
        "guard.maxAmendments 2",
        '"reason": "not-finite"',
    ):
        assert part in message
    assert all(len(r["state"]["amendments"]) <= 2 for r in records_of(workbench, job))
    with pytest.raises(Diverged) as again:
        workbench.run("train", request, checkpointEverySteps=3)
    assert str(again.value) == message


def test_a_start_whose_weights_are_no_numbers_is_told_and_nothing_is_saved(workbench: Workbench) -> None:
    from safetensors.torch import load_file, save_file  # noqa: PLC0415

    make_model(workbench, 8)
    path = workbench.files / "model-8" / "model.safetensors"
    tensors = load_file(path)
    tensors["model.norm.weight"][0] = math.inf
    save_file(tensors, path, {"format": "pt"})
    start = {"kind": "model", "model": workbench.ref("model-8/")}
    request = make_poisoned(workbench, [], start=start)
    job = workbench.job("train", request)
    with pytest.raises(Diverged, match="not finite"):
        train.run(job)
    assert records_of(workbench, job) == []


def test_an_update_that_breaks_the_weights_is_rolled_back_wherever_it_is_seen(workbench: Workbench) -> None:
    request = make_poisoned(workbench, [])
    request["schedule"] = {**request["schedule"], "peakLr": 1e38}
    messages: list[str] = []
    for every in (1, 40):
        job = workbench.job("train", {**request, "seed": every}, checkpointEverySteps=every)
        with pytest.raises(Diverged) as parked:
            train.run(job)
        messages.append(str(parked.value)[str(parked.value).index("[{") :])
        for record in records_of(workbench, job):
            path = next(f["path"] for f in record["files"] if f["name"] == "model.safetensors")
            from safetensors.torch import load_file  # noqa: PLC0415

            tensors = load_file(workbench.folder / "store" / path)
            assert all(bool(torch.isfinite(t).all()) for t in tensors.values())
    assert messages[0] == messages[1]


@pytest.mark.parametrize("seed", range(4))
def test_a_spiking_phase_told_to_stop_at_any_step_ends_with_the_same_bits(
    copy: Workbench, spiked: tuple[Path, Json, Json], seed: int
) -> None:
    rng = random.Random(seed)
    stops = 0
    while True:
        job = copy.job("train", spiked[1], checkpointEverySteps=rng.choice([1, 3, 5, 40]))
        left = rng.randint(2, 12)
        check = job.check_stop

        def stop_in_time(check: Any = check) -> None:
            nonlocal left
            left -= 1
            if left == 0:
                raise Stopped("train: told to stop (a test)")
            check()

        job.check_stop = stop_in_time
        try:
            train.run(job)
            break
        except Stopped:
            stops += 1
    assert stops >= 3
    assert is_same(job.store.record(job.fingerprint)["result"], spiked[2])


@pytest.fixture(scope="module")
def processes() -> Iterator[Processes]:
    p = Processes()
    yield p
    p.close()


@pytest.mark.parametrize(
    "point", ["rolled-back", "amended", "checkpoint-written 9", "checkpoint-recorded 9", "checkpoint-written 10"]
)
def test_a_job_killed_around_an_amendment_ends_with_the_same_bits(
    copy: Workbench, spiked: tuple[Path, Json, Json], processes: Processes, point: str
) -> None:
    name, *count = point.split()
    failpoints = copy.folder / "failpoints"
    failpoints.mkdir()
    (failpoints / name).write_text(" ".join(count))
    codes: list[int] = []
    for _ in range(2):
        job = copy.job("train", spiked[1], checkpointEverySteps=3)
        (job.folder / "request.json").write_text(json.dumps(job.spec))
        line = f"train {job.folder}/request.json {job.folder}/result.json {failpoints}"
        codes.append(processes.wait(processes.ask(line)))
    assert codes == [-9, 0]
    last = copy.job("train", spiked[1])
    assert is_same(last.store.record(last.fingerprint)["result"], spiked[2])


def test_the_ledger_refuses_a_batch_trained_twice_left_out_or_skipped_without_an_amendment() -> None:
    def line(step: int, **more: Any) -> Json:
        return {"step": step, "tokens": step * 8, **({"loss": 1.0} | more)}

    amendments = Amendments([Amendment(8, 16, "spike", 2)])
    good = [line(1), {"step": 2, "tokens": 16, "skipped": "spike"}, line(3)]
    assert check_ledger(good, amendments, 24, 8) == 16
    for bad in ([good[0], *good], [good[0], good[2]], [good[0], line(2), good[2]], good[:2]):
        with pytest.raises(BadData):
            check_ledger(bad, amendments, 24, 8)
    with pytest.raises(BadData, match="skipped"):
        check_ledger(good, Amendments(), 24, 8)


def test_a_rise_is_a_spike_by_the_spread_of_the_window_and_by_nats() -> None:
    settings = GuardSettings(5, 4.0, 0.5, 4, 2)
    watch = LossWatch(settings)
    for loss in (3.0, 3.1, 2.9, 3.0):
        assert watch.judge(100.0, 1.0) is None
        watch.took(loss)
    watch.took(3.05)
    assert watch.judge(3.49, 1.0) is None
    assert watch.judge(3.51, 1.0) == "spike"
    assert watch.judge(1.0, math.nan) == "not-finite"
    for loss in (2.0, 3.0, 4.0, 5.0, 6.0):
        watch.took(loss)
    sigma = 1.4826 * 1.0
    assert watch.judge(4.0 + 4.0 * sigma - 0.01, 1.0) is None
    assert watch.judge(4.0 + 4.0 * sigma + 0.01, 1.0) == "spike"


@pytest.mark.parametrize("wrong", [{"skipSteps": 0}, {"windowSteps": 1}, {"spikeZ": 0.0}, {"maxAmendments": -1}])
def test_a_guard_that_makes_no_sense_is_refused_by_its_field(workbench: Workbench, wrong: Json) -> None:
    request = make_poisoned(workbench, [], guard={**GUARD, **wrong})
    with pytest.raises(BadRequest, match=next(iter(wrong))):
        workbench.run("train", request)
