"""Jobs as real processes, forked by a zygote (zygote.py) that has imported what takes seconds."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from cpt_ml.job import Job

# pandas: pyarrow imports it when it first gives a column to numpy
TRAINING = ("pyarrow.parquet", "pandas", "safetensors.torch", "tokenizers", "cpt_ml.train")


class Processes:
    """Job processes forked by one zygote, which has imported `imports` and `more`; `env` is added to its environment.

    Raises RuntimeError, with the zygote's last words, where it is gone.
    """

    def __init__(self, *more: str, imports: Sequence[str] = TRAINING, **env: str) -> None:
        here = Path(__file__).parent
        self._words = tempfile.TemporaryFile()  # noqa: SIM115
        self.zygote = subprocess.Popen(
            [sys.executable, str(here / "zygote.py"), *imports, *more], cwd=here.parent, stdin=subprocess.PIPE,
            stdout=subprocess.PIPE, stderr=self._words, text=True,
            env={**os.environ, "PYTHONPATH": str(here.parent), **env},
        )  # fmt: skip

    def ask(self, line: str) -> int:
        assert self.zygote.stdin
        assert self.zygote.stdout
        try:
            self.zygote.stdin.write(line + "\n")
            self.zygote.stdin.flush()
            answer = self.zygote.stdout.readline()
        except BrokenPipeError:
            answer = ""
        if not answer:
            raise RuntimeError(
                f"the zygote ended with {self.zygote.wait()} when asked to {line!r}: {self._last_words()}"
            )
        return int(answer)

    def _last_words(self) -> str:
        self._words.seek(0)
        return self._words.read()[-2000:].decode(errors="replace").strip() or "it said nothing"

    def start(self, job: Job, failpoints: Path | None = None, setup: str = "") -> int:
        """Forks the job; `failpoints` is its folder of them, `setup` (`module:word`) what it calls first."""
        (job.folder / "request.json").write_text(json.dumps(job.spec))
        words = [job.stage, job.folder / "request.json", job.folder / "result.json", failpoints or "-"]
        return self.ask(" ".join(map(str, [*words, *([setup] if setup else [])])))

    def wait(self, pid: int) -> int:
        """How the job ended: its exit code, minus a signal."""
        return os.waitstatus_to_exitcode(self.ask(f"wait {pid}"))

    def close(self) -> None:
        assert self.zygote.stdin
        assert self.zygote.stdout
        try:
            self.zygote.stdin.close()
        except BrokenPipeError:
            pass
        self.zygote.wait()
        self.zygote.stdout.close()
        self._words.close()
