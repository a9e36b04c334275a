"""decontaminate: documents that carry benchmark questions are dropped (arXiv:2412.17743, decontamination)."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pyarrow as pa

from cpt_ml.benchmark_grams import BenchmarkGrams, Overlap, read_benchmark
from cpt_ml.contract import parse
from cpt_ml.corpus import VERDICTS, count_values, dropped, keep_mask, read_table, write_columns
from cpt_ml.job import Job, Unit
from cpt_ml.store import ArtifactRef, Attempt, Json
from cpt_ml.text_batches import text_batches
from cpt_ml.verdict_counts import verdict_counts


@dataclass(frozen=True)
class Benchmark:
    """A named set of questions."""

    name: str
    items: ArtifactRef


@dataclass(frozen=True)
class DecontaminateRequest:
    """The stage's request."""

    corpus: ArtifactRef
    drops: list[ArtifactRef]
    benchmarks: list[Benchmark]
    tokenizer: Literal["words-v1"]
    ngram: int
    ignore_grams_over: int
    max_hit_ratio: float
    max_item_ratio: float


def run(job: Job) -> None:
    """Writes `verdicts.parquet` of each shard. Raises BadData if a benchmark's file is malformed.

    A document is dropped when more than `maxHitRatio` of its n-grams belong to benchmark items (the paper's rule), or
    more than `maxItemRatio` of those of one item's question, options or worked answer are in it: the paper's rule alone
    passes long documents with a whole question inside. A question under `ngram` words must be there as a whole, word
    for word. What more than `ignoreGramsOver` of these share is an idiom and does not count. Counts: filter's, and
    byBenchmark (dropped, 0 too). `alike`: of each benchmark its items, and how many are not looked for: too short, or
    idioms altogether.
    """
    request = parse(DecontaminateRequest, job.request)
    read = [read_benchmark(b.name, job.store.file(b.items), request.ngram) for b in request.benchmarks]
    grams = BenchmarkGrams([p for b in read for p in b.parts], request.ngram, request.ignore_grams_over)
    told: Json = {b.name: {"items": b.items, "tooShort": b.too_short, "idioms": grams.idioms(b.name)} for b in read}
    job.map_units(
        lambda unit, attempt: {**_decontaminate(job, request, grams, unit, attempt), "alike": {"benchmarks": told}}
    )


def contaminated(request: DecontaminateRequest, overlap: Overlap | None) -> bool:
    """Whether an overlap is one to drop."""
    return overlap is not None and (
        overlap.text_ratio > request.max_hit_ratio or overlap.item_ratio > request.max_item_ratio
    )


def _decontaminate(
    job: Job, request: DecontaminateRequest, grams: BenchmarkGrams, unit: Unit, attempt: Attempt
) -> Json:
    entry = unit.inputs["corpus"]
    path = job.store.shard(entry)
    judged = keep_mask(path, map(job.store.shard, unit.inputs["drops"]))
    keep = np.ones(len(judged), dtype=np.bool_)
    told: dict[int, Json] = {}
    for rows, texts in text_batches(path, judged):
        for row, overlap in zip(rows.tolist(), grams.overlaps(texts), strict=True):
            if overlap and contaminated(request, overlap):
                measured = f"{overlap.text_ratio:.3f} of the document, {overlap.item_ratio:.3f} of the item"
                told[row] = dropped(f"contaminated:{overlap.item.benchmark}", f"{overlap.item.id}: {measured}")
        job.beat("decontaminate", int(rows[-1]) + 1, entry["rows"], "documents")
    keep[list(told)] = False
    columns = [pa.array(keep), *(_sparse(told, key, len(keep)) for key in ("reason", "evidence"))]
    write_columns(attempt.path("verdicts.parquet"), VERDICTS, columns)
    by_reason = Counter(verdict["reason"] for verdict in told.values())
    by_language = count_values(read_table(path, ["language"])["language"].filter(pa.array(keep & judged)))
    counts = verdict_counts(int(judged.sum()), by_reason, by_language)
    by_benchmark = {b.name: by_reason[f"contaminated:{b.name}"] for b in request.benchmarks}
    return {
        "outputs": {"verdicts": [attempt.shard("verdicts.parquet", len(keep))]},
        "counts": {**counts, "byBenchmark": by_benchmark},
    }


def _sparse(told: dict[int, Json], key: str, rows: int) -> pa.Array:
    """A column of strings that is null but in a few rows."""
    places = np.full(rows, -1, dtype=np.int64)
    places[list(told)] = np.arange(len(told))
    return pa.array([v[key] for v in told.values()], pa.string()).take(pa.array(places, mask=places < 0))
