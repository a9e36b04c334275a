"""classify-topics: a topic for every document of the given kinds, by its language's classifier (arXiv:2407.18743)."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from cpt_ml.contract import parse
from cpt_ml.corpus import Mask, keep_mask, write_columns
from cpt_ml.job import Job, Unit
from cpt_ml.store import ArtifactRef, Attempt, Json
from cpt_ml.topic_classifier import Classifier, Tick, open_classifier
from cpt_ml.topic_metrics import OTHERS

TOPICS = pa.schema([("topic", pa.string()), ("probability", pa.float32()), ("classifier", pa.string())])
ROWS_PER_BATCH = 512


@dataclass(frozen=True)
class ClassifyTopicsRequest:
    """The stage's request; `classifiers` by language."""

    corpus: ArtifactRef
    drops: list[ArtifactRef]
    classifiers: dict[str, ArtifactRef]
    kinds: list[str]
    min_probability: float
    fallback: Literal["source"] | None


def run(job: Job) -> None:
    """Writes `topics.parquet` of each shard: topic (null where topics do not apply), probability (f32, else NaN) and
    the digest of the classifier.

    A document has no topic if it was dropped, is of another kind, or its language has no classifier; with `fallback`
    the last are of topic `source:<name>`. Below `minProbability` it is one of Others. Counts: docs (not dropped),
    classified, lowConfidence, byTopic as `<language>/<topic>`; with `fallback` also bySource.
    """
    request = parse(ClassifyTopicsRequest, job.request)
    models = {language: open_classifier(job, ref) for language, ref in request.classifiers.items()}
    job.map_units(lambda unit, attempt: _classify(job, request, models, unit, attempt))


class Found:
    """What was decided on the rows of a shard, so far."""

    def __init__(self, rows: int, min_probability: float) -> None:
        self.topics: list[str | None] = [None] * rows
        self.probabilities = [math.nan] * rows
        self.classifiers: list[str | None] = [None] * rows
        self.by_topic: Counter[str] = Counter()
        self.by_source: Counter[str] = Counter()
        self.low = 0
        self._min_probability = min_probability

    def predict(self, language: str, classifier: Classifier, texts: list[str], rows: list[int], tick: Tick) -> None:
        """Has the language's classifier decide on some rows."""
        said: Counter[str] = Counter()
        for row, (topic, probability) in zip(rows, classifier.model.predict(texts, tick), strict=True):
            is_low = probability < self._min_probability or not topic
            label = OTHERS if is_low else topic
            self.low += is_low
            said[label] += 1
            self.topics[row], self.probabilities[row] = label, probability
            self.classifiers[row] = classifier.digest
        self.by_topic.update({f"{language}/{topic}": n for topic, n in said.items()})

    def fall_back(self, table: pa.Table, rows: list[int]) -> None:
        """Documents of a language without a classifier are told apart by their source."""
        for row, of in zip(rows, table.to_pylist(), strict=True):
            self.topics[row] = source_topic(of["source"])
            self.by_source[f"{of['language']}/{of['source']}"] += 1


def _classify(
    job: Job, request: ClassifyTopicsRequest, models: dict[str, Classifier], unit: Unit, attempt: Attempt
) -> Json:
    entry = unit.inputs["corpus"]
    path = job.store.shard(entry)
    judged = keep_mask(path, map(job.store.shard, unit.inputs["drops"]))
    rows = len(judged)
    found = Found(rows, request.min_probability)
    done = 0

    def tick() -> None:
        job.beat("classify-topics", done, entry["rows"], "documents")

    for begin, table in row_batches(path, ["text", "language", "kind", "source"]):
        wanted = judged[begin : begin + table.num_rows] & is_among(table, "kind", request.kinds)
        for language, classifier in models.items():
            of = np.flatnonzero(wanted & is_among(table, "language", [language]))
            if len(of):
                found.predict(language, classifier, table["text"].take(of).to_pylist(), (begin + of).tolist(), tick)
        if request.fallback:
            of = np.flatnonzero(wanted & ~is_among(table, "language", list(models)))
            found.fall_back(table.select(["language", "source"]).take(of), (begin + of).tolist())
        done = begin + table.num_rows
        tick()
    columns = (found.topics, found.probabilities, found.classifiers)
    arrays = [pa.array(c, f.type) for c, f in zip(columns, TOPICS, strict=True)]
    write_columns(attempt.path("topics.parquet"), TOPICS, arrays)
    counts: Json = {
        "docs": int(judged.sum()),
        "classified": found.by_topic.total(),
        "lowConfidence": found.low,
        "byTopic": dict(sorted(found.by_topic.items())),
    }
    if request.fallback:
        counts["bySource"] = dict(sorted(found.by_source.items()))
    return {"outputs": {"topics": [attempt.shard("topics.parquet", rows)]}, "counts": counts}


def is_among(table: pa.Table, column: str, values: list[str]) -> Mask:
    """Rows whose value is one of these."""
    return pc.is_in(table[column], pa.array(values, pa.string())).to_numpy()  # pyright: ignore[reportAttributeAccessIssue]


def row_batches(path: Path, columns: list[str]) -> Iterator[tuple[int, pa.Table]]:
    """The columns of some rows at a time, with the number of the first; a row group of the shard is in memory."""
    begin = 0
    with pq.ParquetFile(path) as file:
        for group in range(file.num_row_groups):
            table = file.read_row_group(group, columns=columns, use_threads=False).combine_chunks()
            for first in range(0, table.num_rows, ROWS_PER_BATCH):
                batch = table.slice(first, ROWS_PER_BATCH)
                yield begin + first, batch
            begin += table.num_rows


def source_topic(source: str) -> str:
    """What stands for a topic where a language has no classifier; no taxonomy has a topic with a colon."""
    return f"source:{source}"
