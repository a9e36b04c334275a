"""Stands in for `python` in job-runner.cases.ts: a real job of cpt_ml whose stage does what its request says.

It is called as `<this> -m cpt_ml <stage> --request R --result S`; cpt_ml is on PYTHONPATH.
"""

import os
import signal
import subprocess
import sys
import time
import types
from pathlib import Path

from cpt_ml import job
from cpt_ml.errors import BadData


def run(this: job.Job) -> None:
    """request.do: commit, fail, die, hang (leaves when told), deaf (does not), family (hangs with a grandchild)."""
    do = this.request["do"]
    (this.folder / f"ran-{os.getpid()}").touch()
    print("\x1b[31mred\x1b[0m and \x07 loud", file=sys.stderr, flush=True)
    if do == "commit":
        this.commit(this.attempt(), {"by": this.token})
    elif do == "fail":
        raise BadData("the data are bad")
    elif do == "die":
        os._exit(93)
    else:
        if do == "deaf":
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
        if do == "family":
            subprocess.Popen(["sleep", "600"])
        while True:
            if do == "deaf":
                time.sleep(0.02)
                job.replace_file(this.folder / "beat.json", b'{"phase":"deaf","done":1,"total":2,"unit":"","seq":1}')
            else:
                this.beat("waiting", 1, 2, step=7)
                time.sleep(0.02)


def main() -> int:
    arguments = dict(zip(sys.argv[4::2], sys.argv[5::2], strict=True))
    stage = types.ModuleType("cpt_ml.case")
    stage.run = run  # type: ignore[attr-defined]
    sys.modules["cpt_ml.case"] = stage
    return job.run("case", Path(arguments["--request"]), Path(arguments["--result"]))


sys.exit(main())
