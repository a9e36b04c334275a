"""The trainer's mathematics and its refusals, in this process; test_train_kills.py has the processes."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import Workbench
from tiny import make_model, make_plan, make_tokenizer, plan_folder, train_request
from torch.utils._python_dispatch import TorchDispatchMode

from cpt_ml.cross_entropy import linear_cross_entropy
from cpt_ml.errors import BadRequest, Diverged
from cpt_ml.llama import LlamaConfig, load_llama
from cpt_ml.mfu import flops_per_token
from cpt_ml.store import Json
from cpt_ml.token_stream import TokenStream
from cpt_ml.train import run
from cpt_ml.weights import read_weights, weights_sha256

BUDGET = 128 * 12


def curve_of(bench: Workbench, result: Json) -> list[Json]:
    return [json.loads(line) for line in bench.path(result["curve"]).read_text().splitlines()]


def folder_of(bench: Workbench, ref: Json) -> Path:
    return bench.job("read", ref).store.folder(ref)


def test_our_llama_gives_the_logits_of_hugging_faces(workbench: Workbench) -> None:
    from transformers.models.llama.modeling_llama import LlamaForCausalLM  # noqa: PLC0415

    rope = {"rope_type": "llama3", "rope_theta": 500.0, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
            "original_max_position_embeddings": 32}  # fmt: skip
    for seed, config in enumerate(
        [{}, {"tie_word_embeddings": False, "attention_bias": True, "mlp_bias": True}, {"rope_parameters": rope}]
    ):
        folder = folder_of(workbench, make_model(workbench, seed, **config))
        ids = torch.randint(0, 300, (2, 24), generator=torch.Generator().manual_seed(seed))
        theirs: Any = LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32)
        with torch.no_grad():
            torch.testing.assert_close(load_llama(folder)(ids), theirs(ids).logits, atol=2e-5, rtol=1e-4)


def test_cross_entropy_and_its_gradients_are_those_of_the_plain_formula() -> None:
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(200, 8, generator=generator, requires_grad=True)
    head = torch.randn(50, 8, generator=generator, requires_grad=True)
    targets = torch.randint(0, 50, (200,), generator=generator)
    plain = torch.nn.functional.cross_entropy(hidden @ head.T, targets, reduction="sum")
    expected = torch.autograd.grad(plain, (hidden, head))
    ours = linear_cross_entropy(hidden, head, targets, torch.float32)
    assert ours.item() == pytest.approx(plain.item(), rel=1e-6)
    for got, want in zip(torch.autograd.grad(ours, (hidden, head)), expected, strict=True):
        torch.testing.assert_close(got, want, atol=1e-5, rtol=1e-4)
    half = linear_cross_entropy(hidden, head, targets, torch.bfloat16)
    assert half.item() == pytest.approx(plain.item(), rel=2e-2)


def reference_run(bench: Workbench, request: Json) -> list[tuple[float, float]]:
    """The same phase as a plain loop: logits of whole batches, torch's own AdamW and cross-entropy."""
    model = load_llama(folder_of(bench, request["start"]["model"]))
    stream = TokenStream(bench.job("read", request).store, plan_folder(bench, request["plan"]))
    tokens = torch.from_numpy(stream.read(0, stream.num_tokens))
    vectors = [p for p in model.parameters() if p.ndim < 2]
    matrices = [p for p in model.parameters() if p.ndim >= 2]
    optimizer = torch.optim.AdamW(
        [{"params": matrices, "weight_decay": 0.1}, {"params": vectors, "weight_decay": 0.0}], betas=(0.9, 0.95)
    )
    s, lines = request["schedule"], list[tuple[float, float]]()
    for step in range(request["tokenBudget"] // 128):
        first = step * 8
        batch = torch.stack([tokens[i * 16 : i * 16 + 17] for i in range(first, first + 8)])
        middle = step * 128 + 64
        if middle < s["warmupTokens"]:
            lr = s["peakLr"] * middle / s["warmupTokens"]
        else:
            x = max(0.0, (middle - s["totalTokens"] + s["decayTokens"]) / s["decayTokens"])
            lr = s["minLr"] + (s["peakLr"] - s["minLr"]) * (1 - math.sqrt(x))
        for group in optimizer.param_groups:
            group["lr"] = lr
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(model(batch[:, :-1]).flatten(0, 1), batch[:, 1:].flatten())
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        lines.append((loss.item(), float(norm)))
    return lines


@pytest.mark.parametrize("batch_tokens", [16_384, 48])
def test_losses_and_gradients_are_those_of_a_plain_loop(workbench: Workbench, batch_tokens: int) -> None:
    request = train_request(workbench, make_plan(workbench, BUDGET), BUDGET)
    expected = reference_run(workbench, request)
    curve = curve_of(workbench, workbench.run("train", request, batchTokens=batch_tokens))
    assert [c["loss"] for c in curve] == pytest.approx([e[0] for e in expected], rel=2e-5)
    assert [c["gradNorm"] for c in curve] == pytest.approx([e[1] for e in expected], rel=2e-4)
    assert [c["tokens"] for c in curve] == [128 * (i + 1) for i in range(12)]


def test_a_plan_is_read_without_pandas(workbench: Workbench) -> None:
    plan = make_plan(workbench, BUDGET)
    paths = [str(workbench.folder / "store"), str(plan_folder(workbench, plan))]
    read = (
        "import sys; from pathlib import Path; from cpt_ml.store import Store; "
        "from cpt_ml.token_stream import TokenStream; "
        "s = TokenStream(Store({'store': sys.argv[1]}), Path(sys.argv[2])); "
        "print(int(s.read(0, s.num_tokens).sum()), sorted({'pandas', 'pyarrow'} & sys.modules.keys()))"
    )
    told = subprocess.run([sys.executable, "-c", read, *paths], capture_output=True, text=True, check=True).stdout
    stream = TokenStream(workbench.job("read", plan).store, Path(paths[1]))
    assert told == f"{int(stream.read(0, BUDGET + 1).sum())} ['pyarrow']\n"


class Fetches(TorchDispatchMode):
    """Counts the numbers that Python takes of tensors, each of which a GPU would have to be waited for."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        # of a tensor on the CPU tolist() reads without an operation: that one is the step's
        self.count += func is torch.ops.aten._local_scalar_dense.default
        return func(*args, **(kwargs or {}))


def test_a_step_takes_no_number_of_a_micro_batch(workbench: Workbench) -> None:
    counts: list[int] = []
    for seed, batch_tokens in enumerate((16_384, 16)):
        request = train_request(workbench, make_plan(workbench, BUDGET), BUDGET, seed=seed)
        with Fetches() as fetches:
            workbench.run("train", request, batchTokens=batch_tokens, checkpointEverySteps=12)
        counts.append(fetches.count)
    assert counts[0] == counts[1]


def test_the_loss_is_the_float64_sum_of_the_micro_batches_in_their_order(workbench: Workbench) -> None:
    request = train_request(workbench, make_plan(workbench, BUDGET), BUDGET)
    model = load_llama(folder_of(workbench, request["start"]["model"]))
    stream = TokenStream(workbench.job("read", request).store, plan_folder(workbench, request["plan"]))
    batch = torch.from_numpy(stream.sequences(0, 8, 16))
    total = 0.0
    for part in batch.split(3):
        total += model(part[:, :-1], part[:, 1:]).item()
    assert curve_of(workbench, workbench.run("train", request, batchTokens=48))[0]["loss"] == total / 128


def test_a_peak_that_is_stated_makes_the_beats_tell_a_share_of_it(
    workbench: Workbench, capsys: pytest.CaptureFixture[str]
) -> None:
    request = train_request(workbench, make_plan(workbench, BUDGET), BUDGET)
    job = workbench.job("train", request, peakTflops=0.5)
    run(job)
    beat: Json = job._beat  # pyright: ignore[reportPrivateUsage]
    flops = flops_per_token(LlamaConfig.read(folder_of(workbench, request["start"]["model"])), 16)
    assert beat["mfu"] == pytest.approx(beat["tokensPerSecond"] * flops / 0.5e12)
    logged = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert [e["peakFlops"] for e in logged if e["event"] == "utilisation"] == [0.5e12]


def test_the_loss_goes_down_and_the_model_folder_opens_with_transformers(workbench: Workbench) -> None:
    from transformers.models.llama.modeling_llama import LlamaForCausalLM  # noqa: PLC0415

    budget = 128 * 40
    result = workbench.run("train", train_request(workbench, make_plan(workbench, budget), budget))
    losses = [c["loss"] for c in curve_of(workbench, result)]
    assert sum(losses[-5:]) / 5 < sum(losses[:5]) / 5 - 0.5
    assert (result["steps"], result["tokens"], result["finalLoss"]) == (40, budget, losses[-1])
    folder = folder_of(workbench, result["model"])
    assert (
        result["weightsSha256"] == weights_sha256(folder) == weights_sha256(folder_of(workbench, result["checkpoint"]))
    )
    theirs: Any = LlamaForCausalLM.from_pretrained(folder)
    ids = torch.arange(20)[None]
    with torch.no_grad():
        torch.testing.assert_close(theirs(ids).logits, load_llama(folder)(ids), atol=2e-5, rtol=1e-4)
    assert (folder / "tokenizer.json").read_bytes() == workbench.path(make_tokenizer(workbench)).read_bytes()
    strata = result["measurement"]["strata"]
    assert [(s["set"], s["language"]) for s in strata] == [("corpus", "en"), ("corpus", "zh"), ("retention", "en")]
    assert all(s["nllPerByte"] * s["bytes"] == pytest.approx(s["nllPerToken"] * s["tokens"]) for s in strata)


def test_the_engine_by_its_name_is_the_one_that_trains_where_none_is_named(workbench: Workbench) -> None:
    request = train_request(workbench, make_plan(workbench, BUDGET), BUDGET)
    found = [workbench.run("train", r) for r in (request, {**request, "engine": "fsdp2"})]
    assert found[0]["model"]["uri"] != found[1]["model"]["uri"]
    assert found[0]["weightsSha256"] == found[1]["weightsSha256"]


def test_two_phases_continue_as_one(workbench: Workbench) -> None:
    budget = 128 * 6
    plan = make_plan(workbench, budget)
    schedule = {"totalTokens": 2 * budget, "warmupTokens": 128, "decayTokens": budget}
    first = workbench.run("train", train_request(workbench, plan, budget, schedule=schedule))
    schedule["startTokens"] = budget
    lrs: dict[str, list[float]] = {}
    losses: dict[str, list[float]] = {}
    for optimizer in ("keep", "reset"):
        start = {"kind": "checkpoint", "checkpoint": first["checkpoint"], "optimizer": optimizer}
        result = workbench.run("train", train_request(workbench, plan, budget, start=start, schedule=schedule))
        curve = curve_of(workbench, result)
        lrs[optimizer], losses[optimizer] = [c["lr"] for c in curve], [c["loss"] for c in curve]
    assert lrs["keep"] == lrs["reset"]
    assert max(lrs["keep"]) < curve_of(workbench, first)[-1]["lr"] + 1e-12
    assert losses["keep"][0] == losses["reset"][0]
    assert losses["keep"][1:] != losses["reset"][1:]


@pytest.mark.parametrize(
    ("lr", "message"), [(1e20, r"loss .* at step \d+ .* learning rate"), (1e39, "weights are not finite after step 1")]
)
def test_a_phase_that_diverges_stops_before_anything_bad_is_saved(
    workbench: Workbench, lr: float, message: str
) -> None:
    schedule = {"shape": "constant", "peakLr": lr, "minLr": 0.0, "warmupTokens": 0}
    request = train_request(workbench, make_plan(workbench, BUDGET), BUDGET, schedule=schedule)
    with pytest.raises(Diverged, match=message):
        workbench.run("train", request, checkpointEverySteps=1)
    for path in (workbench.folder / "store" / "data").rglob("*-checkpoints/*/model.safetensors"):
        assert all(t.isfinite().all() for t in read_weights(path.parent).values())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"tokenBudget": BUDGET + 128}, r"the plan has 1537 tokens, expected tokenBudget \+ 1 = 1665"),
        ({"globalBatchTokens": 120}, "no multiple of sequenceTokens"),
        ({"globalBatchTokens": 1024}, "not a whole number of global batches"),
        ({"engine": "torchtitan"}, r"request\.engine: expected one of \['fsdp2'\]"),
        ({"seed": "x", "colour": 1}, r"request\.colour: unknown key.*request\.seed: expected int"),
    ],
)
def test_a_request_whose_parts_do_not_fit_is_refused(workbench: Workbench, change: Json, message: str) -> None:
    request = train_request(workbench, make_plan(workbench, BUDGET), BUDGET)
    with pytest.raises(BadRequest, match=message):
        workbench.run("train", {**request, **change})


def test_a_plan_of_another_tokenizer_is_refused(workbench: Workbench) -> None:
    request = train_request(workbench, make_plan(workbench, BUDGET), BUDGET)
    content = json.loads(workbench.path(request["tokenizer"]).read_bytes())
    other = workbench.put("other/tokenizer.json", json.dumps(content, indent=1).encode())
    with pytest.raises(BadRequest, match="another tokenizer"):
        workbench.run("train", {**request, "tokenizer": other})


def test_a_model_with_too_small_a_vocabulary_is_refused(workbench: Workbench) -> None:
    plan = make_plan(workbench, BUDGET)
    start = {"kind": "model", "model": make_model(workbench, 7, vocab_size=200)}
    with pytest.raises(BadRequest, match="the tokenizer has ids below 300, the model below 200"):
        workbench.run("train", train_request(workbench, plan, BUDGET, start=start))


@pytest.mark.filterwarnings("ignore")
def test_recomputed_or_compiled_layers_train_the_same(tmp_path: Path) -> None:
    def train(name: str, **placement: Any) -> tuple[Json, list[float], list[Json]]:
        bench = Workbench(tmp_path / name)
        result = bench.run("train", train_request(bench, make_plan(bench, BUDGET), BUDGET), **placement)
        last = sorted((tmp_path / name / "store" / "checkpoints").rglob("*.json"))[-1]
        return result, [c["loss"] for c in curve_of(bench, result)], json.loads(last.read_bytes())["state"]["numerics"]

    plain, losses, _ = train("plain")
    recomputed, _, _ = train("recomputed", activationCheckpointing="full")
    assert recomputed["weightsSha256"] == plain["weightsSha256"]
    compiled, of_compiled, numerics = train("compiled", activationCheckpointing=2, compile=True)
    assert compiled["weightsSha256"] != plain["weightsSha256"]
    assert of_compiled == pytest.approx(losses, rel=1e-4)
    assert [n["compile"] for n in numerics] == [True]
