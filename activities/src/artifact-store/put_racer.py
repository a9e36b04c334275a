"""A process of the race (race.ts), by the Python side of the protocol: a line lists keys to put one's own name at."""

import json
import os
import sys

from cpt_ml.store import open_backend

store = open_backend(os.environ["CPT_STORE"])
name = f"python {os.getpid()}"
for line in sys.stdin:
    answers = []
    for key in json.loads(line):
        won = store.put_if_absent(key, name.encode())
        answers.append([won, (store.get(key) or b"").decode()])
    print(json.dumps(answers), flush=True)
