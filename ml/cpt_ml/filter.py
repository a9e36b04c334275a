"""filter: named rules that drop documents no model should learn from (filter_rules.py has them)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from cpt_ml.clean_corpus import is_clean
from cpt_ml.contract import parse
from cpt_ml.corpus import VERDICTS, RowWriter, dropped, kept, read_rows
from cpt_ml.filter_rules import FilterRules, judge_all
from cpt_ml.job import Job, Unit
from cpt_ml.store import ArtifactRef, Attempt, Json
from cpt_ml.verdict_counts import verdict_counts

BATCH_CHARS = 1 << 19  # some 150 bytes of arrays a character


@dataclass(frozen=True)
class FilterRequest:
    """The stage's request."""

    corpus: ArtifactRef
    rules: FilterRules


def judge(text: str, kind: str, rules: FilterRules, language: str = "en") -> Json:
    """The verdict on one document: kept, or the first rule that it breaks and the value measured."""
    return verdicts_of([{"text": text, "kind": kind, "language": language}], rules)[0]


def verdicts_of(rows: list[Json], rules: FilterRules) -> list[Json]:
    """The verdict on each row of a corpus (its text, kind and language), judged together."""
    found = judge_all([r["text"] for r in rows], [r["kind"] for r in rows], [r["language"] for r in rows], rules)
    return [kept() if v is None else dropped(v.rule.name, v.evidence) for v in found]


def run(job: Job) -> None:
    """Writes `verdicts.parquet` of each shard, row-aligned. Counts: docs, kept, byReason, byLanguage (kept).

    All of a shard whose source is `clean` is kept, unlooked at.
    """
    request = parse(FilterRequest, job.request)
    job.map_units(lambda unit, attempt: _filter(job, request.rules, unit, attempt))


def _filter(job: Job, rules: FilterRules, unit: Unit, attempt: Attempt) -> Json:
    by_reason: Counter[str] = Counter()
    by_language: Counter[str] = Counter()
    entry = unit.inputs["corpus"]
    with RowWriter(attempt.path("verdicts.parquet"), VERDICTS) as verdicts:
        path = job.store.shard(entry)
        clean = is_clean(path)
        for rows in batches(path):
            judged = [kept()] * len(rows) if clean else verdicts_of(rows, rules)
            for row, verdict in zip(rows, judged, strict=True):
                verdicts.append(verdict)
                if verdict["keep"]:
                    by_language[row["language"]] += 1
                else:
                    by_reason[verdict["reason"]] += 1
            job.beat("filter", verdicts.rows, entry["rows"], "documents")
    return {
        "outputs": {"verdicts": [attempt.shard("verdicts.parquet", verdicts.rows)]},
        "counts": verdict_counts(verdicts.rows, by_reason, by_language),
    }


def batches(path: Path) -> Iterator[list[Json]]:
    """The rows of a corpus shard, some BATCH_CHARS of text at a time: more only where one document is longer."""
    pending: list[Json] = []
    chars = 0
    for row in read_rows(path, ["text", "kind", "language"]):
        if pending and chars + len(row["text"]) > BATCH_CHARS:
            yield pending
            pending, chars = [], 0
        pending.append(row)
        chars += len(row["text"])
    if pending:
        yield pending
