"""The warm parent forks jobs that are jobs like any other."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

ML = Path(__file__).parent.parent


def wait_for(what: Any, seconds: float = 60) -> Any:
    """Polls until `what()` is true; the deadline is a failure, not a pace."""
    deadline = time.monotonic() + seconds
    while not (value := what()):
        assert time.monotonic() < deadline, "nothing happened in time"
        time.sleep(0.02)
    return value


@pytest.fixture(scope="module")
def parent(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, subprocess.Popen[bytes]]]:
    folder = tmp_path_factory.mktemp("warm")
    path = folder / "s"
    process = subprocess.Popen(
        [sys.executable, "-m", "cpt_ml.warm", "--socket", str(path), "--records", str(folder)], cwd=ML
    )
    wait_for(path.exists, 120)
    yield path, process
    process.terminate()
    assert process.wait(30) == 0
    assert not path.exists()


def job_folder(root: Path, name: str) -> Path:
    """A request to write a few synthetic documents."""
    fingerprint = (name * 64)[:64]
    folder = root / "jobs" / name
    folder.mkdir(parents=True)
    request = {
        "backend": "template",
        "numDocs": 20,
        "languages": ["en", "zh"],
        "families": ["arithmetic", "units", "programs"],
        "wrongAnswerShare": 0,
        "seed": 1,
    }
    spec = {
        "format": "cpt-job/1",
        "stage": "synthesize-qa",
        "version": 1,
        "fingerprint": fingerprint,
        "range": 0,
        "attempt": 1,
        "token": f"{name}-r0-a1",
        "roots": {"store": str(root / "store")},
        "request": request,
        "units": None,
        "parents": [],
        "placement": {"threads": 1},
        "leaseSeconds": 60,
    }
    (folder / "request.json").write_text(json.dumps(spec))
    return folder


def fork(path: Path, folder: Path) -> int:
    with socket.socket(socket.AF_UNIX) as s:
        s.connect(str(path))
        line = {"stage": "synthesize-qa", "job": str(folder), "env": {"PATH": os.environ["PATH"]}}
        s.sendall(json.dumps(line).encode() + b"\n")
        return json.loads(s.makefile().readline())["pid"]


def end_of(folder: Path) -> dict[str, Any]:
    wait_for((folder / "end.json").exists)
    return json.loads((folder / "end.json").read_text())


def test_a_forked_job_commits_what_a_cold_one_commits(parent: tuple[Path, Any], tmp_path: Path) -> None:
    warm, cold = job_folder(tmp_path / "a", "a"), job_folder(tmp_path / "b", "a")
    fork(parent[0], warm)
    subprocess.run(
        [
            sys.executable,
            "-m",
            "cpt_ml",
            "synthesize-qa",
            "--request",
            cold / "request.json",
            "--result",
            cold / "r.json",
        ],
        cwd=ML,
        check=True,
    )
    assert end_of(warm)["endClass"] == "done"
    digests = [
        [
            (f["name"], f["sha256"])
            for f in json.loads(next((tmp_path / d / "store/commits").rglob("*.json")).read_text())["files"]
        ]
        for d in "ab"
    ]
    assert digests[0] == digests[1]


def test_a_killed_child_has_a_session_of_its_own_and_gets_an_end_record(
    parent: tuple[Path, Any], tmp_path: Path
) -> None:
    folder = job_folder(tmp_path, "c")
    # a pipe that nobody writes to holds the child at reading its request
    (folder / "request.json").unlink()
    os.mkfifo(folder / "request.json")
    pid = fork(parent[0], folder)
    assert wait_for(lambda: os.getsid(pid) == pid)
    os.kill(pid, signal.SIGKILL)
    end = end_of(folder)
    assert (end["endClass"], end["signal"]) == ("killed", "SIGKILL")


def test_a_job_forked_twice_runs_once(parent: tuple[Path, Any], tmp_path: Path) -> None:
    folder = job_folder(tmp_path, "d")
    first, second = fork(parent[0], folder), fork(parent[0], folder)
    assert first != second
    assert end_of(folder)["endClass"] == "done"
    assert len(list((tmp_path / "store/commits").rglob("*.json"))) == 1
