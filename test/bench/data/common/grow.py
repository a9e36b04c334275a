"""Stages over so many documents: `grow.py prepare|measure --work DIR --docs N --shard-docs M --seed S --stage S`.

`prepare` makes the corpus and commits what the stages read, once for all of them; `measure`, in a process of its own,
runs one stage as a job does and prints {"seconds", "peakMiB"}: the seconds of the processor that the stage takes, and
the peak resident memory of the process.
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
import time
from pathlib import Path

home = Path(__file__).parents[4]
sys.path[:0] = [str(home / "ml" / "tests"), str(home / "test" / "bench" / "data")]

import pyarrow as pa  # noqa: E402
from cpt_ml.store import Json  # noqa: E402

from conftest import Workbench  # noqa: E402
from documents import request, source  # noqa: E402
from enlarge import enlarged, sample_documents  # noqa: E402

KINDS = ["web", "encyclopedia", "book", "qa", "paper", "math", "code"]
SCORED = 32  # tokens a document: what the model costs grows with the tokens, and 30,000 whole documents take an hour
TRAINED_ON = 3000  # documents, whatever the corpus: the classifiers are not what grows


def prepare(args: argparse.Namespace) -> None:
    """A corpus of source files of --shard-docs documents, and what the stages read beside it."""
    workbench = Workbench(args.work)
    sample = sample_documents(home / "samples" / "corpus")
    docs = [doc for doc, _ in enlarged(sample, args.docs, args.seed)]
    shards = [docs[at : at + args.shard_docs] for at in range(0, len(docs), args.shard_docs)]
    sources = [source(workbench, f"part-{i:03d}", _lines(shard)) for i, shard in enumerate(shards)]
    corpus = workbench.run("ingest", request("ingest", sources=sources, maxQuarantineRatio=1.0))["corpus"]
    of: Json = {"corpus": corpus, "drops": []}
    tokenizer = workbench.put("tokenizer.json", (home / "samples" / "base" / "tokenizer.json").read_bytes())
    signatures = workbench.run("dedup-signatures", request("dedup-signatures", **of))["signatures"]
    classifiers = _classifiers(workbench, docs[:TRAINED_ON], args.seed)
    topics: Json = {**of, "classifiers": classifiers, "kinds": KINDS}
    requests = {
        "ingest": request("ingest", sources=sources, maxQuarantineRatio=1.0),
        "filter": request("filter", corpus=corpus),
        "dedup-signatures": request("dedup-signatures", **of),
        "dedup": request("dedup", **of, signatures=signatures),
        "decontaminate": request("decontaminate", **of, benchmarks=_benchmarks(workbench)),
        "classify-topics": request("classify-topics", **topics),
        "tokenize": request("tokenize", **of, tokenizer=tokenizer),
    }
    made = {
        "topics": workbench.run("classify-topics", requests["classify-topics"])["topics"],
        "duplicates": workbench.run("dedup", requests["dedup"])["verdicts"],
        **{k: v for k, v in workbench.run("tokenize", requests["tokenize"]).items() if k in {"tokens", "index"}},
    }
    requests["hold-out"] = request("hold-out", **of, topics=made["topics"], duplicates=made["duplicates"])
    requests["count-strata"] = request("count-strata", corpus=corpus, topics=made["topics"], index=made["index"])
    for path in (home / "samples" / "base").iterdir():
        workbench.put(f"base/{path.name}", path.read_bytes())
    requests["score-ppl"] = request(
        "score-ppl",
        tokens=made["tokens"],
        index=made["index"],
        scorer=workbench.ref("base/"),
        windowTokens=SCORED,
        strideTokens=SCORED,
        maxTokensPerDoc=SCORED,
    )
    (args.work / "requests.json").write_text(json.dumps(requests))


def _lines(docs: list[dict[str, str]]) -> bytes:
    return b"".join(json.dumps(doc, ensure_ascii=False).encode() + b"\n" for doc in docs)


def _classifiers(workbench: Workbench, docs: list[dict[str, str]], seed: int) -> Json:
    made = source(workbench, "train", _lines(docs))
    corpus = workbench.run("ingest", request("ingest", sources=[made], maxQuarantineRatio=1.0))["corpus"]
    classifiers: Json = {}
    for language in ("en", "zh"):
        asked = request(
            "train-topic-classifier",
            corpus=corpus,
            drops=[],
            language=language,
            topics=sorted({d["topic"] for d in docs if d["lang"] == language}),
            kinds=KINDS,
            seed=seed,
            epochs=1,
        )
        classifiers[language] = workbench.run("train-topic-classifier", asked)["classifier"]
    return classifiers


def _benchmarks(workbench: Workbench) -> list[Json]:
    found: list[Json] = []
    for path in sorted((home / "samples" / "bench").glob("*.jsonl.zst")):
        name = path.name.split(".")[0]
        data = pa.input_stream(str(path), compression="zstd").read()
        found.append({"name": name, "items": workbench.put(f"bench/{name}.jsonl", data)})
    return found


def measure(args: argparse.Namespace) -> None:
    """One stage, in a store that has what it reads."""
    asked = json.loads((args.work / "requests.json").read_text())[args.stage]
    workbench = Workbench(args.work / f"{args.stage}-{args.run}", store=str(args.work / "store"))
    workbench.roots["files"] = str(args.work / "files")
    began = time.process_time()
    workbench.run(args.stage, asked)
    seconds = time.process_time() - began
    # kilobytes on Linux, bytes on macOS
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1024 if sys.platform == "linux" else 1 << 20)
    print(json.dumps({"seconds": seconds, "peakMiB": peak}))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("act", choices=["prepare", "measure"])
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--stage", help="which to measure")
    parser.add_argument("--docs", type=int, required=True)
    parser.add_argument("--shard-docs", type=int, required=True)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--run", default="first")
    arguments = parser.parse_args()
    (prepare if arguments.act == "prepare" else measure)(arguments)
