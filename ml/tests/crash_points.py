"""A commit and a checkpoint save, killed at every system call that changes the disk, and at every request to S3; and on
a disk that is full at every call that needs space.

`python crash_points.py [--s3]` runs all of them and prints JSON: for each what was killed, at how many points, and at
how many of these the reader saw the state before and the new one. After each kill the reader sees nothing broken, the
next attempt ends well, and nothing is left that is not named by a record or under the name of a dead attempt.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import store_script
from s3_server import BUCKET, Proxy, S3Server
from store_script import FILES, FINGERPRINT, MARK, job_at

from cpt_ml.checkpoint_chain import CheckpointChain
from cpt_ml.errors import JobFailure
from cpt_ml.store import Backend, commit_key, open_backend

HERE = Path(__file__).parent
# of the calls of a script without threads; `?` is strace's mark for one that not every machine has
CHANGES = ("openat", "write", "fsync", "?link", "linkat", "?unlink", "unlinkat", "?mkdir", "mkdirat", "?rmdir",
           "?rename", "renameat", "renameat2", "ftruncate")  # fmt: skip
NEEDS_SPACE = ("openat", "write", "fsync", "link", "linkat", "mkdir", "mkdirat")
SYNC = re.compile(r"^fsync\(\d+<([^>]+)>")
LINE = re.compile(r"^(?P<call>\w+)\((?P<arguments>.*?)\)? += (?P<result>\S+)")
WORKS = ("commit", "checkpoint")
TOKENS = {"before": 2, "new": 3}


@dataclass(frozen=True)
class SystemCall:
    """One call of the script; `number` counts the calls of its name from the start of the process."""

    name: str
    number: int
    text: str


class Broken(AssertionError):
    """A reader saw something that it should never see."""


# --- disk ---


def crash_on_disk(folder: Path, what: str) -> dict[str, int]:
    """Kills the work at each of its calls that change the disk, and once after the last; {points, before, new}."""
    calls = [*record_calls(folder / "recorded", what), SystemCall("chdir", 2, "")]
    seen: Counter[str] = Counter()
    for n, call in enumerate(calls):
        # strace ends as what it traces ended
        if (code := _fault(folder / f"crash-{n}", what, call, "signal=SIGKILL", seen)) != -signal.SIGKILL:
            raise Broken(f"{what}: not killed at {call}, but ended with {code}")
    return {"points": len(calls), **seen}


def full_disk(folder: Path, what: str) -> dict[str, int]:
    """Lets the disk be full at each call that needs space, which fails; {points, before, new}."""
    calls = [c for c in record_calls(folder / "recorded", what) if c.name in NEEDS_SPACE and " = -1 " not in c.text]
    seen: Counter[str] = Counter()
    for n, call in enumerate(calls):
        if (code := _fault(folder / f"full-{n}", what, call, "error=ENOSPC", seen)) != 1:
            raise Broken(f"{what}: ended with {code} although {call} failed")
    return {"points": len(calls), **seen}


def _fault(place: Path, what: str, call: SystemCall, fault: str, seen: Counter[str]) -> int:
    """Runs the work with a fault at one call, counts in `seen` what a reader sees; returns the exit code."""
    root = prepare(str(place / "store"), place, what)
    inject = f"inject={call.name}:{fault}:when={call.number}"
    code = run_script(what, root, place / "job", ["strace", "-qq", "-e", f"trace={call.name}", "-e", inject])
    seen[check(root, place, what)] += 1
    shutil.rmtree(place)
    return code


def record_calls(folder: Path, what: str) -> list[SystemCall]:
    """The calls of the undisturbed work that change the disk, between its marks."""
    root, log = prepare(str(folder / "store"), folder, what), folder / "strace.log"
    traced = ["strace", "-qq", "-y", "-s", "300", "-o", str(log), "-e", f"trace={','.join(CHANGES)},chdir"]
    if code := run_script(what, root, folder / "job", traced):
        raise Broken(f"{what}: undisturbed, it ended with {code}")
    counts: Counter[str] = Counter()
    inside, found = False, list[SystemCall]()
    for line in log.read_text().splitlines():
        match = LINE.match(line)
        if match is None:
            continue
        counts[match["call"]] += 1
        if MARK in line:
            inside = "begin" in line
        elif inside and (match["call"] != "openat" or "O_CREAT" in line):
            found.append(SystemCall(match["call"], counts[match["call"]], line))
    return found


def unsynced(calls: list[SystemCall], what: str) -> list[str]:
    """What a power failure right after a commit could take: the record, the files that it names, their folders."""
    link = next(n for n, c in enumerate(calls) if c.name.startswith("link"))
    record = re.findall(r'"([^"]+)"', calls[link].text)[-1]
    root = record[: record.index("/store/") + len("/store")]
    before = {m[1] for c in calls[:link] if (m := SYNC.match(c.text))}
    after = {m[1] for c in calls[link:] if (m := SYNC.match(c.text))}
    paths = [f["path"] for f in json.loads(Path(record).read_bytes())["files"] if "attempt-1" in f["path"]]
    files = {f"{root}/{p}" for p in paths}
    folders = {str(f) for p in files for f in Path(p).parents if str(f).startswith(root)}
    temporary = re.findall(r'"([^"]+)"', calls[link].text)[0]
    own = {str(f) for f in Path(record).parents if str(f).startswith(root)}
    if not files or what.startswith("commit") != ("/commits/" in record):
        raise Broken(f"{what}: no files in {record}")
    return sorted([*(files | folders | {temporary}) - before, *own - after])


def run_script(what: str, root: str, job: Path, around: Iterable[str] = ()) -> int:
    """Runs the script, without site packages unless it needs a client of S3; returns its exit code, minus a signal."""
    packages = [p for p in sys.path if p.endswith("site-packages")] if root.startswith("s3:") else []
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(HERE.parent), *packages])}
    command = [*around, sys.executable, "-S", "-B", str(HERE / "store_script.py"), what, root, str(job), "1"]
    return subprocess.run(command, env=env, stderr=subprocess.DEVNULL, check=False).returncode


# --- S3 ---


def crash_on_s3(server: S3Server, folder: Path, what: str) -> dict[str, int]:
    """Kills the work before each of its requests is sent on, and after each is executed but not answered."""
    seen: Counter[str] = Counter()
    points = 0
    for verdict in ("before", "after"):
        for n in range(1_000):
            place = folder / f"{what}-{verdict}-{n}"
            root = prepare(f"s3://{BUCKET}/{place.name}", place, what)
            process: list[subprocess.Popen[bytes]] = []
            proxy = Proxy(server.port, AtRequest(n, verdict), on_kill=partial(_kill, process))
            code = _ended_by(proxy, process, what, place)
            proxy.close()
            if code == 0:
                break  # there was no such request
            if code != -signal.SIGKILL:
                raise Broken(f"{what}: ended with {code} at request {n}, {verdict}")
            points += 1
            seen[check(root, place, what)] += 1
    return {"points": points, **seen}


def _kill(process: list[subprocess.Popen[bytes]]) -> None:
    process[0].kill()
    process[0].wait()


def _ended_by(proxy: Proxy, process: list[subprocess.Popen[bytes]], what: str, place: Path) -> int:
    """Runs the script through the proxy, which may kill it; returns its exit code, minus a signal."""
    packages = [p for p in sys.path if p.endswith("site-packages")]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(HERE.parent), *packages]),
           "CPT_S3_ENDPOINT": proxy.endpoint, "CPT_CACHE": str(place / "cache")}  # fmt: skip
    root = f"s3://{BUCKET}/{place.name}"
    command = [sys.executable, "-S", "-B", str(HERE / "store_script.py"), what, root, str(place / "job"), "1"]
    process.append(subprocess.Popen(command, env=env, stderr=subprocess.DEVNULL))
    return process[0].wait()


class AtRequest:
    """A judge for Proxy: the verdict for the n-th request between the script's marks, from 0; "pass" for the others."""

    def __init__(self, n: int, verdict: str) -> None:
        self.n, self.verdict = n, verdict
        self.fired = False
        self._next: int | None = None

    def __call__(self, line: str) -> str:
        if "mark-" in line:
            self._next = 0 if "mark-begin" in line else None
        elif self._next is not None:
            self._next += 1
            if self._next == self.n + 1:
                self.fired = True
                return self.verdict
        return "pass"


# --- what holds after every kill ---


def prepare(root: str, place: Path, what: str) -> str:
    """An empty store; where a checkpoint is to be saved, with two."""
    job = job_at(root, place / "setup", 0)
    if what == "checkpoint":
        chain = CheckpointChain(job)
        for tokens in (1, 2):
            store_script.save(chain, tokens)
    return root


def check(root: str, place: Path, what: str) -> str:
    """Which state a reader sees, "before" or "new"; raises Broken where it is not whole or a retry ends badly."""
    state = see(root, place, what)
    job = job_at(root, place / "again", 2)
    if what.startswith("commit"):
        store_script.commit(job)
    else:
        chain = CheckpointChain(job)
        chain.resume()
        if state == "before":
            store_script.save(chain, TOKENS["new"])
    if see(root, place, what) != "new":
        raise Broken(f"{what}: tried again, and still {state}")
    left = unexplained(open_backend(root), what)
    if left:
        raise Broken(f"{what}: left behind {left}")
    return state


def see(root: str, place: Path, what: str) -> str:
    """What a reader with no part in the work sees; raises Broken for anything that is not whole."""
    try:
        return _see(root, place, what)
    except (JobFailure, ValueError) as e:
        raise Broken(f"{what}: {e}") from e


def _see(root: str, place: Path, what: str) -> str:
    job = job_at(root, place / "reader", 9)
    backend = job.store.backend
    if what.startswith("commit"):
        if not backend.exists(commit_key(FINGERPRINT)):
            return "before"
        files = job.store.record(FINGERPRINT)["files"]
        if {f["name"]: job.store.entry(f).read_bytes() for f in files} != FILES:
            raise Broken(f"a record of other files: {files}")
        return "new"
    records = [json.loads(backend.get(k) or b"") for k in backend.list("checkpoints/")]
    for f in (f for r in records for f in r["files"]):
        job.store.entry(f)
    tokens = max(r["tokens"] for r in records)
    if tokens not in TOKENS.values() or len({f["name"] for r in records for f in r["files"]}) < tokens:
        raise Broken(f"checkpoints at {[r['tokens'] for r in records]}")
    return "new" if tokens == TOKENS["new"] else "before"


def unexplained(backend: Backend, what: str) -> list[str]:
    """What is left that neither a record names nor the name shows to be a dead attempt's."""
    keys = backend.leftovers("")
    records = [k for k in keys if k.endswith(".json") and k.startswith(("commits/", "checkpoints/"))]
    records = [k for k in records if "/.tmp-" not in k]
    named = {f["path"] for k in records for f in json.loads(backend.get(k) or b"")["files"]}
    dead = (f"data/{FINGERPRINT[:2]}/{FINGERPRINT}/attempt-", "commits/") if what.startswith("commit") else ("mark-",)
    unknown = [k for k in keys if k not in named and k not in records]
    return [k for k in unknown if not k.startswith(dead) or (k.startswith("commits/") and "/.tmp-" not in k)]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--s3", action="store_true", help="also on S3")
    args = parser.parse_args()
    result: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        result["disk"] = {what: crash_on_disk(folder / what, what) for what in WORKS}
        result["fullDisk"] = {what: full_disk(folder / f"full-{what}", what) for what in WORKS}
        if args.s3:
            os.environ["CPT_CACHE"] = str(folder / "cache")
            server = S3Server(folder / "s3")
            os.environ.update(server.env)
            try:
                result["s3"] = {what: crash_on_s3(server, folder, what) for what in WORKS}
            finally:
                server.kill()
    print(json.dumps(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
