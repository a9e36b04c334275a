"""Side-effect boundaries at which a test may end a job without warning; off unless CPT_FAILPOINTS names a folder.

The worker's are in activities/src/failpoint.ts: job-started, checkpoint-written, checkpoint-recorded, commit-written,
committed and end-written are a job's.
"""

from __future__ import annotations

import os
import signal
from pathlib import Path


def failpoint(name: str) -> None:
    """Kills this process where the file `name` lies in the folder; a number in it is counted down first. Fires once."""
    folder = os.environ.get("CPT_FAILPOINTS")
    if not folder:
        return
    path = Path(folder) / name
    try:
        left = int(path.read_text() or 1) - 1
        if left > 0:
            path.write_text(str(left))
            return
        path.unlink()
    except (OSError, ValueError):
        return  # not armed, or another process was quicker
    os.kill(os.getpid(), signal.SIGKILL)
