"""How good a classifier is on documents that it was not trained on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from cpt_ml.store import Json

OTHERS = "Others"
BINS = 20


class Judged:
    """Counts of documents by their topic, the topic predicted ("" for none) and the prediction's probability."""

    def __init__(self, topics: Sequence[str]) -> None:
        self.topics = list(topics)
        self._pairs: Counter[tuple[str, str]] = Counter()
        self._bins = [[0, 0] for _ in range(BINS)]

    def add(self, truth: str, predicted: str, probability: float) -> None:
        """One document more."""
        self._pairs[truth, predicted] += 1
        of_bin = self._bins[min(BINS - 1, int(probability * BINS))]
        of_bin[0] += 1
        of_bin[1] += truth == predicted

    @property
    def docs(self) -> int:
        return self._pairs.total()

    def metrics(self) -> Json:
        """`accuracy`, `macroF1` (mean over topics that have a document), `perClass`, `confusion`, `othersRatio` and
        `confidence`.

        `confusion[t][p]` counts documents of topic t that got topic p, in the order of the topics; its last column
        is of documents in which the classifier knew no word. Those and what was predicted to be Others make up
        `othersRatio`. `confidence` has for each twentieth of probability the documents and how many of them are right.
        """
        right = sum(n for (truth, predicted), n in self._pairs.items() if truth == predicted)
        per_class = [self._of(topic) for topic in self.topics]
        scored = [c["f1"] for c in per_class if c["support"] > 0]
        others = sum(n for (_, predicted), n in self._pairs.items() if predicted in (OTHERS, ""))
        return {
            "accuracy": right / max(1, self.docs),
            "macroF1": sum(scored) / max(1, len(scored)),
            "perClass": per_class,
            "confusion": [[self._pairs[truth, p] for p in (*self.topics, "")] for truth in self.topics],
            "othersRatio": others / max(1, self.docs),
            "confidence": [{"from": i / BINS, "docs": n, "right": r} for i, (n, r) in enumerate(self._bins)],
        }

    def _of(self, topic: str) -> Json:
        """Precision, recall, F1 and support of a topic; 0 where there is nothing to divide by."""
        right = self._pairs[topic, topic]
        said = sum(n for (_, predicted), n in self._pairs.items() if predicted == topic)
        there = sum(n for (truth, _), n in self._pairs.items() if truth == topic)
        return {
            "topic": topic,
            "precision": right / max(1, said),
            "recall": right / max(1, there),
            "f1": 2 * right / max(1, said + there),
            "support": there,
        }
