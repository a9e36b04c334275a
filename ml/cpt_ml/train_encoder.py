"""Fine-tuning of an encoder on labelled documents (arXiv:1810.04805, section 3.2): bounded, balanced, deterministic."""

from __future__ import annotations

import heapq
import math
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import cycle, islice
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from cpt_ml.encoder import CHARS_PER_TOKEN, Encoder, TokenIds
from cpt_ml.errors import BadData, Diverged
from cpt_ml.hash_share import share_of
from cpt_ml.job import Job
from cpt_ml.store import Json
from cpt_ml.topic_classifier import EncoderSettings

WARM_UP_SHARE = 0.1
WEIGHT_DECAY = 0.01
CLIP_NORM = 1.0
WATCHED_SHARE = 0.1  # of what is trained on, set aside to tell when to stop
PROBE_STEPS = 3
DOCS_AT_ONCE = 256


@dataclass(frozen=True)
class Labelled:
    """A document with its topic's number; `text` as far as an encoder may look at it."""

    share: float
    id: str
    topic: int
    text: str


class Drawn:
    """A bounded sample of the labelled documents: by hash, so whatever their order and however many they are."""

    def __init__(self, settings: EncoderSettings, topics: Sequence[str], test_share: float, seed: int) -> None:
        self._settings = settings
        self._numbers = {topic: i for i, topic in enumerate(topics)}
        self._test_share, self._seed = test_share, seed
        self._train: defaultdict[int, list[tuple[float, str, str]]] = defaultdict(list)
        self._test: list[tuple[float, str, int, str]] = []

    def add(self, id: str, topic: str, text: str) -> None:
        """One document more: to train on at most `docs_per_topic` of each topic, to judge by as many in all."""
        share, number = share_of(self._seed, id), self._numbers[topic]
        text = text[: CHARS_PER_TOKEN * self._settings.max_tokens]
        most = self._settings.docs_per_topic
        if share < self._test_share:
            _keep(self._test, (-share, id, number, text), most * len(self._numbers))
        else:
            _keep(self._train[number], (-share, id, text), most)

    def parts(self) -> tuple[list[Labelled], list[Labelled]]:
        """Those to train on and those to judge by, in the order of their hash."""
        train = [Labelled(-s, id, n, text) for n, of in self._train.items() for s, id, text in of]
        test = [Labelled(-s, id, n, text) for s, id, n, text in self._test]
        return sorted(train, key=_place), sorted(test, key=_place)


def _place(doc: Labelled) -> tuple[float, str]:
    return doc.share, doc.id


def _keep(heap: list[Any], entry: Any, most: int) -> None:
    if len(heap) < most:
        heapq.heappush(heap, entry)
    else:
        heapq.heappushpop(heap, entry)


def fine_tuned(
    job: Job, settings: EncoderSettings, topics: list[str], docs: Sequence[Labelled], seed: int
) -> tuple[Encoder, Json]:
    """An encoder trained on these documents, and {parameters, epochs, tokens} of what was done.

    One seed and one number of threads give the same bytes on a CPU. AdamW with a linear warm-up and decay of the
    learning rate; a batch has the topics in turn, the rare ones again and again. Raises BadRequest if the checkpoint
    is unfit, Diverged where the loss is not finite.
    """
    job.beat("train-topic-classifier: opening the encoder")
    folder = job.store.folder(settings.model)
    encoder = Encoder.untrained(folder, topics, settings.max_tokens, job.threads, seed)
    rows: list[TokenIds] = []
    for first in range(0, len(docs), DOCS_AT_ONCE):
        job.beat("train-topic-classifier: cutting into tokens", first, len(docs), "documents")
        rows += map(_nonempty, encoder.encode([d.text for d in docs[first : first + DOCS_AT_ONCE]]))
    watched = [i for i, d in enumerate(docs) if settings.patience and share_of(seed + 1, d.id) < WATCHED_SHARE]
    trained = sorted({*range(len(docs))} - {*watched})
    if not trained or (settings.patience and not watched):
        raise BadData(f"train-topic-classifier: {len(docs)} documents are too few to set some aside for patience")
    training = Training(job, encoder, settings, rows, [d.topic for d in docs], len(trained))
    best, since, done = math.inf, 0, 0
    kept: dict[str, torch.Tensor] | None = None
    for epoch in range(settings.epochs):
        training.epoch(epoch, trained, seed)
        done = epoch + 1
        if not settings.patience:
            continue
        loss = training.loss(watched)
        job.log("encoder-epoch", epoch=done, watchedDocuments=len(watched), loss=round(loss, 4))
        since += 1
        if loss < best:
            best, since = loss, 0
            kept = {name: t.detach().cpu().clone() for name, t in encoder.model.state_dict().items()}
        if since >= settings.patience:
            break
    if kept is not None:
        encoder.model.load_state_dict(kept)
    encoder.model.eval()
    return encoder, {"parameters": encoder.parameters, "epochs": done, "tokens": training.tokens}


def _nonempty(ids: TokenIds) -> TokenIds:
    """A text without a token is one of padding: its label counts all the same."""
    return ids if len(ids) else np.zeros(1, dtype=np.int32)


class Training:
    """The optimizer of an encoder, its schedule and its beats."""

    def __init__(  # noqa: PLR0917
        self, job: Job, encoder: Encoder, settings: EncoderSettings, rows: list[TokenIds], topics: list[int], docs: int
    ) -> None:
        self._job, self._encoder, self._settings = job, encoder, settings
        self._rows, self._topics = rows, topics
        self.steps = settings.epochs * -(-docs // settings.batch_docs)
        self.step = 0
        self.tokens = 0
        self._docs = docs
        self._began = 0.0
        decayed = [p for p in encoder.model.parameters() if p.ndim > 1]
        plain = [p for p in encoder.model.parameters() if p.ndim <= 1]
        groups = [{"params": decayed, "weight_decay": WEIGHT_DECAY}, {"params": plain, "weight_decay": 0.0}]
        self._optimizer = torch.optim.AdamW(groups, lr=settings.learning_rate, foreach=False)

    def epoch(self, epoch: int, trained: Sequence[int], seed: int) -> None:
        """As many documents as there are, their topics in turn."""
        self._encoder.model.train()
        torch.manual_seed(int(np.random.SeedSequence([seed, epoch]).generate_state(1, np.uint64)[0]))
        order = balanced([self._topics[i] for i in trained], np.random.default_rng([seed, epoch]))
        while batch := [trained[i] for i in islice(order, self._settings.batch_docs)]:
            self._learn(batch)

    def _learn(self, batch: list[int]) -> None:
        logits_BC = self._encoder.logits([self._rows[i] for i in batch])
        topics_B = torch.tensor([self._topics[i] for i in batch], device=logits_BC.device)
        loss = F.cross_entropy(logits_BC, topics_B)
        value = loss.item()
        if not math.isfinite(value):
            raise Diverged(
                f"train-topic-classifier: the loss is {value} at step {self.step + 1} of {self.steps}; does the encoder"
                f" hold NaN, or is its learning rate {self._settings.learning_rate} too high?"
            )
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self._encoder.model.parameters(), CLIP_NORM)
        for group in self._optimizer.param_groups:
            group["lr"] = self._settings.learning_rate * rate_share(self.step, self.steps)
        self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)
        self.step += 1
        self.tokens += sum(len(self._rows[i]) for i in batch)
        self._tell(value)

    def _tell(self, loss: float) -> None:
        """A beat; after the first steps it says what all of them will take."""
        more: Json = {"step": self.step, "tokens": self.tokens, "loss": round(loss, 4)}
        if self.step == 1:
            self._began = time.monotonic()  # the first step warms up
        elif self.step == min(self.steps, 1 + PROBE_STEPS):
            total = self.tokens * self.steps // self.step
            seconds = (time.monotonic() - self._began) / (self.step - 1) * self.steps
            gpu_hours = seconds / 3600 if self._encoder.device == "cuda" else 0.0
            flop = 6.0 * self._encoder.parameters * total
            estimate = {"tokens": total, "flop": flop, "seconds": round(seconds, 1), "gpuHours": round(gpu_hours, 4)}
            self._job.log("estimate", device=self._encoder.device, parameters=self._encoder.parameters, **estimate)
            more["estimate"] = estimate
        self._job.beat("train-topic-classifier: fine-tuning", self.step, self.steps, "steps", **more)

    def loss(self, watched: Sequence[int]) -> float:
        """Mean nats of documents that are not trained on."""
        self._encoder.model.eval()
        nats = 0.0
        for first in range(0, len(watched), self._settings.batch_docs):
            batch = watched[first : first + self._settings.batch_docs]
            with torch.inference_mode():
                logits_BC = self._encoder.logits([self._rows[i] for i in batch])
                topics_B = torch.tensor([self._topics[i] for i in batch], device=logits_BC.device)
                nats += F.cross_entropy(logits_BC, topics_B, reduction="sum").item()
            self._job.beat("train-topic-classifier: watching", first, len(watched), "documents")
        return nats / len(watched)


def rate_share(step: int, steps: int) -> float:
    """The share of the peak learning rate at a step, from 0: up in the first tenth, then down to 0."""
    warm_up = max(1, round(WARM_UP_SHARE * steps))
    return (step + 1) / warm_up if step < warm_up else (steps - step) / max(1, steps - warm_up)


def balanced(topics: Sequence[int], rng: np.random.Generator) -> Iterator[int]:
    """As many places in `topics` as it has, the topics in turn, each one's places shuffled and again when used up."""
    by_topic: defaultdict[int, list[int]] = defaultdict(list)
    for i, topic in enumerate(topics):
        by_topic[topic].append(i)
    queues = [_endless(by_topic[topic], rng) for topic in sorted(by_topic)]
    return islice((next(queue) for queue in cycle(queues)), len(topics))


def _endless(places: list[int], rng: np.random.Generator) -> Iterator[int]:
    while True:
        yield from (places[i] for i in rng.permutation(len(places)))
