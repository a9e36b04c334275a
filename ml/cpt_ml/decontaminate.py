"""decontaminate: documents that carry benchmark questions are dropped (arXiv:2412.17743, decontamination)."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Literal

from cpt_ml.benchmark_grams import BenchmarkGrams, Overlap, read_parts
from cpt_ml.contract import parse
from cpt_ml.corpus import VERDICTS, RowWriter, dropped, keep_mask, kept, read_rows
from cpt_ml.job import Job, Unit
from cpt_ml.store import ArtifactRef, Attempt, Json
from cpt_ml.verdict_counts import verdict_counts

ROWS_PER_BEAT = 500


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
    passes long documents with a whole question inside. N-grams of more than `ignoreGramsOver` of these are idioms and
    do not count. Counts: filter's, and byBenchmark (dropped).
    """
    request = parse(DecontaminateRequest, job.request)
    parts = [p for b in request.benchmarks for p in read_parts(b.name, job.store.file(b.items), request.ngram)]
    grams = BenchmarkGrams(parts, request.ngram, request.ignore_grams_over)
    job.map_units(lambda unit, attempt: _decontaminate(job, request, grams, unit, attempt))


def contaminated(request: DecontaminateRequest, overlap: Overlap | None) -> bool:
    """Whether an overlap is one to drop."""
    return overlap is not None and (
        overlap.text_ratio > request.max_hit_ratio or overlap.item_ratio > request.max_item_ratio
    )


def _decontaminate(
    job: Job, request: DecontaminateRequest, grams: BenchmarkGrams, unit: Unit, attempt: Attempt
) -> Json:
    by_reason: Counter[str] = Counter()
    by_language: Counter[str] = Counter()
    entry = unit.inputs["corpus"]
    path = job.store.shard(entry)
    judged = keep_mask(path, map(job.store.shard, unit.inputs["drops"]))
    with RowWriter(attempt.path("verdicts.parquet"), VERDICTS) as verdicts:
        for row, judge in zip(read_rows(path, ["text", "language"]), judged, strict=True):
            overlap = grams.overlap(row["text"]) if judge else None
            verdict = kept()
            if overlap and contaminated(request, overlap):
                measured = f"{overlap.text_ratio:.3f} of the document, {overlap.item_ratio:.3f} of the item"
                verdict = dropped(f"contaminated:{overlap.item.benchmark}", f"{overlap.item.id}: {measured}")
                by_reason[verdict["reason"]] += 1
            elif judge:
                by_language[row["language"]] += 1
            verdicts.append(verdict)
            if verdicts.rows % ROWS_PER_BEAT == 0:
                job.beat("decontaminate", verdicts.rows, entry["rows"], "documents")
    counts = verdict_counts(int(judged.sum()), by_reason, by_language)
    by_benchmark = {reason.removeprefix("contaminated:"): n for reason, n in counts["byReason"].items()}
    return {
        "outputs": {"verdicts": [attempt.shard("verdicts.parquet", verdicts.rows)]},
        "counts": {**counts, "byBenchmark": by_benchmark},
    }
