"""find-personal-data: where documents have e-mail addresses, telephone and identity numbers; nothing is rewritten."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass

import numpy as np

from cpt_ml.contract import parse
from cpt_ml.corpus import keep_mask, read_table
from cpt_ml.job import Job, Unit
from cpt_ml.personal_data import Span, personal_data
from cpt_ml.personal_spans import write_spans
from cpt_ml.store import ArtifactRef, Attempt, Json
from cpt_ml.text_batches import text_batches


@dataclass(frozen=True)
class FindPersonalDataRequest:
    """The stage's request: documents of `kinds` are searched for what `find` names."""

    corpus: ArtifactRef
    drops: list[ArtifactRef]
    kinds: list[str]
    find: list[str]


def run(job: Job) -> None:
    """Writes `personal-data.parquet` of each shard, row-aligned: a list of spans, empty for rows not looked at.

    Counts: docs looked at (of `kinds`, not dropped before), withAny, found by kind, byLanguage by kind.
    """
    request = parse(FindPersonalDataRequest, job.request)
    job.map_units(lambda unit, attempt: _find(job, request, unit, attempt))


def _find(job: Job, request: FindPersonalDataRequest, unit: Unit, attempt: Attempt) -> Json:
    entry = unit.inputs["corpus"]
    path = job.store.shard(entry)
    columns = read_table(path, ["kind", "language"])
    wanted = keep_mask(path, map(job.store.shard, unit.inputs["drops"]))
    wanted &= np.isin(np.array(columns["kind"].to_pylist(), dtype=np.str_), request.kinds)
    languages = columns["language"].to_pylist()
    spans: dict[int, list[Span]] = {}
    by_language: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for rows, texts in text_batches(path, wanted):
        for row, text in zip(rows.tolist(), texts, strict=True):
            found = [s for s in personal_data(text) if s.kind in request.find]
            if found:
                spans[row] = found
                by_language[languages[row]].update(s.kind for s in found)
        job.beat("find-personal-data", int(rows[-1]) + 1, entry["rows"], "documents")
    write_spans(attempt.path("personal-data.parquet"), spans, len(wanted))
    return {
        "outputs": {"personalData": [attempt.shard("personal-data.parquet", len(wanted))]},
        "counts": {
            "docs": int(wanted.sum()),
            "withAny": len(spans),
            "found": _sorted(sum(by_language.values(), Counter())),
            "byLanguage": {language: _sorted(n) for language, n in sorted(by_language.items())},
        },
    }


def _sorted(counts: Counter[str]) -> Json:
    return dict(sorted(counts.items()))
