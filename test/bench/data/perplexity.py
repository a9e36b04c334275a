"""score-ppl beside a plain transformers loop, one document at a time: the same model, cap, dtype and one core.

`perplexity.py --work DIR --docs N --seed S`. At most CASE documents are scored. Both sides read the token shard that
tokenize wrote; ours ends with the committed sidecar. Their scores are compared: the largest difference is printed.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

home = Path(__file__).parents[3]
sys.path[:0] = [str(home / "ml" / "tests"), str(home / "test" / "bench" / "data")]

import numpy as np  # noqa: E402
from cpt_ml.corpus import read_table  # noqa: E402
from cpt_ml.score_ppl import load_scorer  # noqa: E402
from cpt_ml.store import Json  # noqa: E402

from common.beside import in_turns, profile, row  # noqa: E402
from conftest import Workbench  # noqa: E402
from documents import request, source  # noqa: E402

BASE = home / "samples" / "base"
CAP = 256  # what the sample model was trained with
MIN_TOKENS = 20
CASE = 1000
TOLERANCE = 1e-4  # nats per token; float32


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--docs", type=int, required=True)
    parser.add_argument("--seed", type=int, required=True)
    args = parser.parse_args()
    workbench = Workbench(args.work / "perplexity")
    lines = (args.work / "corpus.jsonl").read_bytes().splitlines(keepends=True)[: min(args.docs, CASE)]
    made = source(workbench, "bench", b"".join(lines))
    corpus = workbench.run("ingest", {"sources": [made], "maxQuarantineRatio": 1.0})["corpus"]
    tokenizer = workbench.put("tokenizer.json", (BASE / "tokenizer.json").read_bytes())
    tokenized = workbench.run("tokenize", request("tokenize", corpus=corpus, drops=[], tokenizer=tokenizer))
    for path in BASE.iterdir():
        workbench.put(f"base/{path.name}", path.read_bytes())
    asked = request(
        "score-ppl", tokens=tokenized["tokens"], index=tokenized["index"], scorer=workbench.ref("base/"),
        windowTokens=CAP, strideTokens=CAP, maxTokensPerDoc=CAP, minTokens=MIN_TOKENS,
    )  # fmt: skip
    results: list[Json] = []
    peer: list[dict[int, float]] = []

    def ours() -> None:
        results[:] = [workbench.run("score-ppl", asked)]

    seconds, peer_seconds = in_turns(ours, plain_loop(workbench, tokenized, peer))
    counts = results[0]["counts"]
    nll = read_table(workbench.shards(results[0]["scores"])[0])["nll"].to_numpy()
    furthest = max(abs(float(nll[i]) - theirs) for i, theirs in peer[0].items())
    if furthest > TOLERANCE or counts["scored"] != len(peer[0]):
        raise SystemExit(f"perplexity: the scores differ by up to {furthest} nats per token from the plain loop's")
    line = row(
        f"tokens scored, scores equal to {furthest:.1e} nats",
        amount=counts["inputTokens"],
        unit="tokens",
        ours=seconds,
        peer=peer_seconds,
        peer_name="transformers, one document at a time",
        least=3,
    )
    print(json.dumps(line if line["holds"] else {**line, "profile": profile(ours)}), flush=True)
    padding = 1 - counts["inputTokens"] / counts["paddedTokens"]
    facts: Json = {"measure": "padding of the tokens computed", "ours": 100 * padding, "peer": None, "peerName": None}
    print(json.dumps({**facts, "unit": "%", "ratio": None, "goal": "< 5", "holds": padding < 0.05, "profile": None}))


def plain_loop(workbench: Workbench, tokenized: Json, found: list[dict[int, float]]) -> Callable[[], None]:
    """What a person writes first: the model's own loss of each document, by row."""
    import torch  # noqa: PLC0415

    model: Any = load_scorer(BASE, "float32", 1)

    def run() -> None:
        tokens = np.fromfile(workbench.shards(tokenized["tokens"])[0], dtype="<u4").astype(np.int64)
        index = read_table(workbench.shards(tokenized["index"])[0]).to_pylist()
        losses: dict[int, float] = {}
        with torch.inference_mode():
            for i, doc in enumerate(index):
                if doc["num_tokens"] < MIN_TOKENS:
                    continue
                ids = torch.from_numpy(tokens[doc["offset"] : doc["offset"] + min(CAP, doc["num_tokens"])])[None]
                losses[i] = float(model(ids, labels=ids).loss)
        found[:] = [losses]

    return run


if __name__ == "__main__":
    main()
