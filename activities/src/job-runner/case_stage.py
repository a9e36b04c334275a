"""The stage of the runner cases: a real job of cpt_ml that does what its request says."""

import os
import signal
import subprocess
import sys
import time

from cpt_ml import job
from cpt_ml.durable_files import replace_file
from cpt_ml.errors import BadData


def run(this: job.Job) -> None:
    """request.do: commit, fail, die, hang (leaves when told), deaf (does not), family (hangs with a grandchild), clan
    (hangs with a grandchild in a session of its own), late (commits once `go` lies in its folder), rank-fails (the last
    of several processes fails while the others hang)."""
    do = this.request["do"]
    (this.folder / f"ran-{os.getpid()}").touch()
    print("\x1b[31mred\x1b[0m and \x07 loud", file=sys.stderr, flush=True)
    if do == "commit":
        if this.rank == 0:
            this.commit(this.attempt(), {"by": this.token})
    elif do == "late":
        while not (this.folder / "go").exists():
            time.sleep(0.02)
        this.commit(this.attempt(), {"by": this.token})
    elif do == "fail" or (do == "rank-fails" and this.rank == this.world - 1):
        raise BadData("the data are bad")
    elif do == "die":
        os._exit(93)
    else:
        if do == "deaf":
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
        if do in ("family", "clan"):
            subprocess.Popen(["sleep", "600"], start_new_session=do == "clan")
        while True:
            if do == "deaf":
                time.sleep(0.02)
                replace_file(this.folder / "beat.json", b'{"phase":"deaf","done":1,"total":2,"unit":"","seq":1}')
            else:
                this.beat("waiting", 1, 2, step=7)
                this.check_stop()
                time.sleep(0.02)
