"""Reads a finished run's store with nothing of ours but the file formats, and prints what it found as JSON.

python check_store.py STORE MODEL; the caller compares the numbers. Raises where a file is missing or
its digest is wrong, where plans overlap, or where the exported model cannot be loaded.
"""

import hashlib
import json
import math
import sys
from pathlib import Path

import pyarrow.parquet as pq


def main(store: Path, model: Path) -> dict:
    records = [json.loads(p.read_bytes()) for p in sorted(store.glob("commits/*/*.json"))]
    by_fingerprint = {r["fingerprint"]: r for r in records}
    return {
        "commits": len(records),
        "files": sum(check_files(store, r) for r in records),
        "ingest": [lines_of(store, by_fingerprint, r) for r in records if is_merged(r, "ingest")],
        "plans": check_plans(store, by_fingerprint, records),
        "phases": [check_phase(store, by_fingerprint, r) for r in records if r["stage"] == "train"],
        "model": load_model(model),
    }


def check_files(store: Path, record: dict) -> int:
    for f in record["files"]:
        data = (store / f["path"]).read_bytes()
        found = hashlib.sha256(data).hexdigest()
        if found != f["sha256"] or len(data) != f["bytes"]:
            raise ValueError(f"{record['stage']}: {f['path']} has sha256 {found}, the record says {f['sha256']}")
    return len(record["files"])


def is_merged(record: dict, stage: str) -> bool:
    return record["stage"] == stage and "units" in record["result"]


def path_of(store: Path, records: dict, uri: str) -> Path:
    fingerprint, _, name = uri.removeprefix("store:").partition("/")
    return store / next(f["path"] for f in records[fingerprint]["files"] if f["name"] == name)


def lines_of(store: Path, records: dict, record: dict) -> dict:
    def rows(kind: str) -> int:
        manifest = json.loads(path_of(store, records, record["result"][kind]["uri"]).read_bytes())
        return sum(pq.read_metadata(path_of(store, records, f"{s['commit']}/{s['name']}")).num_rows for s in manifest["shards"])

    counts = record["result"]["counts"]
    return {"lines": counts["lines"], "kept": rows("corpus"), "quarantined": rows("quarantine"), "counted": [counts["kept"], counts["quarantined"]]}


def check_plans(store: Path, records: dict, all_records: list) -> list:
    """Each plan's pieces lie back to back; within one epoch of one stage no token of a document is drawn twice."""
    found, drawn = [], {}
    for r in (r for r in all_records if r["stage"] == "sample-mixture"):
        plan = json.loads(path_of(store, records, f"{r['fingerprint']}/plan/plan.json").read_bytes())
        pieces = pq.read_table(path_of(store, records, f"{r['fingerprint']}/plan/pieces.parquet")).to_pylist()
        offset = 0
        for p in pieces:
            if p["offset"] != offset:
                raise ValueError(f"plan {r['fingerprint']}: a piece begins at {p['offset']}, expected {offset}")
            offset += p["length"]
            own = p["length"] - p["bos"] - p["eos"]
            pool = r["request"]["pools"][p["pool"]]["tokens"]["sha256"]
            drawn.setdefault((pool, p["shard"], p["row"], p["epoch"]), []).append((p["start"], p["start"] + own))
        found.append({"planned": offset, "stated": r["result"]["numTokens"], "budget": r["request"]["tokenBudget"], "tokenizer": "tokenizer" in plan})
    for where, spans in drawn.items():
        spans.sort()
        for (_, end), (start, _) in zip(spans, spans[1:]):
            if start < end:
                raise ValueError(f"{where}: tokens [{start}, {end}) are drawn twice in one epoch")
    return found


def check_phase(store: Path, records: dict, record: dict) -> dict:
    """The curve has a line a step, and each step took the next global batch: every planned token was a target once."""
    curve = [json.loads(line) for line in path_of(store, records, record["result"]["curve"]["uri"]).read_bytes().splitlines()]
    batch = record["request"]["globalBatchTokens"]
    skipped = {t // batch for a in record["result"].get("amendments", []) for t in range(a["fromToken"], a["toToken"], batch)}
    for i, line in enumerate(curve):
        fits = "skipped" in line if i in skipped else math.isfinite(line.get("loss", math.nan))
        if (line["step"], line["tokens"]) != (i + 1, (i + 1) * batch) or not fits:
            raise ValueError(f"phase {record['fingerprint']}: line {i + 1} of the curve is {line}")
    return {"steps": len(curve), "tokens": curve[-1]["tokens"], "budget": record["request"]["tokenBudget"], "stated": record["result"]["tokens"]}


def load_model(folder: Path) -> dict:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder)
    ids = tokenizer("The lifecycle of a model. 模型的一生。", return_tensors="pt").input_ids
    with torch.no_grad():
        loss = model(ids, labels=ids).loss.item()
    return {"parameters": sum(p.numel() for p in model.parameters()), "loss": loss, "files": sorted(p.name for p in folder.iterdir())}


print(json.dumps(main(Path(sys.argv[1]), Path(sys.argv[2]))))
