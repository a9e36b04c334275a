"""Imports what a training job imports and what its arguments name, then forks a job for each line it is given.

Importing torch costs seconds, so kill tests would take minutes with a cold process each. Nothing is computed here
before a fork: a child that inherits a running OpenMP pool hangs. Answers `<pid>` to `<stage> <request> <result>`, and
`<wait status>` to `wait <pid>`. A fourth word is the job's folder of failpoints; CPT_ZYGOTE_SETUP (`module:word`) is a
module whose `setup(word, job folder)` each job calls first.
"""

from __future__ import annotations

import importlib
import os
import sys
from pathlib import Path

IMPORTS = "pyarrow.parquet,safetensors.torch,tokenizers,cpt_ml.train"


def main() -> None:
    os.environ |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    for name in [*os.environ.get("CPT_ZYGOTE_IMPORTS", IMPORTS).split(","), *sys.argv[1:]]:
        importlib.import_module(name)
    job = importlib.import_module("cpt_ml.job")
    for line in sys.stdin:
        command, *rest = line.split()
        if command == "wait":
            answer = os.waitpid(int(rest[0]), 0)[1]
        else:
            answer = os.fork()
            if answer == 0:
                os.setsid()
                if rest[2:]:
                    os.environ["CPT_FAILPOINTS"] = rest[2]
                if setup := os.environ.get("CPT_ZYGOTE_SETUP"):
                    name, plant = setup.split(":")
                    importlib.import_module(name).setup(plant, Path(rest[0]).parent)
                os._exit(job.run(command, Path(rest[0]), Path(rest[1])))
        print(answer, flush=True)


if __name__ == "__main__":
    main()
