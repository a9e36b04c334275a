"""classify-topics: a topic for every document of the given kinds, by its language's classifier (arXiv:2407.18743)."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from itertools import islice
from typing import Any

import pyarrow as pa

from cpt_ml.contract import parse
from cpt_ml.corpus import RowWriter, keep_mask, read_rows
from cpt_ml.job import Job, Unit
from cpt_ml.store import ArtifactRef, Attempt, Json
from cpt_ml.topic_text import topic_text
from cpt_ml.train_topic_classifier import predict

TOPICS = pa.schema([("topic", pa.string()), ("probability", pa.float32())])
OTHERS = "Others"
ROWS_PER_BATCH = 512


@dataclass(frozen=True)
class ClassifyTopicsRequest:
    """The stage's request; `classifiers` by language."""

    corpus: ArtifactRef
    drops: list[ArtifactRef]
    classifiers: dict[str, ArtifactRef]
    kinds: list[str]
    min_probability: float


def run(job: Job) -> None:
    """Writes `topics.parquet` of each shard: topic (null where topics do not apply) and probability (f32, else NaN).

    A document has no topic if it was dropped, is of another kind, or its language has no classifier. Below
    `minProbability` it is one of Others. Counts: docs (not dropped), classified, lowConfidence, byTopic as
    `<language>/<topic>`.
    """
    request = parse(ClassifyTopicsRequest, job.request)
    models = {language: load(job, ref) for language, ref in request.classifiers.items()}
    job.map_units(lambda unit, attempt: _classify(job, request, models, unit, attempt))


def load(job: Job, ref: ArtifactRef) -> Any:
    """A fastText model of the store."""
    import fasttext  # noqa: PLC0415

    return fasttext.load_model(str(job.store.file(ref)))


def _classify(job: Job, request: ClassifyTopicsRequest, models: dict[str, Any], unit: Unit, attempt: Attempt) -> Json:
    by_topic: Counter[str] = Counter()
    low = 0
    entry = unit.inputs["corpus"]
    path = job.store.shard(entry)
    judged = keep_mask(path, map(job.store.shard, unit.inputs["drops"]))
    rows = zip(read_rows(path, ["text", "language", "kind"]), judged.tolist(), strict=True)
    with RowWriter(attempt.path("topics.parquet"), TOPICS) as topics:
        while batch := list(islice(rows, ROWS_PER_BATCH)):
            asked = [row if judge and row["kind"] in request.kinds else None for row, judge in batch]
            for row, found in zip(asked, predicted(models, asked), strict=True):
                topic, probability = found or (None, math.nan)
                if row and found:
                    if probability < request.min_probability or not topic:
                        topic, low = OTHERS, low + 1
                    by_topic[f"{row['language']}/{topic}"] += 1
                topics.append({"topic": topic, "probability": probability})
            job.beat("classify-topics", topics.rows, entry["rows"], "documents")
    return {
        "outputs": {"topics": [attempt.shard("topics.parquet", topics.rows)]},
        "counts": {
            "docs": int(judged.sum()),
            "classified": by_topic.total(),
            "lowConfidence": low,
            "byTopic": dict(sorted(by_topic.items())),
        },
    }


def predicted(models: dict[str, Any], rows: list[Json | None]) -> list[tuple[str, float] | None]:
    """Topic and probability of each row by its language's model; None for no row and for a language without one."""
    found: list[tuple[str, float] | None] = [None] * len(rows)
    for language, model in models.items():
        places = [i for i, row in enumerate(rows) if row and row["language"] == language]
        if not places:
            continue
        texts = [topic_text(row["text"]) for row in rows if row and row["language"] == language]
        for i, result in zip(places, predict(model, texts), strict=True):
            found[i] = result
    return found
