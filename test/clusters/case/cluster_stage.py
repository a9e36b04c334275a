"""The stage `case` of the cluster tests: a real job of cpt_ml that does what its request says."""

import json
import os
import sys
import time
from pathlib import Path

import case_stage
from cpt_ml import job
from cpt_ml.durable_files import replace_file
from cpt_ml.errors import Stopped

PARALLEL = ()


def run(this: job.Job) -> None:
    """request.do: those of case_stage.py, and save, environment, gather; see the functions."""
    do = this.request["do"]
    if do == "environment":
        this.commit(this.attempt(), {"environment": dict(os.environ), "arguments": sys.argv})
    elif do == "gather":
        gather(this)
    elif do == "save":
        save(this)
    else:
        case_stage.run(this)


def save(this: job.Job) -> None:
    """Counts in a file of its own, which it saves only when told to leave; ends by itself once it finds `enough`."""
    path = Path(this.request["counter"])
    count = json.loads(path.read_text()) if path.exists() else 0
    try:
        while not (this.folder / "enough").exists() and not path.with_name("enough").exists():
            count += 1
            this.beat("counting", count, count + 1, step=count)
            time.sleep(0.02)
    except Stopped:
        replace_file(path, json.dumps(count).encode())
        raise
    this.commit(this.attempt(), {"count": count})


def gather(this: job.Job) -> None:
    """All ranks sum their numbers over gloo; rank 0 commits what came out and where each rank ran."""
    import torch
    import torch.distributed as dist
    from cpt_ml.parallel import meet

    meet(this, "gloo")
    total = torch.tensor([this.rank + 1])
    dist.all_reduce(total)
    places: list = [None] * this.world
    dist.all_gather_object(places, {"rank": this.rank, "node": os.environ["SLURMD_NODENAME"]})
    if this.rank == 0:
        this.commit(this.attempt(), {"sum": int(total), "world": this.world, "places": places})
    dist.barrier()
    dist.destroy_process_group()
