"""One stage over so many documents: `grow.py prepare|measure --work DIR --stage S --docs N --shard-docs M --seed S`.

`prepare` makes the corpus and commits what the stage reads; `measure`, in a process of its own, runs the stage as a job
does and prints {"seconds", "peakMiB"}: the wall time of the stage and the peak resident memory of the process.
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

from cpt_ml.store import Json  # noqa: E402

from conftest import Workbench  # noqa: E402
from documents import request, source  # noqa: E402
from enlarge import enlarged, sample_documents  # noqa: E402


def prepare(args: argparse.Namespace) -> None:
    """Source files of --shard-docs documents, and where the stage wants it a corpus made of them."""
    workbench = Workbench(args.work)
    sample = sample_documents(home / "samples" / "corpus")
    sources: list[Json] = []
    pending: list[bytes] = []
    for n, (doc, _) in enumerate(enlarged(sample, args.docs, args.seed), start=1):
        pending.append(json.dumps(doc, ensure_ascii=False).encode() + b"\n")
        if n % args.shard_docs == 0 or n == args.docs:
            sources.append(source(workbench, f"part-{len(sources):03d}", b"".join(pending)))
            pending = []
    prepared: Json = {"sources": sources}
    if args.stage != "ingest":
        prepared["corpus"] = workbench.run("ingest", request("ingest", sources=sources, maxQuarantineRatio=1.0))[
            "corpus"
        ]
    if args.stage == "tokenize":
        tokenizer = (home / "samples" / "base" / "tokenizer.json").read_bytes()
        prepared["tokenizer"] = workbench.put("tokenizer.json", tokenizer)
    (args.work / "prepared.json").write_text(json.dumps(prepared))


def asked(stage: str, prepared: Json) -> Json:
    """The stage's golden request over what was prepared."""
    match stage:
        case "ingest":
            return request(stage, sources=prepared["sources"], maxQuarantineRatio=1.0)
        case "filter":
            return request(stage, corpus=prepared["corpus"])
        case "dedup":
            return request(stage, corpus=prepared["corpus"], drops=[])
        case "tokenize":
            return request(stage, corpus=prepared["corpus"], drops=[], tokenizer=prepared["tokenizer"])
        case _:
            raise SystemExit(f"grow.py: expected ingest, filter, dedup or tokenize, got {stage}")


def measure(args: argparse.Namespace) -> None:
    prepared = json.loads((args.work / "prepared.json").read_text())
    workbench = Workbench(args.work / args.run, store=str(args.work / "store"))
    workbench.roots["files"] = str(args.work / "files")
    began = time.process_time()
    workbench.run(args.stage, asked(args.stage, prepared))
    seconds = time.process_time() - began
    # kilobytes on Linux, bytes on macOS
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1024 if sys.platform == "linux" else 1 << 20)
    print(json.dumps({"seconds": seconds, "peakMiB": peak}))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("act", choices=["prepare", "measure"])
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--stage", required=True)
    parser.add_argument("--docs", type=int, required=True)
    parser.add_argument("--shard-docs", type=int, required=True)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--run", default="first")
    arguments = parser.parse_args()
    (prepare if arguments.act == "prepare" else measure)(arguments)
