"""One attempt of a training in a process of its own, that notes when it does what: a child of saves.py.

`attempt.py REQUEST RESULT NOTES --leave-after N [--alternate] [--profile start|all]`. After N steps it tells itself to
leave, as a runner does (SIGTERM). With --alternate every second save is waited for at once. NOTES gets the monotonic
time at which everything is imported, the seconds that reading weights takes, and the time at which each step begins.
"""

from __future__ import annotations

import argparse
import cProfile
import importlib
import json
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cpt_ml import job, train
from cpt_ml.saving import Saver
from cpt_ml.train_state import TrainState

from costly import costly_functions


def main() -> None:
    args = arguments()
    spec = json.loads(args.request.read_bytes())
    if spec["placement"].get("processesPerNode", 1) > 1:
        for name in train.PARALLEL:
            importlib.import_module(name)
    # what a job imports when it first needs it; the warm parent has these too
    for name in ("tokenizers", "safetensors.torch", "pyarrow.parquet"):
        importlib.import_module(name)
    notes: dict[str, Any] = {"imported": time.monotonic(), "load": 0.0, "steps": []}
    profiler = cProfile.Profile() if args.profile else None

    def load(work: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*given: Any, **named: Any) -> Any:
            began = time.monotonic()
            try:
                return work(*given, **named)
            finally:
                notes["load"] += time.monotonic() - began

        return timed

    train.load_llama, train.build_sharded = load(train.load_llama), load(train.build_sharded)
    TrainState.restore = load(TrainState.restore)
    train_step = train.train_step

    def noted(*given: Any, **named: Any) -> Any:
        notes["steps"].append(time.monotonic())
        if profiler is not None and args.profile == "start":
            profiler.disable()
        done = train_step(*given, **named)
        if len(notes["steps"]) == args.leave_after and os.environ.get("RANK", "0") == "0":
            os.kill(os.getpid(), signal.SIGTERM)
        return done

    train.train_step = noted
    if args.alternate:
        alternate()
    if profiler is not None:
        profiler.enable()
    code = job.run("train", args.request, args.result)
    if profiler is not None:
        profiler.disable()
        notes["profile"] = costly_functions(profiler)
    args.notes.write_text(json.dumps(notes))
    sys.exit(code)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("request", "result", "notes"):
        parser.add_argument(name, type=Path)
    parser.add_argument("--leave-after", type=int, required=True)
    parser.add_argument("--alternate", action="store_true")
    parser.add_argument("--profile", choices=["start", "all"], default=None)
    return parser.parse_args()


def alternate() -> None:
    """Has training wait for every second save from its beginning to its commit."""
    begin, begun = Saver.begin, 0

    def begin_or_save(self: Saver) -> None:
        nonlocal begun
        begun += 1
        begin(self)
        if begun % 2 == 0:
            self.finish()

    Saver.begin = begin_or_save


if __name__ == "__main__":
    main()
