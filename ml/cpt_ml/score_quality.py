"""score-quality: keeps what a classifier of quality gives a high score (arXiv:2412.17743 keeps 3 to 5 of 0 to 5)."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from cpt_ml.classify_topics import is_among, row_batches
from cpt_ml.contract import parse
from cpt_ml.corpus import VERDICTS, dropped, keep_mask, kept, write_columns, write_rows
from cpt_ml.errors import BadRequest
from cpt_ml.job import Job, Unit
from cpt_ml.store import ArtifactRef, Attempt, Json
from cpt_ml.topic_classifier import Classifier, Tick, open_classifier
from cpt_ml.verdict_counts import verdict_counts

QUALITY = pa.schema([("score", pa.uint8()), ("probability", pa.float32()), ("scorer", pa.string())])
SCORES = "012345"
REASON = "quality"


@dataclass(frozen=True)
class ScoreQualityRequest:
    """contracts/src/score-quality.ts; `scorers` by language."""

    corpus: ArtifactRef
    drops: list[ArtifactRef]
    scorers: dict[str, ArtifactRef]
    kinds: list[str]
    min_score: int


@dataclass(frozen=True)
class Score:
    """What a scorer says of a document; `scorer` is its digest."""

    score: int
    probability: float
    scorer: str


def run(job: Job) -> None:
    """Writes `quality.parquet` of each shard (score, probability and the scorer's digest; null where there is none) and
    `verdicts.parquet`.

    Judged are documents of the kinds whose language has a scorer; one in which the scorer knows no word is kept,
    without a score. Counts: filter's, and byScore as `<language>/<score>`. Raises BadRequest where a classifier
    gives something else than a score of 0 to 5.
    """
    request = parse(ScoreQualityRequest, job.request)
    models = {language: open_classifier(job, ref) for language, ref in request.scorers.items()}
    job.map_units(lambda unit, attempt: _score(job, request, models, unit, attempt))


def _score(job: Job, request: ScoreQualityRequest, models: dict[str, Classifier], unit: Unit, attempt: Attempt) -> Json:
    entry = unit.inputs["corpus"]
    path = job.store.shard(entry)
    judged = keep_mask(path, map(job.store.shard, unit.inputs["drops"]))
    scores: list[Score | None] = [None] * len(judged)
    by_score: Counter[str] = Counter()
    by_reason: Counter[str] = Counter()
    left: Counter[str] = Counter()
    done = 0

    def tick() -> None:
        job.beat("score-quality", done, entry["rows"], "documents")

    for begin, table in row_batches(path, ["text", "language", "kind"]):
        there = judged[begin : begin + table.num_rows]
        wanted = there & is_among(table, "kind", request.kinds)
        for language, classifier in models.items():
            rows = np.flatnonzero(wanted & is_among(table, "language", [language]))
            texts = table["text"].take(rows).to_pylist() if len(rows) else []
            for row, found in zip(rows.tolist(), predicted(classifier, texts, tick), strict=True):
                scores[begin + row] = found
                if found:
                    by_score[f"{language}/{found.score}"] += 1
        for row, language in enumerate(table["language"].to_pylist()):
            if there[row] and is_low(scores[begin + row], request.min_score):
                by_reason[REASON] += 1
            elif there[row]:
                left[language] += 1
        done = begin + table.num_rows
        tick()
    columns = [[getattr(s, f.name) if s else None for s in scores] for f in QUALITY]
    arrays = [pa.array(c, f.type) for c, f in zip(columns, QUALITY, strict=True)]
    write_columns(attempt.path("quality.parquet"), QUALITY, arrays)
    verdicts = (
        dropped(REASON, f"score {s.score} ({s.probability:.2f})") if s and is_low(s, request.min_score) else kept()
        for s in scores
    )
    write_rows(attempt.path("verdicts.parquet"), VERDICTS, verdicts)
    return {
        "outputs": {
            "quality": [attempt.shard("quality.parquet", len(scores))],
            "verdicts": [attempt.shard("verdicts.parquet", len(scores))],
        },
        "counts": {
            **verdict_counts(int(judged.sum()), by_reason, left),
            "byScore": dict(sorted(by_score.items())),
        },
    }


def predicted(classifier: Classifier, texts: list[str], tick: Tick) -> list[Score | None]:
    """The score of each text, None where the scorer knows no word of it."""
    if not texts:
        return []
    return [
        Score(score_of(label), probability, classifier.digest) if label else None
        for label, probability in classifier.model.predict(texts, tick)
    ]


def score_of(label: str) -> int:
    """A label as a score."""
    if len(label) != 1 or label not in SCORES:
        raise BadRequest(f"score-quality: a scorer gives {label!r}, expected a classifier whose topics are 0 to 5")
    return int(label)


def is_low(score: Score | None, min_score: int) -> bool:
    """Whether a document is dropped."""
    return score is not None and score.score < min_score
