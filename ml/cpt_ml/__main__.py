"""`python -m cpt_ml <stage> --request request.json --result result.json`: one job."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from cpt_ml import job


def main() -> int:
    parser = argparse.ArgumentParser(prog="cpt_ml", description=__doc__)
    parser.add_argument("stage", help="name of the stage, e.g. score-ppl")
    parser.add_argument("--request", type=Path, required=True)
    parser.add_argument("--result", type=Path, required=True)
    args = parser.parse_args()
    return job.run(args.stage, args.request, args.result)


if __name__ == "__main__":
    sys.exit(main())
