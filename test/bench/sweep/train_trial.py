"""The function that Optuna and Ray Tune call for one trial: the very jobs of ours, by the same code, in this process.

A sweep's folder (`work`) has `trials.json`, written by sweep.ts: {roots, trials: [{index, jobs: [cpt-job/1, ...]}]},
trials in the order in which they are to begin, and `prepared/`, a store with the prepared corpus. Each trial has its
own store, linked to the prepared one, and finds the checkpoints of an earlier attempt at it there: what a user of
either library does with a folder per trial. What happens is appended to `log.jsonl`.
"""

from __future__ import annotations

import importlib
import json
import os
import shutil
import time
from functools import cache
from pathlib import Path
from typing import Any

STAGES = ("sample_mixture", "train")


def log(work: Path, event: str, **fields: Any) -> None:
    """Appends one line with the time; lines of several processes do not mix."""
    line = json.dumps({"event": event, "at": time.time(), "pid": os.getpid(), **fields}) + "\n"
    fd = os.open(work / "log.jsonl", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        os.write(fd, line.encode())
    finally:
        os.close(fd)


def read_log(work: Path) -> list[dict[str, Any]]:
    path = work / "log.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


@cache
def case(work: Path) -> dict[str, Any]:
    """trials.json; `trials` by index."""
    given = json.loads((work / "trials.json").read_bytes())
    return {"roots": given["roots"], "order": [t["index"] for t in given["trials"]],
            "trials": {t["index"]: t["jobs"] for t in given["trials"]}}  # fmt: skip


def prepare_stores(work: Path) -> None:
    """One store a trial, its files linked: done once, before the clock runs."""
    for index in case(work)["order"]:
        store = work / "stores" / str(index)
        if not store.exists():
            shutil.copytree(work / "prepared", work / "stores" / f".{index}", copy_function=os.link)
            (work / "stores" / f".{index}").rename(store)


def load() -> None:
    """Imports all that a trial needs, as our warm parent does."""
    from cpt_ml import job, warm  # noqa: PLC0415

    job.set_threads(1)
    for name in (*warm.IMPORTED, *(f"cpt_ml.{stage}" for stage in STAGES)):
        importlib.import_module(name)


def train_trial(work: Path, index: int) -> dict[str, float]:
    """Draws the plan, trains and validates; returns losses of the validation sets in nats per token."""
    load()
    attempt = 1 + sum(line["event"] == "start" and line["index"] == index for line in read_log(work))
    log(work, "start", index=index, attempt=attempt)
    results = [_run(work, index, attempt, spec) for spec in case(work)["trials"][index]]
    trained = results[STAGES.index("train")]
    log(work, "end", index=index, weightsSha256=trained["weightsSha256"], restarts=trained["restarts"],
        strata=trained["measurement"]["strata"])  # fmt: skip
    strata = trained["measurement"]["strata"]
    return {
        "added": _pooled([s for s in strata if s["set"] == "corpus" and s["language"] == "zh"]),
        "retained": _pooled([s for s in strata if s["set"] == "retention"]),
    }


def _run(work: Path, index: int, attempt: int, spec: dict[str, Any]) -> dict[str, Any]:
    """One job as our worker would start it, without its watch over lease and signals."""
    from cpt_ml.job import Job  # noqa: PLC0415

    stage = spec["stage"]
    folder = work / "jobs" / str(index) / f"{stage}-{attempt}"
    folder.mkdir(parents=True, exist_ok=True)
    token = f"{spec['fingerprint'][:12]}-r0-a{attempt}"
    roots = {**case(work)["roots"], "store": str(work / "stores" / str(index))}
    job = Job(folder, {**spec, "attempt": attempt, "token": token, "roots": roots})
    began = time.time()
    importlib.import_module(f"cpt_ml.{stage.replace('-', '_')}").run(job)
    log(work, "job", index=index, stage=stage, began=began)
    return job.store.record(job.fingerprint)["result"]


def _pooled(strata: list[dict[str, Any]]) -> float:
    return sum(s["nllPerToken"] * s["tokens"] for s in strata) / sum(s["tokens"] for s in strata)
