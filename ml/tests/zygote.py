"""Imports what its arguments name, then forks a job for each line it is given (job_processes.py).

Importing torch costs seconds, so kill tests would take minutes with a cold process each. Nothing is computed here
before a fork: a child that inherits a running OpenMP pool hangs. Answers `<pid>` to `<stage> <request> <result>`, and
`<wait status>` to `wait <pid>`. A fourth word is the job's folder of failpoints (`-`: none); a fifth (`module:word`) a
module whose `setup(word, job folder)` the job calls first. What a job says goes to `log.jsonl` in its folder.
"""

from __future__ import annotations

import importlib
import os
import sys
import traceback
from pathlib import Path


def main() -> None:
    os.environ |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    for name in ["cpt_ml.job", *sys.argv[1:]]:
        importlib.import_module(name)
    for line in sys.stdin:
        command, *rest = line.split()
        if command == "wait":
            answer = os.waitpid(int(rest[0]), 0)[1]
        else:
            answer = os.fork()
            if answer == 0:
                os._exit(_run(command, *rest))
        print(answer, flush=True)


def _run(stage: str, request: str, result: str, failpoints: str = "", setup: str = "") -> int:
    try:
        os.setsid()
        folder = Path(request).parent
        with (folder / "log.jsonl").open("ab") as log:
            os.dup2(log.fileno(), 1)
            os.dup2(log.fileno(), 2)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)  # whoever asks a zygote that is gone is to see it
        if failpoints not in {"", "-"}:
            os.environ["CPT_FAILPOINTS"] = failpoints
        if setup:
            name, word = setup.split(":")
            importlib.import_module(name).setup(word, folder)
        return importlib.import_module("cpt_ml.job").run(stage, Path(request), Path(result))
    except BaseException:  # whatever it is, the zygote must not go on in two processes
        traceback.print_exc()
        return 1
    finally:
        sys.stderr.flush()


if __name__ == "__main__":
    main()
