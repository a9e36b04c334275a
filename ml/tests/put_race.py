"""Processes that race for keys: `python put_race.py <store root> [--processes 8] [--rounds 10000]` prints JSON.

{rounds, oneWinner, allReadIt, winners}: rounds in which exactly one process won, in which all read its bytes, and how
many processes won at least once. Exit 1 unless the first three are equal.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

ML = Path(__file__).parent.parent


def race(root: str, processes: int, rounds: int) -> dict[str, Any]:
    """Lets `processes` put their own name at one key at a time, and read what holds."""
    args = [sys.executable, __file__, "--racer", root]
    racers = [
        subprocess.Popen(args, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ML,
                         env={**os.environ, "PYTHONPATH": str(ML)})
        for _ in range(processes)
    ]  # fmt: skip
    one_winner = all_read_it = 0
    winners: set[str] = set()
    for number in range(rounds):
        for r in racers:
            assert r.stdin
            r.stdin.write(f"race/{number:06d}\n")
            r.stdin.flush()
        answers = [json.loads(r.stdout.readline()) for r in racers if r.stdout]
        won = [a["name"] for a in answers if a["won"]]
        one_winner += len(won) == 1
        all_read_it += len(won) == 1 and {a["read"] for a in answers} == {won[0]}
        winners.update(won)
    for r in racers:
        r.communicate()
    return {"rounds": rounds, "oneWinner": one_winner, "allReadIt": all_read_it, "winners": len(winners)}


def racer(root: str) -> None:
    from cpt_ml.store import open_backend  # noqa: PLC0415

    backend, name = open_backend(root), str(os.getpid())
    for line in sys.stdin:
        key = line.strip()
        won = backend.put_if_absent(key, name.encode())
        print(json.dumps({"name": name, "won": won, "read": (backend.get(key) or b"").decode()}), flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("root")
    parser.add_argument("--processes", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=10_000)
    parser.add_argument("--racer", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.racer:
        racer(args.root)
        return 0
    result = race(args.root, args.processes, args.rounds)
    print(json.dumps(result))
    return 0 if result["rounds"] == result["oneWinner"] == result["allReadIt"] else 1


if __name__ == "__main__":
    sys.exit(main())
