"""Stands in for `python` in job-runner.cases.ts: a real job of cpt_ml whose stage does what its request says.

It is called as `<this> -m cpt_ml <stage> --request R --result S`, or as `<this> -m cpt_ml.warm …` for a warm parent
that serves this stage and imports nothing heavy; cpt_ml is on PYTHONPATH.
"""

import sys
import types
from pathlib import Path

import case_stage
from cpt_ml import job, warm


def main() -> int:
    stage = types.ModuleType("cpt_ml.case")
    stage.run = case_stage.run  # type: ignore[attr-defined]
    stage.PARALLEL = ()  # type: ignore[attr-defined]
    sys.modules["cpt_ml.case"] = stage
    if sys.argv[2] == "cpt_ml.warm":
        warm.IMPORTED = ("json",)
        del sys.argv[1:3]
        return warm.main()
    arguments = dict(zip(sys.argv[4::2], sys.argv[5::2], strict=True))
    return job.run("case", Path(arguments["--request"]), Path(arguments["--result"]))


sys.exit(main())
