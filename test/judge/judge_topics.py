"""Topic classifiers trained on one JSON Lines file and judged on a folder of held-out ones, by the stages themselves.

`judge_topics.py --train FILE --heldout FOLDER [--json FILE] [--seed N] [--encoder FOLDER [--settings JSON]]`. Lines
have id, text, lang, kind and topic; a
language is judged if the training file has two topics of it. Prints for each language accuracy, mean F1, share of
Others, each topic's precision, recall and support, and what was taken for what; then the accuracy with fastText's own
settings. With --encoder the checkpoint in a folder is fine-tuned in place of fastText, with
--settings over the defaults (docs/data-formats.md), as '{"epochs": 8}'.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
from collections import defaultdict
from pathlib import Path

home = Path(__file__).parents[2]
sys.path.insert(0, str(home / "ml" / "tests"))

from cpt_ml.store import Json  # noqa: E402
from cpt_ml.topic_metrics import Judged  # noqa: E402

from conftest import Workbench  # noqa: E402
from documents import ingest, request, rows, source  # noqa: E402

KINDS = ["web", "encyclopedia", "book", "qa", "paper", "math", "code"]
SUFFIXES = (".jsonl", ".jsonl.gz", ".jsonl.zst")
# what fastText takes where nothing is said; without n-grams it has no buckets
DEFAULTS: Json = {"epochs": 5, "learningRate": 0.1, "dimension": 100, "wordNgrams": 1, "buckets": 1000}

# contracts/src/topics.ts
ENCODER: Json = {"maxTokens": 256, "epochs": 4, "patience": 0, "learningRate": 5e-5, "batchDocs": 32,
                 "docsPerTopic": 2000}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--train", type=Path, required=True)
    parser.add_argument("--heldout", type=Path, required=True)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--seed", type=int, default=42)
    parser.add_argument("--encoder", type=Path)
    parser.add_argument("--settings", type=json.loads, default={})
    args = parser.parse_args()
    files = sorted(p for p in args.heldout.iterdir() if p.name.endswith(SUFFIXES)) if args.heldout.is_dir() else []
    if not args.train.is_file() or not files:
        parser.error(f"expected a file at --train and a folder with {', '.join(SUFFIXES)} at --heldout")
    if args.encoder and not args.encoder.is_dir():
        parser.error(f"expected a folder with config.json, model.safetensors and tokenizer.json at {args.encoder}")
    with tempfile.TemporaryDirectory(prefix="cpt-judge-") as folder:
        found = judge(Path(folder), args.train, files, seed=args.seed, encoder=args.encoder, settings=args.settings)
    for language, of in found["languages"].items():
        print(told(language, of))
    if args.json:
        args.json.write_text(json.dumps(found, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")


def judge(
    folder: Path,
    train: Path,
    heldout: list[Path],
    *,
    seed: int = 42,
    encoder: Path | None = None,
    settings: Json | None = None,
) -> Json:
    """Metrics by language, with the stages' defaults, and the accuracy with fastText's own.

    `settings` are over the defaults of the encoder, where its folder is given.
    """
    bench = Workbench(folder)
    corpus = ingested(bench, [train], "train")
    judged = ingested(bench, heldout, "heldout")
    topics: defaultdict[str, set[str]] = defaultdict(set)
    for row in rows(bench, corpus):
        if row["label"]:
            topics[row["language"]].add(row["label"])
    languages = sorted(language for language, of in topics.items() if len(of) > 1)
    asked = {language: request("train-topic-classifier", corpus=corpus, drops=[], language=language, kinds=KINDS,
                               topics=sorted(topics[language]), seed=seed) for language in languages}  # fmt: skip
    engine: Json = {}
    if encoder is not None:
        shutil.copytree(encoder, bench.files / "encoder")
        engine = {"encoder": {"model": bench.ref("encoder/"), **ENCODER, **(settings or {})}}
    ours = {language: bench.run("train-topic-classifier", {**of, **engine}) for language, of in asked.items()}
    plain = {language: bench.run("train-topic-classifier", {**of, **DEFAULTS}) for language, of in asked.items()}
    # without a least probability: by theirs nearly all is Others
    of_ours, of_plain = classified(bench, judged, ours), classified(bench, judged, plain, minProbability=0)
    found: Json = {}
    for language in languages:
        metrics, low = measured(bench, judged, of_ours, language, asked[language]["topics"])
        found[language] = {
            "numTrain": ours[language]["numTrain"],
            "numJudged": sum(c["support"] for c in metrics["perClass"]),
            "lowConfidence": low,
            **metrics,
            "encoder": ours[language].get("encoder"),
            "topics": asked[language]["topics"],
            "ownTestAccuracy": ours[language]["accuracy"],
            "fasttextDefaultsAccuracy": measured(bench, judged, of_plain, language, [])[0]["accuracy"],
        }
    return {"languages": found}


def ingested(bench: Workbench, files: list[Path], name: str) -> Json:
    """A corpus of files that were copied into the workbench."""
    sources = [
        source(bench, f"{name}-{i}", path.read_bytes(), path.name[path.name.index(".jsonl") :])
        for i, path in enumerate(files)
    ]
    return ingest(bench, *sources)["corpus"]


def classified(bench: Workbench, corpus: Json, trained: Json, **settings: object) -> list[Json]:
    """The topics that the classifiers of the languages give, row by row."""
    classifiers = {language: result["classifier"] for language, result in trained.items()}
    asked = request("classify-topics", corpus=corpus, drops=[], classifiers=classifiers, kinds=KINDS, **settings)
    return rows(bench, bench.run("classify-topics", asked)["topics"])


def measured(bench: Workbench, corpus: Json, found: list[Json], language: str, topics: list[str]) -> tuple[Json, int]:
    """Metrics of the labelled documents of a language, and how many were below the least probability."""
    least = request("classify-topics")["minProbability"]
    judged, low = Judged(topics), 0
    for row, of in zip(rows(bench, corpus), found, strict=True):
        if row["language"] == language and row["label"]:
            judged.add(row["label"], of["topic"], of["probability"])
            low += of["probability"] < least
    return judged.metrics(), low


def told(language: str, of: Json) -> str:
    """The figures of a language as lines of text."""
    by = f" by an encoder of {of['encoder']['parameters']} parameters" if of["encoder"] else ""
    width = max(len(t) for t in of["topics"])
    lines = [
        f"{language}: accuracy {of['accuracy']:.3f} on {of['numJudged']} held-out documents{by}"
        f" (trained on {of['numTrain']}; {of['ownTestAccuracy']:.3f} on its own test part),"
        f" mean F1 {of['macroF1']:.3f}, Others {of['othersRatio']:.1%},"
        f" {of['lowConfidence']} below the least probability;"
        f" with fastText's own settings {of['fasttextDefaultsAccuracy']:.3f}",
        f"   {'':{width}}  prec  rec.  docs  taken for 1, 2, …",
    ]
    for i, (c, row) in enumerate(zip(of["perClass"], of["confusion"], strict=True), start=1):
        taken = " ".join(f"{n or '.':>3}" for n in row[:-1])
        lines.append(f"{i:2} {c['topic']:{width}}  {c['precision']:.2f}  {c['recall']:.2f}  {c['support']:4}  {taken}")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
