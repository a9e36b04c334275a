"""train-topic-classifier: a fastText classifier of one language (arXiv:2407.18743, topic-based mixture)."""

from __future__ import annotations

import ctypes
import hashlib
from collections import Counter
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from cpt_ml.contract import parse
from cpt_ml.corpus import keep_mask, read_rows
from cpt_ml.errors import BadData
from cpt_ml.job import Job
from cpt_ml.store import ArtifactRef, Json
from cpt_ml.topic_text import topic_text

LABEL = "__label__"


@dataclass(frozen=True)
class TrainTopicClassifierRequest:
    """The stage's request; `topics` are the taxonomy's."""

    corpus: ArtifactRef
    drops: list[ArtifactRef]
    language: str
    taxonomy: Literal["syne-en/1", "syne-zh/1"]
    topics: list[str]
    kinds: list[str]
    test_share: float
    epochs: int
    learning_rate: float
    dimension: int
    buckets: int
    word_ngrams: int
    seed: int


@dataclass(frozen=True)
class Labelled:
    """A document with its topic, as the classifier sees it."""

    topic: str
    text: str
    test: bool


def run(job: Job) -> None:
    """Writes `classifier.bin`, trained on the training part alone: the stored model is the one that was judged.

    A document is for testing by a hash of seed and id, so it stays so when others come. One thread and one seed: the
    same request gives the same bytes. Result: numTrain, numTest, accuracy, and precision, recall and support a topic.
    Raises BadData if either part has no document.
    """
    request = parse(TrainTopicClassifierRequest, job.request)
    docs = labelled(job, request)
    train, test = [d for d in docs if not d.test], [d for d in docs if d.test]
    if not train or not test:
        what = f"{len(train)} labelled documents to train on and {len(test)} to judge by"
        raise BadData(f"train-topic-classifier: {request.language} has {what}, expected at least one of each")
    job.beat("train-topic-classifier: fitting", 0, len(train), "documents")
    model = fit(request, train, job.folder / "train.txt")
    attempt = job.attempt()
    model.save_model(str(attempt.path("classifier.bin")))
    predicted = [topic for topic, _ in predict(model, [d.text for d in test])]
    accuracy = sum(p == d.topic for p, d in zip(predicted, test, strict=True)) / len(test)
    job.commit(
        attempt,
        {
            "classifier": attempt.ref("classifier.bin"),
            "taxonomy": request.taxonomy,
            "numTrain": len(train),
            "numTest": len(test),
            "accuracy": accuracy,
            "perClass": per_class(request.topics, [d.topic for d in test], predicted),
        },
    )


def labelled(job: Job, request: TrainTopicClassifierRequest) -> list[Labelled]:
    """Documents of the language and kinds whose source gave a topic of the taxonomy, in corpus order."""
    docs: list[Labelled] = []
    drops = [list(job.store.shards(d)) for d in request.drops]
    for i, path in enumerate(job.store.shards(request.corpus)):
        mask = keep_mask(path, [d[i] for d in drops])
        for keep, row in zip(mask, read_rows(path, ["id", "text", "language", "kind", "label"]), strict=True):
            wanted = row["language"] == request.language and row["kind"] in request.kinds
            if keep and wanted and row["label"] in request.topics:
                text = topic_text(row["text"])
                docs.append(Labelled(row["label"], text, share_of(request.seed, row["id"]) < request.test_share))
        job.beat("train-topic-classifier: reading", i, 0, "shards")
    return docs


def fit(request: TrainTopicClassifierRequest, docs: Sequence[Labelled], path: Path) -> Any:
    """A trained fastText model; `path` is where its training text may lie."""
    import fasttext  # noqa: PLC0415

    lines = "".join(f"{LABEL}{d.topic.replace(' ', '_')} {d.text}\n" for d in docs)
    path.write_text(lines, encoding="utf-8")
    with zeroed_memory():
        return fasttext.train_supervised(
            input=str(path),
            epoch=request.epochs,
            lr=request.learning_rate,
            dim=request.dimension,
            bucket=request.buckets,
            wordNgrams=request.word_ngrams,
            seed=request.seed,
            thread=1,
            verbose=0,
        )


@contextmanager
def zeroed_memory() -> Generator[None]:
    """Has glibc hand out memory that is zeroed.

    With one thread fastText 0.9.2 initialises the first tenth of its input matrix and trains on whatever lies in the
    rest: what others left there makes models differ, or fail with "Encountered NaN".
    """
    fill_with_complement = -6  # M_PERTURB
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):  # another C library
        yield
        return
    mallopt(fill_with_complement, 255)
    try:
        yield
    finally:
        mallopt(fill_with_complement, 0)


def predict(model: Any, texts: Sequence[str]) -> list[tuple[str, float]]:
    """The likeliest topic of each prepared text, and its probability; ("", 0.0) where the model knows no word of it."""
    labels, probabilities = model.predict(list(texts))
    return [
        (of[0].removeprefix(LABEL).replace("_", " "), min(1.0, float(p[0]))) if len(of) else ("", 0.0)
        for of, p in zip(labels, probabilities, strict=True)
    ]


def per_class(topics: Sequence[str], truth: Sequence[str], predicted: Sequence[str]) -> list[Json]:
    """Precision, recall and support of each topic; 0 where there is nothing to divide by."""
    right = Counter(t for t, p in zip(truth, predicted, strict=True) if t == p)
    said, there = Counter(predicted), Counter(truth)
    return [
        {
            "topic": topic,
            "precision": right[topic] / max(1, said[topic]),
            "recall": right[topic] / max(1, there[topic]),
            "support": there[topic],
        }
        for topic in topics
    ]


def share_of(seed: int, id: str) -> float:
    """A number in [0, 1) by hash of seed and id, whatever the order of documents."""
    return int.from_bytes(hashlib.sha256(f"{seed}:{id}".encode()).digest()[:6], "big") / (1 << 48)
