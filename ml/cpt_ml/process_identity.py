"""What tells a process from a later one that was given the same number."""

from __future__ import annotations

import json
import os
from pathlib import Path

from cpt_ml.store import Json


def process_identity() -> Json:
    """Number, start time and boot of this process: what tells it from a later one of the same number."""
    pid = os.getpid()
    return {
        "pid": pid,
        "startTicks": process_start_ticks(pid),
        "bootId": boot_id(),
        "host": os.environ.get("CPT_HOST") or os.uname().nodename,
        "oomKills": oom_kills(),
        # of two submissions of one attempt, the one that won the start
        **({"slurmJob": os.environ["SLURM_JOB_ID"]} if "SLURM_JOB_ID" in os.environ else {}),
    }


def process_start_ticks(pid: int) -> str:
    """Field 22 of /proc/<pid>/stat: with the boot id it tells a process from a later one with the same number."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[19]
    except OSError:
        return ""


def boot_id() -> str:
    """Identity of this boot of the machine; empty where the system has none."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


def oom_kills() -> int:
    """How many processes the kernel has killed for lack of memory since boot; 0 where it does not say."""
    try:
        lines = Path("/proc/vmstat").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("oom_kill ")), 0)


def killed_for_memory(folder: Path, by_signal: str) -> str:
    """What the kernel's counter of processes killed for lack of memory says of the time since the job began."""
    try:
        before = json.loads((folder / "started.json").read_bytes())["oomKills"]
    except (OSError, ValueError, KeyError):
        return ""
    killed = oom_kills() - before
    if by_signal != "SIGKILL" or killed <= 0:
        return ""
    return f"; the kernel ended {killed} process(es) for lack of memory meanwhile"
