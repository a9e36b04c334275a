"""tokenize beside datatrove's DocumentTokenizer with the same tokenizer.json, both in documents' order.

The script is not called after its stage, since a module `tokenize` on the path would hide Python's own. Ours is the
job, Parquet in, token shard and index out; theirs is a pipeline from JSON Lines. The tokens are compared.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np

home = Path(__file__).parents[3]
sys.path.insert(0, str(home / "ml" / "tests"))

from cpt_ml.store import Json  # noqa: E402

from common.beside import in_turns, profile, row  # noqa: E402
from conftest import Workbench  # noqa: E402
from documents import request, source  # noqa: E402

TOKENIZER = home / "samples" / "base" / "tokenizer.json"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--docs", type=int, required=True)
    parser.add_argument("--seed", type=int, required=True)
    args = parser.parse_args()
    corpus = args.work / "corpus.jsonl"
    workbench = Workbench(args.work / "tokens" / "ours")
    made = source(workbench, "bench", corpus.read_bytes())
    ingested = workbench.run("ingest", {"sources": [made], "maxQuarantineRatio": 1.0})["corpus"]
    tokenizer = workbench.put("tokenizer.json", TOKENIZER.read_bytes())
    asked = request("tokenize", corpus=ingested, drops=[], tokenizer=tokenizer)
    results: list[Json] = []

    def ours() -> None:
        results[:] = [workbench.run("tokenize", asked)]

    theirs = args.work / "tokens" / "theirs"
    seconds, peer_seconds = in_turns(ours, pipeline(workbench, ingested, theirs))
    mine = np.concatenate([np.fromfile(p, dtype="<u4") for p in workbench.shards(results[0]["tokens"])])
    if not np.array_equal(mine, np.fromfile(next((theirs / "out").glob("*.ds")), dtype="<u2")):
        raise SystemExit("tokenize: the tokens differ from datatrove's")
    line = row(
        "tokens of documents",
        amount=args.docs,
        unit="documents",
        ours=seconds,
        peer=peer_seconds,
        peer_name="datatrove 0.10.1, DocumentTokenizer",
        least=1.5,
    )
    print(json.dumps(line if line["holds"] else {**line, "profile": profile(ours)}), flush=True)


def pipeline(workbench: Workbench, corpus: Json, folder: Path) -> Callable[[], None]:
    """datatrove's pipeline over the texts as ingest left them, so that both see the same characters."""
    from datatrove.executor import LocalPipelineExecutor  # noqa: PLC0415
    from datatrove.pipeline.readers import JsonlReader  # noqa: PLC0415
    from datatrove.pipeline.tokens import DocumentTokenizer  # noqa: PLC0415
    from loguru import logger  # noqa: PLC0415
    from pyarrow.parquet import ParquetFile  # noqa: PLC0415

    logger.remove()
    (folder / "in").mkdir(parents=True)
    with (folder / "in" / "corpus.jsonl").open("w", encoding="utf-8") as file:
        for shard in workbench.shards(corpus):
            for doc in ParquetFile(shard).read(columns=["id", "text"]).to_pylist():
                file.write(json.dumps(doc, ensure_ascii=False) + "\n")

    def run() -> None:
        shutil.rmtree(folder / "out", ignore_errors=True)
        tokenizer = DocumentTokenizer(str(folder / "out"), str(TOKENIZER), shuffle_documents=False)
        steps = [JsonlReader(str(folder / "in")), tokenizer]
        logs = str(folder / "logs")
        LocalPipelineExecutor(pipeline=steps, tasks=1, workers=1, skip_completed=False, logging_dir=logs).run()

    return run


if __name__ == "__main__":
    main()
