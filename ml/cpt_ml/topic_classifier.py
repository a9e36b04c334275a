"""What tells a document's topic, whichever engine made it: a file is fastText's, a folder is an encoder's."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from cpt_ml.job import Job
from cpt_ml.store import ArtifactRef
from cpt_ml.topic_text import topic_text

LABEL = "__label__"
Tick = Callable[[], None]


@dataclass(frozen=True)
class EncoderSettings:
    """contracts/src/topics.ts: the checkpoint to fine-tune, and how; `patience` 0 trains all epochs."""

    model: ArtifactRef
    max_tokens: int
    epochs: int
    patience: int
    learning_rate: float
    batch_docs: int
    docs_per_topic: int


class TopicModel(Protocol):
    """A trained classifier."""

    def predict(self, texts: Sequence[str], tick: Tick) -> list[tuple[str, float]]:
        """The likeliest topic of each text and its probability; ("", 0.0) where the model knows nothing of the text.

        `tick` is called while it works, often enough for a beat.
        """
        ...


@dataclass(frozen=True)
class Classifier:
    """A language's model and its digest, which stands beside whatever it decides."""

    model: TopicModel
    digest: str


def open_classifier(job: Job, ref: ArtifactRef) -> Classifier:
    """A classifier of the store. Raises BadRequest if it cannot be used."""
    if not ref.uri.endswith("/"):
        return Classifier(FastText(job, ref), ref.sha256)
    from cpt_ml.encoder import Encoder  # noqa: PLC0415 - imports torch and transformers

    return Classifier(Encoder.trained(job.store.folder(ref), job.threads), ref.sha256)


class FastText:
    """A fastText model, which sees a document's first words (topic_text)."""

    def __init__(self, job: Job, ref: ArtifactRef) -> None:
        import fasttext  # noqa: PLC0415

        self._model = fasttext.load_model(str(job.store.file(ref)))

    def predict(self, texts: Sequence[str], tick: Tick) -> list[tuple[str, float]]:
        """As TopicModel says."""
        found = predict_lines(self._model, [topic_text(text) for text in texts])
        tick()
        return found


def predict_lines(model: Any, lines: Sequence[str]) -> list[tuple[str, float]]:
    """What fastText says of texts that topic_text has prepared."""
    labels, probabilities = model.predict(list(lines))
    return [
        (topic_of(of[0]), min(1.0, float(p[0]))) if len(of) else ("", 0.0)
        for of, p in zip(labels, probabilities, strict=True)
    ]


def fasttext_label(topic: str) -> str:
    """A topic as fastText has it; no topic has an underscore of its own."""
    return LABEL + topic.replace(" ", "_")


def topic_of(label: str) -> str:
    """The topic of a label of fastText."""
    return label.removeprefix(LABEL).replace("_", " ")
