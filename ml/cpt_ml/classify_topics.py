"""classify-topics: a topic for every document of the given kinds, by its language's classifier (arXiv:2407.18743)."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from cpt_ml.contract import parse
from cpt_ml.corpus import RowWriter, keep_mask, read_rows
from cpt_ml.job import Job, Unit
from cpt_ml.store import ArtifactRef, Attempt, Json
from cpt_ml.topic_text import topic_text
from cpt_ml.train_topic_classifier import predict

TOPICS = pa.schema([("topic", pa.string()), ("probability", pa.float32())])
OTHERS = "Others"
ROWS_PER_BEAT = 500


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
    with RowWriter(attempt.path("topics.parquet"), TOPICS) as topics:
        for row, judge in zip(read_rows(path, ["text", "language", "kind"]), judged, strict=True):
            model = models.get(row["language"]) if judge and row["kind"] in request.kinds else None
            topic, probability = None, np.nan
            if model is not None:
                topic, probability = predict(model, topic_text(row["text"]))
                if probability < request.min_probability or not topic:
                    topic, low = OTHERS, low + 1
                by_topic[f"{row['language']}/{topic}"] += 1
            topics.append({"topic": topic, "probability": probability})
            if topics.rows % ROWS_PER_BEAT == 0:
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
