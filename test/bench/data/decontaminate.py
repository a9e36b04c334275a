"""decontaminate against datatrove's n-gram filter, from the same Parquet shards to who stays, on one core.

`<bench python> test/bench/data/decontaminate.py --work FOLDER --docs N --seed S` with FOLDER/corpus.jsonl; one JSON
row a line. Both look for the questions of samples/bench in n-grams of 20 words; the peer's own rule is one hit, so that
verdicts are not compared, only speed.
"""

# ruff: noqa: PLC0415, each side imports its own in a process of its own
from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path
from typing import Any

from common.prepared import (
    HOME,
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

GOAL = 20
NGRAM = 20


def questions() -> dict[str, bytes]:
    """Benchmarks of the samples as JSON Lines."""
    import pyarrow as pa

    found: dict[str, bytes] = {}
    for path in sorted((HOME / "samples" / "bench").glob("*.jsonl.zst")):
        found[path.name.split(".")[0]] = pa.CompressedInputStream(pa.OSFile(str(path)), "zstd").read()
    return found


def ours(work: Path, docs: int) -> dict[str, Any]:
    """The stage as jobs run it, from shards to committed verdicts."""
    from documents import request

    bench = workbench(work, docs)
    items = [{"name": name, "items": bench.put(f"bench/{name}.jsonl", data)} for name, data in questions().items()]
    asked = request("decontaminate", corpus=prepare(work, docs), drops=[], benchmarks=items, ngram=NGRAM)
    begin = core_seconds()
    result = quiet(lambda: bench.run("decontaminate", asked))
    return {"seconds": core_seconds() - begin, "dropped": docs - result["counts"]["kept"]}


def datatrove(work: Path, docs: int) -> dict[str, Any]:
    """Its filter with an index that its own hashing has made, run by its local executor, with its English words."""
    import numpy as np
    from datatrove.executor import LocalPipelineExecutor
    from datatrove.pipeline.decont import NGramsDecontConfig, NGramsDecontFilter
    from datatrove.pipeline.readers import ParquetReader
    from datatrove.utils.text import ngrams, simplify_text

    folder = work / f"decontamination-{docs}"
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "in").mkdir(parents=True)
    (folder / "index").mkdir()
    for i, path in enumerate(workbench(work, docs).shards(prepare(work, docs))):
        shutil.copy(path, folder / "in" / f"{i:05d}.parquet")
    step = NGramsDecontFilter(str(folder / "index"), NGramsDecontConfig(n_grams=NGRAM))
    step.hash_func = hash_of
    kept: list[str] = []

    def count(data: Any, rank: int = 0, world_size: int = 1) -> Any:
        for document in data:
            kept.append(document.id)
            yield document

    begin = core_seconds()
    for name, data in questions().items():
        hashes: set[int] = set()
        for line in data.splitlines():
            tokens = step.tokenizer.word_tokenize(simplify_text(json.loads(line)["question"], step.config.norm_config))
            hashes.update(step.hash_func(" ".join(gram)) for gram in ngrams(tokens, NGRAM))
        array = np.array(sorted(hashes), dtype=step.config.hash_config.np_descr)
        array.tofile(folder / "index" / f"{name}.index.hashes")
    executor = LocalPipelineExecutor(
        [ParquetReader(str(folder / "in")), step, count],
        tasks=1,
        workers=1,
        logging_dir=str(folder / "log"),
        skip_completed=False,
    )
    quiet(executor.run)
    return {"seconds": core_seconds() - begin, "dropped": docs - len(kept)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--docs", type=int, required=True)
    parser.add_argument("--seed", type=int, default=0, help="of the corpus; nothing is drawn here")
    parser.add_argument("--side", choices=["ours", "datatrove"], help="one side alone")
    args = parser.parse_args()
    hold_to_one_core()
    if args.side:
        side = ours if args.side == "ours" else datatrove
        quiet(lambda: side(args.work, WARM_UP_DOCS))
        print(json.dumps(side(args.work, args.docs)))
        return
    quiet(lambda: prepare(args.work, args.docs))
    command = [__file__, "--work", str(args.work), "--docs", str(args.docs), "--side"]
    first, peer, second = (measured([*command, name]) for name in ("ours", "datatrove", "ours"))
    speeds = args.docs / max(first["seconds"], second["seconds"]), args.docs / peer["seconds"]
    fast = speeds[0] >= GOAL * speeds[1]
    name = "datatrove 0.10.1 n-gram filter, english words"
    row("documents a second", speeds, "documents/s of a core", f">= {GOAL}", holds=fast, peerName=name)


if __name__ == "__main__":
    main()
