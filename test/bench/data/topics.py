"""classify-topics beside a loop over raw `fasttext.predict`, with the same models, on one core.

The loop has the texts in memory, line feeds replaced as fastText asks for, and keeps nothing: it neither reads nor
writes. Ours is the job: Parquet in, words taken as in training, topics out. Both get every document of the languages
that have a classifier; a second row gives the loop the very lines that ours predicts from.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

home = Path(__file__).parents[3]
sys.path.insert(0, str(home / "ml" / "tests"))

from cpt_ml.store import Json  # noqa: E402
from cpt_ml.topic_text import topic_text  # noqa: E402

from conftest import Workbench  # noqa: E402
from documents import request, source  # noqa: E402

KINDS = ["web", "encyclopedia", "book", "qa", "paper", "math", "code"]
ROUNDS = 5
REPEATS = 5  # of the corpus, for both sides: a job starts once a shard


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--docs", type=int, required=True)
    parser.add_argument("--seed", type=int, required=True)
    args = parser.parse_args()
    workbench = Workbench(args.work / "topics")
    data = (args.work / "corpus.jsonl").read_bytes() * REPEATS
    corpus = workbench.run(
        "ingest", request("ingest", sources=[source(workbench, "bench", data)], maxQuarantineRatio=1.0)
    )["corpus"]
    docs = [json.loads(line) for line in data.splitlines()]
    classifiers = {language: train(workbench, corpus, docs, language, args.seed) for language in ("en", "zh")}
    for row in compare(workbench, corpus, docs, classifiers):
        print(json.dumps(row), flush=True)


def train(workbench: Workbench, corpus: Json, docs: list[Json], language: str, seed: int) -> Json:
    """A classifier of the usual size, of the topics that the documents have; five epochs do for speed."""
    topics = sorted({d["topic"] for d in docs if d["lang"] == language})
    asked = request(
        "train-topic-classifier", corpus=corpus, drops=[], language=language, topics=topics, kinds=KINDS, seed=seed
    )
    return workbench.run("train-topic-classifier", {**asked, "epochs": 5})["classifier"]


def compare(workbench: Workbench, corpus: Json, docs: list[Json], classifiers: dict[str, Json]) -> Iterator[Json]:
    import fasttext  # noqa: PLC0415

    models = {language: fasttext.load_model(str(workbench.path(ref))) for language, ref in classifiers.items()}
    raw = [(models[d["lang"]], d["text"].replace("\n", " ")) for d in docs]
    prepared = [(models[d["lang"]], topic_text(d["text"])) for d in docs]
    asked = request("classify-topics", corpus=corpus, drops=[], classifiers=classifiers, kinds=KINDS)
    sides: dict[str, Callable[[], object]] = {
        "ours": lambda: workbench.run("classify-topics", asked),
        "raw": lambda: loop(raw),
        "prepared": lambda: loop(prepared),
    }
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(ROUNDS):
        for name, act in sides.items():
            began = time.process_time()
            act()
            seconds[name].append(time.process_time() - began)
    speed = {name: len(docs) / sorted(taken)[ROUNDS // 2] for name, taken in seconds.items()}
    for name, what, goal in (("raw", "texts", 0.9), ("prepared", "lines of words that ours predicts from", None)):
        ratio = speed["ours"] / speed[name]
        yield {
            "measure": f"topics of documents, beside a loop over {what}",
            "ours": speed["ours"],
            "peer": speed[name],
            "peerName": "fasttext.predict",
            "unit": "documents/s",
            "ratio": ratio,
            "goal": "printed" if goal is None else f">= {goal}",
            "holds": goal is None or ratio >= goal,
            "profile": None if goal is None or ratio >= goal else profile(docs, speed),
        }


def loop(texts: list[tuple[Any, str]]) -> None:
    for model, text in texts:
        model.predict(text)


def profile(docs: list[Json], speed: dict[str, float]) -> str:
    began = time.process_time()
    for d in docs:
        topic_text(d["text"])
    words = (time.process_time() - began) / len(docs) * 1e6
    return f"us a document: {words:.0f} words, {1e6 / speed['prepared']:.0f} fastText, {1e6 / speed['ours']:.0f} in all"


if __name__ == "__main__":
    main()
