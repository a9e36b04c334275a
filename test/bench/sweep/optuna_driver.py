"""`python optuna_driver.py WORK`: the sweep by Optuna, two processes that share an SQLite study.

Set up as its documentation recommends for several processes and for trials that die with theirs: points are enqueued,
a heartbeat tells stale trials, which are enqueued again. Started again on the same folder it goes on. Two settings are
better than the documented ones: a trial counts as stale after 60 s instead of 120 s, and every transaction takes
SQLite's write lock when it begins. SQLite knows no SELECT FOR UPDATE, by which Optuna keeps two processes that ask in
the same moment from being given the same trial; then both fail.
"""

from __future__ import annotations

import multiprocessing
import sys
import time
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import optuna
from optuna.exceptions import ExperimentalWarning
from optuna.storages import RDBStorage, RetryHeartbeatStaleTrialCallback
from optuna.trial import TrialState
from sqlalchemy import Connection, Engine, event
from train_trial import case, load, log, prepare_stores, train_trial

if TYPE_CHECKING:
    from multiprocessing.synchronize import Barrier

PROCESSES = 2


def open_study(work: Path) -> optuna.Study:
    warnings.simplefilter("ignore", ExperimentalWarning)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    storage = RDBStorage(
        f"sqlite:///{work / 'study.db'}", engine_kwargs={"connect_args": {"timeout": 60}},
        heartbeat_interval=10, grace_period=60, heartbeat_stale_trial_callback=RetryHeartbeatStaleTrialCallback(),
    )  # fmt: skip
    lock_when_begun(storage.engine)
    return optuna.create_study(
        study_name="sweep", storage=storage, load_if_exists=True, sampler=optuna.samplers.RandomSampler(seed=0)
    )


def lock_when_begun(engine: Engine) -> None:
    """As SQLAlchemy's documentation of SQLite says under serializable isolation."""

    @event.listens_for(engine, "connect")
    def on_connect(connection: Any, _record: object) -> None:
        connection.isolation_level = None

    @event.listens_for(engine, "begin")
    def on_begin(connection: Connection) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE")

    engine.dispose()  # connections made before do not know of it


def in_state(study: optuna.Study, state: TrialState) -> list[optuna.trial.FrozenTrial]:
    return study.get_trials(deepcopy=False, states=(state,))


def optimise(work: Path, together: Barrier) -> None:
    """Works on the queue until every point is complete; a trial beyond the queue is given up at once."""
    load()
    study = open_study(work)
    numbers = case(work)["order"]

    def objective(trial: optuna.Trial) -> float:
        index = trial.suggest_int("index", 0, max(numbers))
        if not trial.user_attrs.get("queued", False):
            raise optuna.TrialPruned
        losses = train_trial(work, index)
        trial.set_user_attr("retained", losses["retained"])
        return losses["added"]

    def stop_at_the_end(study: optuna.Study, _trial: optuna.trial.FrozenTrial) -> None:
        if not in_state(study, TrialState.WAITING):
            study.stop()

    together.wait()
    while len({t.params["index"] for t in in_state(study, TrialState.COMPLETE)}) < len(numbers):
        if in_state(study, TrialState.WAITING):
            study.optimize(objective, callbacks=[stop_at_the_end])
        else:
            # the other process is at the last one, or a dead one is not stale yet
            time.sleep(0.5)
            optuna.storages.fail_stale_trials(study)
    log(work, "finish")


def main() -> int:
    work = Path(sys.argv[1])
    prepare_stores(work)
    study = open_study(work)
    for index in case(work)["order"]:
        study.enqueue_trial({"index": index}, user_attrs={"queued": True}, skip_if_exists=True)
    context = multiprocessing.get_context("spawn")
    together = context.Barrier(PROCESSES)
    processes = [context.Process(target=optimise, args=(work, together)) for _ in range(PROCESSES)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    return max(abs(p.exitcode or 0) for p in processes)


if __name__ == "__main__":
    sys.exit(main())
