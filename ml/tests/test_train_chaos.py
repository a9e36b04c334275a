"""The quick form of `npm run chaos:train`: random kills leave no trace, and those of planted bugs do."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from chaos_train import Chaos, Undisturbed
from job_processes import Processes

from cpt_ml.parallel import IMPORTED
from cpt_ml.store import Json

STEPS = 8


@pytest.fixture(scope="module")
def jobs() -> Iterator[Processes]:
    p = Processes(*IMPORTED)
    yield p
    p.close()


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Json]:
    return Undisturbed.prepare(tmp_path_factory.mktemp("prepared"), STEPS)


@pytest.fixture(scope="module")
def validated(tmp_path_factory: pytest.TempPathFactory, jobs: Processes) -> Undisturbed:
    """Measured on its way, and best before its end."""
    prepared = Undisturbed.prepare(tmp_path_factory.mktemp("prepared-validated"), STEPS, 3)
    return Undisturbed.train(prepared, tmp_path_factory.mktemp("undisturbed-validated"), 2, jobs)


@pytest.fixture(scope="module")
def undisturbed(
    tmp_path_factory: pytest.TempPathFactory, prepared: tuple[Path, Json], jobs: Processes
) -> dict[int, Undisturbed]:
    """By number of processes."""
    return {n: Undisturbed.train(prepared, tmp_path_factory.mktemp(f"undisturbed-{n}"), n, jobs) for n in (1, 2)}


@pytest.mark.parametrize("processes", [1, 2])
def test_ten_random_kills_leave_no_trace(
    undisturbed: dict[int, Undisturbed], jobs: Processes, tmp_path: Path, processes: int
) -> None:
    chaos = Chaos(undisturbed[processes], jobs, seed=1)
    chaos.go(10, tmp_path)
    assert chaos.problems == []
    assert chaos.kills == sum(chaos.by_kind.values()) == 10


def test_ten_random_kills_leave_no_trace_in_a_training_that_is_validated_on_its_way(
    validated: Undisturbed, jobs: Processes, tmp_path: Path
) -> None:
    assert validated.result["best"]["step"] < STEPS
    chaos = Chaos(validated, jobs, seed=1)
    chaos.go(10, tmp_path)
    assert chaos.problems == []
    assert chaos.kills == 10


@pytest.mark.parametrize(
    ("plant", "kind", "trace"),
    [
        ("no-fsync", "power", "is not whole"),
        ("record-before-files", "failpoint", "is not whole"),
        ("position-not-saved", "failpoint", "expected (step, tokens, skipped)"),
        ("moments-forgotten", "failpoint", "weightsSha256 differs"),
    ],
)
def test_kills_show_that_a_training_has_a_bug(  # noqa: PLR0917
    undisturbed: dict[int, Undisturbed], jobs: Processes, tmp_path: Path, plant: str, kind: str, trace: str
) -> None:
    chaos = Chaos(undisturbed[1], jobs, seed=1, kinds=[kind], points=["checkpoint-recorded"], plant=plant)
    chaos.go(10, tmp_path)
    assert any(trace in problem for problem in chaos.problems), chaos.problems


def test_a_zygote_that_cannot_begin_says_why() -> None:
    jobs = Processes("cpt_ml.no_such_module")
    with pytest.raises(RuntimeError, match=r"(?s)ended with 1 .*No module named 'cpt_ml.no_such_module'"):
        jobs.ask("wait 1")
    jobs.close()
