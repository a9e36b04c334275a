"""`npm run test:gpu [-- --device cpu] [-- --only WORD]`: every check, its facts, and exit code 0 if all hold.

A check is a function `check_<what holds>(device, folder)` of a `checks_*.py` beside this file; it returns its facts in
words and raises where something does not hold. Neither pytest nor pyarrow is needed.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path

here = Path(__file__).parent
sys.path[:0] = [str(here), str(here.parents[1])]
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

Check = Callable[[str, Path], str]


def find_checks(word: str) -> list[tuple[str, Check]]:
    """All checks whose name has the word, in the order of the files."""
    found: list[tuple[str, Check]] = []
    for path in sorted(here.glob("checks_*.py")):
        module = importlib.import_module(path.stem)
        found += [(n, getattr(module, n)) for n in vars(module) if n.startswith("check_") and word in n]
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    parser.add_argument("--only", default="")
    args = parser.parse_args()
    import torch  # noqa: PLC0415

    from cpt_ml import numerics  # noqa: PLC0415

    if args.device == "cuda" and not torch.cuda.is_available():
        print("test:gpu: torch sees no CUDA device here; `-- --device cpu` runs the same code with tiny shapes")
        return 2
    # on a CPU that others use too, threads that wait for each other take most of the time
    numerics.prepare(1 if args.device == "cpu" else os.cpu_count() or 1, seed=0)
    name = torch.cuda.get_device_name() if args.device == "cuda" else "the CPU, tiny shapes: no statement about a GPU"
    print(f"torch {torch.__version__} on {name}, {time.strftime('%Y-%m-%d')}")
    checks, failed = find_checks(args.only), 0
    for check_name, check in checks:
        began = time.monotonic()
        said = check_name.removeprefix("check_").replace("_", " ")
        with tempfile.TemporaryDirectory() as folder:
            try:
                print(f"✓ {said}: {check(args.device, Path(folder))} ({time.monotonic() - began:.1f} s)", flush=True)
            except Exception:
                failed += 1
                print(f"✗ {said}\n{traceback.format_exc()}", flush=True)
    print(f"{len(checks) - failed} hold, {failed} do not")
    return 0 if checks and not failed else 1


if __name__ == "__main__":
    sys.exit(main())
