"""Several processes of one job on this machine: rank 0 is the job's own process and forks the others.

All stay in its session and process group, so whoever stops or outlives the job finds each of them. They are forked once
everything heavy is imported and before anything is computed (see warm.py). The first rank that fails ends the others:
what ended it, and not the broken connections that follow, is the job's end.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import signal
import socket
import threading
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from cpt_ml.durable_files import replace_file
from cpt_ml.process_identity import killed_for_memory

SETTLE_SECONDS = 3.0  # in which a lost connection may find its cause, and rank 0 may see for itself that it is over
LEAVE_SECONDS = 30.0
PR_SET_PDEATHSIG = 1


@dataclass(frozen=True)
class Ending:
    """How a rank ended; `lost` says that all it knows is that it cannot reach another one."""

    end_class: str
    type: str
    message: str
    exit_code: int | None
    by_signal: str | None = None
    lost: bool = False


class Ranks:
    """The other ranks as rank 0 sees them."""

    def __init__(self, folder: Path, pids: dict[int, int]) -> None:
        self.folder = folder
        self.pids = pids
        self.leaving = False
        self._endings: dict[int, Ending | None] = {}
        self._changed = threading.Condition()
        for rank, pid in pids.items():
            threading.Thread(target=self._wait_for, args=(rank, pid), name=f"rank-{rank}", daemon=True).start()

    def _wait_for(self, rank: int, pid: int) -> None:
        _, status = os.waitpid(pid, 0)
        code = os.waitstatus_to_exitcode(status)
        with self._changed:
            self._endings[rank] = self._read(rank, pid, code)
            self._changed.notify_all()

    def _read(self, rank: int, pid: int, code: int) -> Ending | None:
        if code == 0:
            return None
        if code < 0:
            name = signal.Signals(-code).name
            why = f"rank {rank} (process {pid}) was ended by {name}{killed_for_memory(self.folder, name)}"
            return Ending("killed", "JobEnded", why, None, name)
        silent = Ending("failed", "JobEnded", f"rank {rank} (process {pid}) exited with code {code}", code)
        return read_ending(self.folder, rank) or silent

    def failure(self, seconds: float) -> Ending | None:
        """What ended a rank, as soon as one tells more than a lost connection, or what is known when time is over."""
        deadline = time.monotonic() + seconds
        with self._changed:
            while True:
                failed = [e for _, e in sorted(self._endings.items()) if e is not None]
                telling = [e for e in failed if e.by_signal] or [e for e in failed if not e.lost]
                left = deadline - time.monotonic()
                if telling or left <= 0:
                    return (telling or failed or [None])[0]
                self._changed.wait(left)

    def wait_for_failure(self) -> None:
        """Returns once a rank has failed."""
        with self._changed:
            self._changed.wait_for(lambda: any(e is not None for e in self._endings.values()))

    def close(self, seconds: float) -> None:
        """Waits until all ranks have left; those that have not by then are ended."""
        with self._changed:
            self._changed.wait_for(lambda: len(self._endings) == len(self.pids), seconds)
            left = [pid for rank, pid in self.pids.items() if rank not in self._endings]
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        with self._changed:
            self._changed.wait_for(lambda: len(self._endings) == len(self.pids), seconds)


def fork_ranks(folder: Path, count: int) -> Ranks | None:
    """Forks ranks 1 … count-1. Returns None in each of them; which one a process is, RANK says from then on.

    MASTER_FD is rank 0's listening socket on MASTER_PORT, for the store at which the ranks meet; empty in the others.
    """
    listener = socket.create_server(("127.0.0.1", 0), backlog=max(128, count))
    os.environ |= {
        "WORLD_SIZE": str(count),
        "LOCAL_WORLD_SIZE": str(count),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(listener.getsockname()[1]),
    }
    leader = os.getpid()
    pids: dict[int, int] = {}
    for rank in range(1, count):
        pid = os.fork()
        if pid == 0:
            listener.close()
            os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "MASTER_FD": ""}
            _end_with(leader)
            return None
        pids[rank] = pid
    os.environ |= {"RANK": "0", "LOCAL_RANK": "0", "MASTER_FD": str(listener.detach())}
    replace_file(folder / "ranks.json", json.dumps({"pids": [leader, *pids.values()]}).encode())
    return Ranks(folder, pids)


def _end_with(leader: int) -> None:
    """Has the kernel end this process when rank 0 is gone, where it can."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
    if os.getppid() != leader:
        os._exit(1)


def ending_file(folder: Path, rank: int) -> Path:
    return folder / f"rank-{rank}.json"


def read_ending(folder: Path, rank: int) -> Ending | None:
    """What a rank has told of its end, or None."""
    try:
        return Ending(**json.loads(ending_file(folder, rank).read_bytes()))
    except (OSError, ValueError, TypeError):
        return None


def told_ending(folder: Path, count: int, seconds: float) -> Ending | None:
    """What ended one of `count` ranks that are no children of this process, by its own word, or None when time is
    over."""
    deadline = time.monotonic() + seconds
    while True:
        told = (read_ending(folder, rank) for rank in range(1, count))
        found = next((e for e in told if e is not None and not e.lost), None)
        if found is not None or time.monotonic() > deadline:
            return found
        time.sleep(0.05)


def tell_ending(folder: Path, rank: int, ending: Ending) -> None:
    """Leaves word of how this rank ended for rank 0; a full disk leaves the exit code alone."""
    with contextlib.suppress(OSError):
        replace_file(ending_file(folder, rank), json.dumps(asdict(ending)).encode())
