"""`python tiny_training.py FOLDER`: a store under FOLDER with a plan of 600 short steps; prints a request for it."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from conftest import Workbench
from tiny import make_docs, make_pool, plan_request, stratum, train_request

BUDGET = 128 * 600

if __name__ == "__main__":
    bench = Workbench(Path(sys.argv[1]))
    pool = make_pool(bench, make_docs("en", "web", 60, "Others", words=(800, 2000)))
    plan = bench.run("sample-mixture", plan_request(bench, [pool], [stratum("en", "web", 1.0, "Others")], BUDGET))
    print(json.dumps(train_request(bench, plan["plan"], BUDGET)))
