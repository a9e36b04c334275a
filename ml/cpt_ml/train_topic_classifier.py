"""train-topic-classifier: a classifier of one language (arXiv:2407.18743, topic-based mixture)."""

from __future__ import annotations

import ctypes
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from cpt_ml.contract import parse
from cpt_ml.corpus import keep_mask, read_column, read_rows
from cpt_ml.errors import BadData, BadRequest
from cpt_ml.hash_share import share_of
from cpt_ml.job import Job
from cpt_ml.store import ArtifactRef, Attempt, Json
from cpt_ml.topic_classifier import EncoderSettings, fasttext_label, predict_lines, topic_of
from cpt_ml.topic_metrics import Judged
from cpt_ml.topic_text import topic_text

LINES_PER_BATCH = 512


@dataclass(frozen=True)
class TrainTopicClassifierRequest:
    """The stage's request; `topics` are the taxonomy's, `labels` a sidecar of label-topics."""

    corpus: ArtifactRef
    drops: list[ArtifactRef]
    labels: ArtifactRef | None
    language: str
    taxonomy: str
    topics: list[str]
    kinds: list[str]
    test_share: float
    epochs: int
    learning_rate: float
    dimension: int
    buckets: int
    word_ngrams: int
    seed: int
    encoder: EncoderSettings | None


@dataclass(frozen=True)
class Parts:
    """The labelled documents as lines of fastText, those to judge by apart from those to train on."""

    train: Path
    test: Path
    num_train: int
    num_test: int


def run(job: Job) -> None:
    """Writes `classifier.bin`, or with `encoder` the folder `classifier/`, trained on the training part alone: the
    stored model is the one that was judged.

    A document is for testing by a hash of seed and id, so it stays so when others come. One seed (and for fastText one
    thread) gives the same bytes. Result: numTrain, numTest and topic_metrics; with `encoder` also {parameters, epochs,
    tokens}. Raises BadData if either part has no document.
    """
    request = parse(TrainTopicClassifierRequest, job.request)
    attempt = job.attempt()
    result = train_fasttext(job, request, attempt) if request.encoder is None else train_encoder(job, request, attempt)
    job.commit(attempt, {**result, "taxonomy": request.taxonomy})


def train_fasttext(job: Job, request: TrainTopicClassifierRequest, attempt: Attempt) -> Json:
    """Texts pass through files in the job's folder, a row group in memory at a time; the model itself has 4·dimension
    bytes for each different word and each bucket."""
    parts = write_parts(job, request)
    check_parts(request, parts.num_train, parts.num_test)
    job.beat("train-topic-classifier: fitting", 0, parts.num_train, "documents")
    model = fit(request, parts.train)
    model.save_model(str(attempt.path("classifier.bin")))
    judged = Judged(request.topics)
    for batch in batches(parts.test):
        predicted = predict_lines(model, [text for _, text in batch])
        for (topic, _), (found, probability) in zip(batch, predicted, strict=True):
            judged.add(topic, found, probability)
        job.beat("train-topic-classifier: judging", judged.docs, parts.num_test, "documents")
    parts.train.unlink()
    parts.test.unlink()
    counts = {"numTrain": parts.num_train, "numTest": parts.num_test}
    return {"classifier": attempt.ref("classifier.bin"), **counts, **judged.metrics()}


def train_encoder(job: Job, request: TrainTopicClassifierRequest, attempt: Attempt) -> Json:
    """Of each topic at most `docsPerTopic` documents are trained on; their beginnings are in memory. Judged is what was
    written, read as classify-topics will read it."""
    from cpt_ml.encoder import Encoder  # noqa: PLC0415 - imports torch and transformers
    from cpt_ml.train_encoder import Drawn, fine_tuned  # noqa: PLC0415

    settings = request.encoder
    assert settings is not None
    drawn = Drawn(settings, request.topics, request.test_share, request.seed)
    for doc in labelled(job, request):
        drawn.add(*doc)
    train, test = drawn.parts()
    check_parts(request, len(train), len(test))
    model, trained = fine_tuned(job, settings, request.topics, train, request.seed)
    model.save(attempt.folder / "classifier")
    del model
    stored = Encoder.trained(attempt.folder / "classifier", job.threads)
    judged = Judged(request.topics)

    def tick() -> None:
        job.beat("train-topic-classifier: judging", judged.docs, len(test), "documents")

    for first in range(0, len(test), LINES_PER_BATCH):
        batch = test[first : first + LINES_PER_BATCH]
        for doc, (found, probability) in zip(batch, stored.predict([d.text for d in batch], tick), strict=True):
            judged.add(request.topics[doc.topic], found, probability)
    counts = {"numTrain": len(train), "numTest": len(test), "encoder": trained}
    return {"classifier": attempt.folder_ref("classifier/"), **counts, **judged.metrics()}


def check_parts(request: TrainTopicClassifierRequest, train: int, test: int) -> None:
    """Raises BadData if there is nothing to train on, or to judge by."""
    if not train or not test:
        what = f"{train} labelled documents to train on and {test} to judge by"
        raise BadData(f"train-topic-classifier: {request.language} has {what}, expected at least one of each")


def write_parts(job: Job, request: TrainTopicClassifierRequest) -> Parts:
    """Lines of the documents whose topic is one of the taxonomy, in corpus order, in two files of the job's folder."""
    train, test = job.folder / "train.txt", job.folder / "test.txt"
    counts = [0, 0]
    with train.open("w", encoding="utf-8") as to_train, test.open("w", encoding="utf-8") as to_test:
        for id, topic, text in labelled(job, request):
            is_test = share_of(request.seed, id) < request.test_share
            counts[is_test] += 1
            (to_test if is_test else to_train).write(f"{fasttext_label(topic)} {topic_text(text)}\n")
    return Parts(train, test, *counts)


def labelled(job: Job, request: TrainTopicClassifierRequest) -> Iterator[tuple[str, str, str]]:
    """Id, topic and text of each labelled document of the language and kinds, in corpus order.

    The topic is the one that label-topics found, else the one that the source gave.
    """
    corpus = list(job.store.shards(request.corpus))
    drops = [list(job.store.shards(d)) for d in request.drops]
    labels = list(job.store.shards(request.labels)) if request.labels else None
    if labels and len(labels) != len(corpus):
        raise BadRequest(f"train-topic-classifier: {len(corpus)} corpus and {len(labels)} label shards")
    topics = {spelling(topic): topic for topic in request.topics}
    for i, path in enumerate(corpus):
        job.beat("train-topic-classifier: reading", i, len(corpus), "shards")
        mask = keep_mask(path, [d[i] for d in drops])
        found = read_column(labels[i], "label") if labels else [None] * len(mask)
        if len(found) != len(mask):
            raise BadRequest(f"train-topic-classifier: shard {i} has {len(mask)} rows and {len(found)} labels")
        rows = read_rows(path, ["id", "text", "language", "kind", "label"])
        for keep, given, row in zip(mask, found, rows, strict=True):
            topic = topics.get(spelling(given or row["label"] or ""))
            if keep and row["language"] == request.language and row["kind"] in request.kinds and topic:
                yield row["id"], topic, row["text"]


def spelling(topic: str) -> str:
    """A topic's letters and digits: sources leave out its commas, or write it in capitals."""
    return "".join(c for c in topic.casefold() if c.isalnum())


def batches(path: Path) -> Iterator[list[tuple[str, str]]]:
    """Topic and text of the lines of a file, some at a time."""
    with path.open(encoding="utf-8") as lines:
        while batch := [line.rstrip("\n").split(" ", 1) for line in islice(lines, LINES_PER_BATCH)]:
            yield [(topic_of(label), text) for label, text in batch]


def fit(request: TrainTopicClassifierRequest, path: Path) -> Any:
    """A fastText model trained on the lines of a file."""
    import fasttext  # noqa: PLC0415

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
