"""Real processes, really killed: wherever score-ppl dies, the next attempt takes what is done as it is."""

from __future__ import annotations

import signal
from pathlib import Path

import numpy as np
from conftest import Workbench
from documents import request
from test_dedup_kills import DEADLINE_SECONDS, Attempts
from test_scoring import token_shards
from tiny import make_model


def test_scores_of_a_shard_are_made_once_however_often_the_job_is_killed(workbench: Workbench, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    shards = [[rng.integers(0, 300, size=n, dtype=np.uint32) for n in rng.integers(5, 120, size=60)] for _ in range(4)]
    asked = request(
        "score-ppl", **token_shards(workbench, shards), scorer=make_model(workbench), windowTokens=64, strideTokens=64
    )
    attempts = Attempts(workbench, "score-ppl", asked)
    assert attempts.killed_at("commit-written") == -signal.SIGKILL
    assert attempts.committed() == 0
    assert attempts.killed_at("committed") == -signal.SIGKILL
    assert attempts.committed() == 1
    assert attempts.killed_in("probe") in (-signal.SIGKILL, 0)
    assert attempts.killed_at("commit-written", passes=2) in (-signal.SIGKILL, 0)
    assert attempts.start().wait(DEADLINE_SECONDS) == 0
    job = attempts.jobs[-1]
    records = [job.store.record(f) for f in attempts.fingerprints()]
    assert records[0]["attempt"] == attempts.jobs[1].token
    made = [job.store.shard(e).read_bytes() for r in records for e in r["result"]["outputs"]["scores"]]

    undisturbed = Workbench(tmp_path / "undisturbed")
    again = request(
        "score-ppl",
        **token_shards(undisturbed, shards),
        scorer=make_model(undisturbed),
        windowTokens=64,
        strideTokens=64,
    )
    result = undisturbed.run("score-ppl", again)
    assert [p.read_bytes() for p in undisturbed.shards(result["scores"])] == made
    counts = [r["result"]["counts"] for r in records]
    assert sum(c["sumNllNats"] for c in counts) == result["counts"]["sumNllNats"]
