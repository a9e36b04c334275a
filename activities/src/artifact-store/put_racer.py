"""A process of the race in artifact-store.cases.ts, by the Python side of the protocol: a line is a key."""

import json
import os
import sys
from pathlib import Path

from cpt_ml.store import put_if_absent

root = Path(sys.argv[1])
for line in sys.stdin:
    path = root / line.strip()
    won = put_if_absent(path, str(os.getpid()).encode())
    print(json.dumps({"won": won, "read": path.read_text()}), flush=True)
