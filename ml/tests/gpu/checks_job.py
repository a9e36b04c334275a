"""Whole jobs, in processes of their own as a runner starts them: the stage dry-train, which needs no corpus.

It builds the model, trains, saves while it trains on, loads that and compares it number by number, and evaluates. Two
processes meet over gloo and shard the model with FSDP2, on CPUs also where there is a GPU: one has no room for both.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from phase import TINY, make_folder, size_for

from cpt_ml.durable_files import sha256_file, tree_digest
from cpt_ml.store import Json

ML = Path(__file__).parents[2]
STEPS = 4


def dry_train(work: Path, device: str, name: str, dtype: str, **placement: object) -> Json:
    """The committed figures of a job over the model in `work`/model. Raises AssertionError with what it logged."""
    size = TINY if device == "cpu" else size_for(device)
    folder, model = work / name, work / "model"
    folder.mkdir()
    files = [(p.name, sha256_file(p)) for p in sorted(model.iterdir())]
    spec: Json = {
        "format": "cpt-job/1", "stage": "dry-train", "version": 1, "fingerprint": sha256_of(name), "range": 0,
        "attempt": 1, "token": "attempt-1", "roots": {"store": str(work / "store"), "files": str(work)}, "units": None,
        "parents": [], "leaseSeconds": 3600,
        "placement": {"runner": "local", "threads": 1, "batchTokens": 2 * size.tokens, **placement},
        "request": {
            "model": {"uri": "files:model/", "sha256": tree_digest(files), "bytes": 0},
            "tokenizer": {"uri": "files:tokenizer.json", "sha256": sha256_file(work / "tokenizer.json"), "bytes": 0},
            "steps": STEPS, "sequenceTokens": size.tokens, "globalBatchTokens": size.tokens * size.sequences,
            "dtype": dtype, "seed": 0, "windowTokens": size.tokens, "asked": "a check",
            "optimizer": {"beta1": 0.9, "beta2": 0.95, "epsilon": 1e-8, "weightDecay": 0.1, "clipNorm": 1.0},
        },
    }  # fmt: skip
    (folder / "request.json").write_text(json.dumps(spec))
    paths = ["--request", str(folder / "request.json"), "--result", str(folder / "result.json")]
    env = {**os.environ, "PYTHONPATH": str(ML), **({"CUDA_VISIBLE_DEVICES": ""} if device == "cpu" else {})}
    done = subprocess.run(
        [sys.executable, "-m", "cpt_ml", "dry-train", *paths], env=env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-4000:]
    commit = next((work / "store" / "commits").rglob(f"{spec['fingerprint']}*"))
    return json.loads(commit.read_bytes())["result"]


def sha256_of(name: str) -> str:
    return tree_digest([(name, "0" * 64)])


def make_world(work: Path, device: str) -> None:
    from tokenizers import Tokenizer, models  # noqa: PLC0415

    size = TINY if device == "cpu" else size_for(device)
    make_folder(work / "model", size)
    Tokenizer(models.WordLevel({f"w{i}": i for i in range(size.vocabulary)}, "w0")).save(str(work / "tokenizer.json"))


def check_a_job_trains_saves_loads_what_it_saved_and_evaluates(device: str, work: Path) -> str:
    make_world(work, device)
    found = dry_train(work, device, "alone", "bfloat16", activationCheckpointing="full")
    assert found["steps"] == STEPS
    assert (found["device"] == "cpu") == (device == "cpu"), f"it ran on {found['device']}"
    return f"{found['tokensPerSecond']:.0f} tokens/s, a save stalled {found['saveStallSeconds']:.3f} s"


def check_two_processes_over_gloo_have_the_losses_of_one(device: str, work: Path) -> str:
    make_world(work, "cpu")
    one = dry_train(work, "cpu", "one", "float32")
    facts: list[str] = []
    for name, dtype, replicas, tolerance in (
        ("two shards", "float32", 1, 1e-5), ("two replicas", "float32", 2, 1e-5), ("bfloat16", "bfloat16", 1, 1e-2)
    ):  # fmt: skip
        two = dry_train(work, "cpu", name, dtype, processesPerNode=2, replicas=replicas)
        off = abs(two["lastLoss"] / one["lastLoss"] - 1)
        assert two["processes"] == 2
        assert off < tolerance, f"{name}: the last loss is {two['lastLoss']}, of one process {one['lastLoss']}"
        facts.append(f"{name} off by {off:.1e}")
    return ", ".join(facts)
