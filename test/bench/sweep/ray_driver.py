"""`python ray_driver.py WORK`: the sweep by Ray Tune on two CPUs of this machine.

Two workers that are reused, no dashboard, no loggers. Started again on the same folder the experiment is restored as
its documentation says. Two settings of the environment (peer.ts) are better than the defaults: its state is saved every
second instead of every ten or more, and workers have the usual priority.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import ray
from ray import tune
from train_trial import case, log, prepare_stores, train_trial

CPUS = 2


def trainable(config: dict[str, Any]) -> None:
    work = Path(config["work"])
    tune.report(train_trial(work, config["index"]))


def main() -> int:
    work = Path(sys.argv[1])
    prepare_stores(work)
    ray.init(num_cpus=CPUS, include_dashboard=False, log_to_driver=False, _temp_dir=str(work / "ray"),
             object_store_memory=100 * 2**20)  # fmt: skip
    fitted = tune.with_resources(trainable, {"cpu": 1})
    results = str(work / "results")
    if tune.Tuner.can_restore(f"{results}/sweep"):
        tuner = tune.Tuner.restore(f"{results}/sweep", fitted, resume_unfinished=True, restart_errored=True)
    else:
        tuner = tune.Tuner(
            fitted,
            param_space={"index": tune.grid_search(case(work)["order"]), "work": str(work)},
            tune_config=tune.TuneConfig(max_concurrent_trials=CPUS, reuse_actors=True),
            run_config=tune.RunConfig(name="sweep", storage_path=results, verbose=0),
        )
    found = tuner.fit()
    log(work, "finish")
    return 0 if found.num_errors == 0 and len(found) == len(case(work)["order"]) else 1


if __name__ == "__main__":
    sys.exit(main())
