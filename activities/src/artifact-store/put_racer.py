"""A process of the race in artifact-store.cases.ts, by the Python side of the protocol: a line is a key."""

import json
import os
import sys

from cpt_ml.store import open_backend

backend = open_backend(sys.argv[1])
for line in sys.stdin:
    key = line.strip()
    won = backend.put_if_absent(key, str(os.getpid()).encode())
    print(json.dumps({"won": won, "read": (backend.get(key) or b"").decode()}), flush=True)
