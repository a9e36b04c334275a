"""evaluate-benchmark: one benchmark by lm-evaluation-harness, on local items, offline."""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from cpt_ml import contract
from cpt_ml.compare_benchmark import standard_error
from cpt_ml.errors import BadData, BadRequest
from cpt_ml.job import Job
from cpt_ml.store import ArtifactRef, Json

PER_ITEM = pa.schema([("id", pa.string()), ("score", pa.float64()), ("prediction", pa.string())])


@dataclass(frozen=True)
class BenchmarkTask:
    name: str
    kind: Literal["mcq", "generate", "solution"]
    items: ArtifactRef
    shots: int
    limit: int | None
    max_generated_tokens: int


@dataclass(frozen=True)
class EvaluateBenchmarkRequest:
    """contracts/src/evaluate-benchmark.ts."""

    model: ArtifactRef
    task: BenchmarkTask
    harness: Literal["lm-eval/0.4.13"]
    dtype: Literal["float32", "bfloat16"]
    seed: int


def run(job: Job) -> None:
    """Writes per-item.parquet. Contexts longer than the model's window lose their beginning, as in the harness.

    Raises BadRequest if there are too few items for the shots or the window is too short to generate in, BadData if an
    item is malformed.
    """
    request = contract.parse(EvaluateBenchmarkRequest, job.request)
    task = request.task
    job.beat("load")
    items = usable(read_items(job.store.file(task.items)), task.kind)
    examples, asked = choose(items, task.shots, task.limit, request.seed)
    if not asked:
        found = f"{len(items)} usable items"
        raise BadRequest(f"evaluate-benchmark: {task.shots} shots leave none of the {found} of {task.name} to ask")
    per_item, value = _evaluate(job, request, examples, asked)
    ids = sorted(per_item)
    scores = np.array([per_item[i][0] for i in ids], dtype=np.float64)
    if not np.isfinite(scores).all():
        raise BadData(f"evaluate-benchmark: {task.name} has scores that are not finite")
    assert abs(float(scores.mean()) - value) < 1e-9, "the harness aggregated other items"
    attempt = job.attempt()
    table = pa.table(
        [pa.array(ids), pa.array(scores), pa.array([per_item[i][1] for i in ids], pa.string())], schema=PER_ITEM
    )
    pq.write_table(table, attempt.path("per-item.parquet"), compression="zstd")
    options = [len(i["options"] or "ABCD") for i in asked]
    score = {
        "task": task.name,
        "metric": {"mcq": "acc", "generate": "exact_match", "solution": "nats_per_byte"}[task.kind],
        "higherIsBetter": task.kind != "solution",
        "value": value,
        "standardError": standard_error(scores),
        "items": len(ids),
        "shots": task.shots,
        "chance": float(np.mean([1 / n for n in options])) if task.kind == "mcq" else None,
    }
    job.commit(attempt, {"score": score, "perItem": attempt.ref("per-item.parquet")})


def read_items(path: Path) -> list[Json]:
    """Items of a .jsonl or .jsonl.zst file. Raises BadData naming the line that is none."""
    data = path.read_bytes()
    if path.suffix == ".zst" or data[:4] == b"\x28\xb5\x2f\xfd":
        data = pa.input_stream(pa.BufferReader(data), compression="zstd").read()
    items: list[Json] = []
    for number, line in enumerate(data.splitlines(), 1):
        try:
            item = json.loads(line)
            assert all(isinstance(item[k], str) for k in ("id", "question", "answer"))
            assert item.get("options") is None or isinstance(item["options"], list)
        except (ValueError, KeyError, TypeError, AssertionError) as e:
            raise BadData(f"evaluate-benchmark: line {number} is not an item {{id, question, answer, options}}") from e
        items.append({**item, "options": item.get("options") or None})
    return items


def usable(items: list[Json], kind: str) -> list[Json]:
    """Items that the kind can score: a choice has one right letter, an answer is not empty."""
    if kind == "mcq":
        return [i for i in items if i["answer"] in list("ABCDEFGH")[: len(i["options"] or "ABCD")]]
    return [i for i in items if i["answer"].strip()]


def choose(items: list[Json], shots: int, limit: int | None, seed: int) -> tuple[list[Json], list[Json]]:
    """Few-shot examples and the items to ask, apart from each other, in an order that only seed and ids decide."""
    ordered = sorted(items, key=lambda i: hashlib.sha256(f"{seed}/{i['id']}".encode()).digest())
    asked = ordered[shots:]
    return ordered[:shots], asked if limit is None else asked[:limit]


def _evaluate(
    job: Job, request: EvaluateBenchmarkRequest, examples: list[Json], asked: list[Json]
) -> tuple[dict[str, tuple[float, str | None]], float]:
    """Score and prediction by item, and the harness's aggregate."""
    offline = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}
    os.environ |= {**offline, "TQDM_DISABLE": "1", "TOKENIZERS_PARALLELISM": "false"}
    import torch  # noqa: PLC0415
    from lm_eval.evaluator import evaluate  # noqa: PLC0415
    from lm_eval.models.huggingface import HFLM  # noqa: PLC0415
    from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast  # noqa: PLC0415

    from cpt_ml.benchmark_tasks import METRICS, LocalTask  # noqa: PLC0415

    torch.set_num_threads(job.threads)
    torch.manual_seed(request.seed)
    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    folder = job.store.folder(request.model)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    tokenizer: Any = PreTrainedTokenizerFast.from_pretrained(folder)
    model: Any = AutoModelForCausalLM.from_pretrained(
        folder, dtype=getattr(torch, request.dtype), local_files_only=True, trust_remote_code=False
    )
    window: int = model.config.max_position_embeddings
    if request.task.kind == "generate" and request.task.max_generated_tokens >= window:
        raise BadRequest(
            f"evaluate-benchmark: task.maxGeneratedTokens {request.task.max_generated_tokens} leaves no room for a "
            f"question in the model's {window} positions"
        )

    base: Any = HFLM

    class BeatingLM(base):
        """Says after every batch that it lives, which is also where the job is stopped."""

        def _model_call(self, inps: Any, *args: Any, **kwargs: Any) -> Any:
            job.beat("evaluate", unit=request.task.name)
            return super()._model_call(inps, *args, **kwargs)

        def _model_generate(self, *args: Any, **kwargs: Any) -> Any:
            job.beat("evaluate", unit=request.task.name)
            return super()._model_generate(*args, **kwargs)

    batch = max(1, job.placement["batchTokens"] // window)
    lm = BeatingLM(pretrained=model.to(device).eval(), tokenizer=tokenizer, batch_size=batch, max_length=window)

    def count(text: str) -> int:
        return len(tokenizer.encode(text, add_special_tokens=False))

    def pieces(text: str) -> list[str]:
        return cut_text(text, window // 2, count)

    kind = request.task.kind
    task = LocalTask(request.task.name, kind, asked, examples, request.task.max_generated_tokens, pieces)
    tasks: Any = {"tasks": {request.task.name: task}, "groups": {}}
    results: Any = evaluate(lm, tasks, bootstrap_iters=0, log_samples=False)
    return task.per_item, float(results["results"][request.task.name][f"{METRICS[kind]},none"])


def cut_text(text: str, most: int, count: Callable[[str], int]) -> list[str]:
    """Parts of a text with at most `most` tokens each, cut at line ends where lines are short enough."""
    parts: list[str] = [""]
    for line in text.splitlines(keepends=True):
        if count(parts[-1] + line) <= most:
            parts[-1] += line
        elif count(line) <= most:
            parts.append(line)
        else:
            half = len(line) // 2
            parts.extend([*cut_text(line[:half], most, count), *cut_text(line[half:], most, count)])
    return [p for p in parts if p]
