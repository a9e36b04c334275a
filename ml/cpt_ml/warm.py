"""The warm parent: a process that has imported everything heavy and forks a child for each job.

Starting Python and importing torch takes seconds, and a sweep has many short jobs. The parent only imports: one
two-threaded operation before a fork would hang the child, so BLAS and OpenMP are held to one thread here and each job
sets its own. A child is a job like any other: own session and process group, fresh environment, reseeded. The parent
outlives the worker, writes how its children ended, and leaves when it has been idle.

`python -m cpt_ml.warm --socket S --records FOLDER --idle-seconds N`; a request is one JSON line
{stage, job, env}, answered by one line {pid}.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import importlib
import json
import os
import random
import selectors
import signal
import socket
import sys
import time
from pathlib import Path

from cpt_ml import job
from cpt_ml.durable_files import put_if_absent, replace_file
from cpt_ml.process_identity import killed_for_memory, process_identity

IMPORTED = (
    "numpy",
    "pyarrow",
    "pyarrow.parquet",
    "tokenizers",
    "safetensors.torch",
    "torch",
    "transformers.models.llama.modeling_llama",
    "transformers.models.auto.modeling_auto",
    "datasets",
    "lm_eval.api.task",
    "lm_eval.evaluator",
    "lm_eval.models.huggingface",
    "fasttext",
)
POLL_SECONDS = 1.0


def serve(path: Path, records: Path, idle_seconds: float) -> int:
    """Answers fork requests until idle; returns the exit code. Nobody can connect before everything is imported."""
    record = records / f"{os.getpid()}.json"
    # on record before the seconds of importing: whoever closes down finds this process
    replace_file(record, json.dumps(process_identity()).encode())
    job.set_threads(1)
    for name in IMPORTED:
        importlib.import_module(name)
    # what is imported is shared with every child; frozen, the collector does not touch and so copy it
    gc.collect()
    gc.freeze()
    server = socket.socket(socket.AF_UNIX)
    try:
        server.bind(str(path))
    except OSError:
        record.unlink(missing_ok=True)
        return 0  # another parent was quicker
    mine = path.stat().st_ino
    server.listen(64)
    leaving = False

    def on_signal(_number: int, _frame: object) -> None:
        nonlocal leaving
        leaving = True

    signal.signal(signal.SIGTERM, on_signal)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    children: dict[int, Path] = {}
    selector = selectors.DefaultSelector()
    selector.register(server, selectors.EVENT_READ)
    last_use = time.monotonic()
    while not leaving and (children or time.monotonic() - last_use < idle_seconds):
        for _ in selector.select(timeout=POLL_SECONDS if not children else 0.1):
            connection, _address = server.accept()
            with connection:
                connection.settimeout(10)
                with contextlib.suppress(OSError, ValueError, KeyError):
                    _answer(connection, server, children)
            last_use = time.monotonic()
        _reap(children)
    if path.exists() and path.stat().st_ino == mine:
        path.unlink()
    record.unlink(missing_ok=True)
    return 0


def _answer(connection: socket.socket, server: socket.socket, children: dict[int, Path]) -> None:
    request = json.loads(connection.makefile("rb").readline())
    folder = Path(request["job"])
    pid = os.fork()
    if pid == 0:
        server.close()
        connection.close()
        os._exit(_run(request["stage"], folder, request["env"]))
    children[pid] = folder
    connection.sendall(json.dumps({"pid": pid}).encode() + b"\n")


def _run(stage: str, folder: Path, env: dict[str, str]) -> int:
    """The child: a session of its own, the job's log as output, the job's environment and nothing else."""
    try:
        os.setsid()
        with (folder / "log.jsonl").open("ab") as log:
            os.dup2(log.fileno(), 1)
            os.dup2(log.fileno(), 2)
        null = os.open(os.devnull, os.O_RDONLY)
        os.dup2(null, 0)
        os.environ.clear()
        os.environ.update(env)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.SIG_DFL)
        random.seed()
        return job.run(stage, folder / "request.json", folder / "result.json")
    except BaseException as e:  # whatever it is, the parent must not go on in two processes
        print(f"cpt_ml: {e!r}", file=sys.stderr, flush=True)
        return 1
    finally:
        sys.stdout.flush()
        sys.stderr.flush()


def _reap(children: dict[int, Path]) -> None:
    """Collects ended children; one that left no end record gets it here, from what the system says."""
    for pid in list(children):
        if os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
            continue
        # while the child is not collected nobody else has its number: what it started goes with it
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(pid, signal.SIGKILL)
        _, status = os.waitpid(pid, 0)
        folder = children.pop(pid)
        code = os.waitstatus_to_exitcode(status)
        if code == job.SUPERSEDED_EXIT:
            continue
        by_signal = signal.Signals(-code).name if code < 0 else None
        end = {
            "format": "cpt-end/1",
            "endClass": "killed" if by_signal else job.EXIT_CLASS.get(code, "failed"),
            "type": "JobEnded",
            "message": f"the process was ended by {by_signal}{killed_for_memory(folder, by_signal)}"
            if by_signal
            else f"the process exited with code {code}",
            "exitCode": None if by_signal else code,
            "signal": by_signal,
            "progressTokens": 0,
            "logTail": [],
            "wallSeconds": 0,
        }
        put_if_absent(folder / "end.json", json.dumps(end).encode())


def main() -> int:
    parser = argparse.ArgumentParser(prog="cpt_ml.warm", description=__doc__)
    parser.add_argument("--socket", type=Path, required=True)
    parser.add_argument("--records", type=Path, required=True)
    parser.add_argument("--idle-seconds", type=float, default=600)
    args = parser.parse_args()
    return serve(args.socket, args.records, args.idle_seconds)


if __name__ == "__main__":
    sys.exit(main())
