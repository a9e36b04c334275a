"""dedup against datatrove's MinHash, end to end from the same Parquet shards to who stays, on one core.

`<bench python> test/bench/data/dedup.py --work FOLDER --docs N --seed S` with FOLDER/corpus.jsonl; one JSON row a line.
Recall: of the pairs with a Jaccard index of at least .7 over words-v1 5-grams, those of which not both stay.
"""

# ruff: noqa: PLC0415, each side imports its own in a process of its own
from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path
from typing import Any

from common.prepared import (
    WARM_UP_DOCS,
    core_seconds,
    hash_of,
    hold_to_one_core,
    measured,
    prepare,
    quiet,
    row,
    workbench,
)

THRESHOLD = 0.7
SKETCH = 64  # least n-grams of a document by which exact pairs are looked for: similar ones share dozens of them
GOALS = {"english": 40, "whitespace": 10}
MOST_MEGABYTES = 1500


def ours(work: Path, docs: int) -> dict[str, Any]:
    """Both stages as jobs run them, from shards to committed verdicts."""
    from documents import request

    corpus = prepare(work, docs)
    bench = workbench(work, docs)

    def run() -> tuple[float, float, Any]:
        begin = core_seconds()
        asked = {"corpus": corpus, "drops": []}
        signed = bench.run("dedup-signatures", request("dedup-signatures", **asked))
        between = core_seconds()
        result = bench.run("dedup", request("dedup", **asked, signatures=signed["signatures"]))
        return between - begin, core_seconds() - between, result

    signing, finding, result = quiet(run)
    (work / f"kept-ours-{docs}.json").write_text(json.dumps(_kept(bench, result)))
    return {"seconds": signing + finding, "signing": signing, "finding": finding}


def _kept(bench: Any, result: Any) -> list[bool]:
    from cpt_ml.corpus import read_column

    return [keep for path in bench.shards(result["verdicts"]) for keep in read_column(path, "keep")]


def datatrove(work: Path, docs: int, splitting: str) -> dict[str, Any]:
    """Its four steps with their defaults, run by its local executor; the last one's output is counted, not written."""
    from datatrove.executor import LocalPipelineExecutor
    from datatrove.pipeline.dedup import MinhashDedupCluster, MinhashDedupFilter, MinhashDedupSignature
    from datatrove.pipeline.dedup.minhash import MinhashDedupBuckets
    from datatrove.pipeline.readers import ParquetReader

    shards = work / f"datatrove-{docs}"
    shutil.rmtree(shards, ignore_errors=True)
    (shards / "in").mkdir(parents=True)
    for i, path in enumerate(workbench(work, docs).shards(prepare(work, docs))):
        shutil.copy(path, shards / "in" / f"{i:05d}.parquet")
    kept: list[str] = []

    def count(data: Any, rank: int = 0, world_size: int = 1) -> Any:
        for document in data:
            kept.append(document.id)
            yield document

    def run() -> float:
        begin = core_seconds()
        sign = MinhashDedupSignature(str(shards / "signatures"))
        sign._hash_func = hash_of
        if splitting == "whitespace":
            # what it calls so is spaCy's for any language; plain splitting is the faster peer
            sign.word_tokenizer.word_tokenize = str.split
        reader = ParquetReader(str(shards / "in"))
        steps = [
            [reader, sign],
            [MinhashDedupBuckets(str(shards / "signatures"), str(shards / "buckets"))],
            [MinhashDedupCluster(str(shards / "buckets"), str(shards / "removed"))],
            [ParquetReader(str(shards / "in")), MinhashDedupFilter(str(shards / "removed")), count],
        ]
        tasks = [1, 14, 1, 1]
        for i, (pipeline, n) in enumerate(zip(steps, tasks, strict=True)):
            folder = str(shards / f"log-{i}")
            LocalPipelineExecutor(pipeline, tasks=n, workers=1, logging_dir=folder, skip_completed=False).run()
        return core_seconds() - begin

    seconds = quiet(run)
    ids = set(kept)
    everyone = _ids(work, docs)
    (work / f"kept-{splitting}-{docs}.json").write_text(json.dumps([i in ids for i in everyone]))
    return {"seconds": seconds}


def _ids(work: Path, docs: int) -> list[str]:
    from cpt_ml.corpus import read_column

    return [i for path in workbench(work, docs).shards(prepare(work, docs)) for i in read_column(path, "id")]


def similar_pairs(work: Path, docs: int) -> list[tuple[int, int]]:
    """All pairs at or above the threshold: who shares one of the least n-grams is compared exactly."""
    import numpy as np
    from cpt_ml.corpus import read_column
    from cpt_ml.words import WordHashes, gram_hashes, words

    texts = [t for path in workbench(work, docs).shards(prepare(work, docs)) for t in read_column(path, "text")]
    cache = WordHashes()
    grams = [np.unique(gram_hashes(words(t), 5, cache)) for t in texts]
    holders: dict[int, list[int]] = {}
    pairs: set[tuple[int, int]] = set()
    for i, own in enumerate(grams):
        near: set[int] = set()
        for gram in own[:SKETCH].tolist():
            held = holders.setdefault(gram, [])
            near.update(held)
            held.append(i)
        for other in near:
            both = len(np.intersect1d(own, grams[other], assume_unique=True))
            if both >= THRESHOLD * (len(own) + len(grams[other]) - both):
                pairs.add((other, i))
    return sorted(pairs)


def found(pairs: list[tuple[int, int]], kept: list[bool]) -> tuple[float, int]:
    """Share of the pairs of which not both stay, and how many documents went that are similar to none."""
    in_pairs = {i for pair in pairs for i in pair}
    wrong = sum(not keep and i not in in_pairs for i, keep in enumerate(kept))
    return sum(not (kept[a] and kept[b]) for a, b in pairs) / max(1, len(pairs)), wrong


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--docs", type=int, required=True)
    parser.add_argument("--seed", type=int, default=0, help="of the corpus; nothing is drawn here")
    parser.add_argument("--side", choices=["ours", "english", "whitespace"], help="one side alone")
    args = parser.parse_args()
    hold_to_one_core()
    if args.side == "ours":
        quiet(lambda: ours(args.work, WARM_UP_DOCS))
        print(json.dumps(ours(args.work, args.docs)))
        return
    if args.side:
        quiet(lambda: datatrove(args.work, WARM_UP_DOCS, args.side))
        print(json.dumps(datatrove(args.work, args.docs, args.side)))
        return

    def side(name: str) -> dict[str, Any]:
        return measured([__file__, "--work", str(args.work), "--docs", str(args.docs), "--side", name])

    quiet(lambda: prepare(args.work, args.docs))
    pairs = similar_pairs(args.work, args.docs)
    runs = [side("ours")]
    peers: dict[str, dict[str, Any]] = {}
    for splitting in GOALS:
        peers[splitting] = side(splitting)
        runs.append(side("ours"))
    mine = sorted(runs, key=lambda r: r["seconds"])[len(runs) // 2]
    shares = {part: f"{mine[part] / mine['seconds']:.0%}" for part in ("signing", "finding")}
    recall, wrong = found(pairs, json.loads((args.work / f"kept-ours-{args.docs}.json").read_text()))
    for splitting, goal in GOALS.items():
        name = f"datatrove 0.10.1 MinHash, {splitting} words"
        theirs, theirs_wrong = found(pairs, json.loads((args.work / f"kept-{splitting}-{args.docs}.json").read_text()))
        speeds = args.docs / mine["seconds"], args.docs / peers[splitting]["seconds"]
        fast = speeds[0] >= goal * speeds[1]
        profile = None if fast else f"signatures {shares['signing']}, bands and comparison {shares['finding']}"
        row(splitting, speeds, "documents/s of a core", f">= {goal}", holds=fast, peerName=name, profile=profile)
        measure = f"{splitting}: recall of {len(pairs)} pairs"
        row(measure, (recall, theirs), "share", ">= the peer's", holds=recall >= theirs, peerName=name)
        measure = f"{splitting}: dropped without a similar one"
        row(measure, (wrong, theirs_wrong), "documents", "0", holds=wrong == 0, peerName=name)
    peaks = max(r["peakMegabytes"] for r in runs), max(r["peakMegabytes"] for r in peers.values())
    goal = f"<= {MOST_MEGABYTES}"
    row("peak memory", peaks, "MB", goal, holds=peaks[0] <= MOST_MEGABYTES, peerName="datatrove 0.10.1 MinHash")


if __name__ == "__main__":
    main()
