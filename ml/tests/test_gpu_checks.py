"""The checks of tests/gpu run where little is installed: nothing that they import may need more."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

GPU = Path(__file__).parent / "gpu"
BENCHMARK = Path(__file__).parents[2] / "test" / "bench" / "train" / "gpu.py"
# what ml/pyproject.toml installs and a machine with torch, transformers, accelerate, tokenizers and safetensors has not
ABSENT = ["pyarrow", "obstore", "orjson", "lm_eval", "fasttext", "py3langid", "datasets", "pandas", "pytest", "_pytest",
          "hypothesis", "kenlm"]  # fmt: skip
WITHOUT = f"""
import runpy, sys
from importlib.machinery import PathFinder

class Present(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        return None if name.split(".")[0] in {ABSENT!r} else super().find_spec(name, path, target)

sys.meta_path[:] = [Present if finder is PathFinder else finder for finder in sys.meta_path]
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def run_without(script: Path, *args: str) -> subprocess.CompletedProcess[str]:
    """Runs a script with the device cpu in a process in which the packages cannot be imported."""
    command = [sys.executable, "-c", WITHOUT, str(script), "--device", "cpu", *args]
    return subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)


def test_the_gpu_checks_run_and_hold_with_tiny_shapes_on_a_cpu_where_little_is_installed() -> None:
    done = run_without(GPU / "run_checks.py")
    assert done.returncode == 0, done.stdout + done.stderr
    written = sum(path.read_text().count("\ndef check_") for path in GPU.glob("checks_*.py"))
    assert f"\n{written} hold, 0 do not\n" in done.stdout


def test_the_gpu_checks_fail_loudly_when_one_does_not_hold(tmp_path: Path) -> None:
    for path in GPU.glob("*.py"):
        (tmp_path / path.name).write_text(path.read_text().replace("parents[1]", "parent"))
    checks = tmp_path / "checks_trainer.py"
    checks.write_text(checks.read_text().replace("killed.optimizer.steps, resumed", "0, resumed"))
    (tmp_path / "cpt_ml").symlink_to(GPU.parents[1] / "cpt_ml")
    done = run_without(tmp_path / "run_checks.py", "--only", "resumed")
    assert done.returncode == 1
    assert "0 hold, 1 do not" in done.stdout
    assert "the curves differ" in done.stdout


@pytest.mark.parametrize("needed", ["pyarrow", "cpt_ml.score_ppl"])
def test_what_needs_more_is_noticed(tmp_path: Path, needed: str) -> None:
    script = tmp_path / "needs.py"
    script.write_text(f"import {needed}")
    assert "No module named 'pyarrow'" in run_without(script).stderr


def test_the_gpu_benchmark_runs_with_a_tiny_shape_on_a_cpu_where_little_is_installed(tmp_path: Path) -> None:
    out = tmp_path / "gpu.json"
    done = run_without(BENCHMARK, "--steps", "2", "--rounds", "1", "--out", str(out))
    assert done.returncode == 0, done.stderr
    found = json.loads(out.read_bytes())
    assert found["about"]["device"] == "cpu"
    row = found["rows"][0]
    assert row["measure"] == "tokens trained, tiny, sequences of 32"
    assert row["ratio"] == pytest.approx(row["ours"] / row["peer"])
