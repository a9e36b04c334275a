"""KenLM in a process of its own: `python -m cpt_ml.kenlm_process MODEL SECONDS`.

It reads a binary model as memory, so a damaged one ends the process that has it, or has it look for a word for ever:
here that is not the job, and SIGXCPU ends what computes for longer than SECONDS at one message. Messages are
a length (u32, little-endian) and so many bytes. The first one in is the vocabulary, as JSON: its answer tells of each
piece whether the model knows it (u8). All others are documents: their number, their lengths and their tokens (u32):
the answer is log10 of the probability of each (f64). An answer begins with OK, or with FAILED and why.
"""

from __future__ import annotations

import json
import math
import resource
import sys
from pathlib import Path
from typing import IO, Any

import numpy as np

OK, FAILED = b"\x00", b"\x01"
BINARY = b"mmap lm http"


def send(to: IO[bytes], message: bytes) -> None:
    """Writes one message."""
    to.write(len(message).to_bytes(4, "little") + message)
    to.flush()


def receive(of: IO[bytes]) -> bytes | None:
    """The next message, or None where the other side is gone."""
    size = of.read(4)
    message = of.read(int.from_bytes(size, "little"))
    return None if len(size) < 4 or len(message) < int.from_bytes(size, "little") else message


class _Model:
    def __init__(self, path: str, pieces: list[str], seconds: int) -> None:
        import kenlm  # noqa: PLC0415 # pyright: ignore[reportMissingImports]

        config = kenlm.Config()
        config.show_progress = False
        config.arpa_complain = kenlm.ARPALoadComplain.NONE
        if _is_binary(path):  # an .arpa file takes what it takes, and is read to its end once
            limit_computing(seconds)
        self._model: Any = kenlm.Model(path, config)
        self._pieces = pieces

    def known(self) -> bytes:
        return np.array([p in self._model for p in self._pieces], dtype=np.uint8).tobytes()

    def score(self, message: bytes) -> bytes:
        numbers = np.frombuffer(message, dtype="<u4")
        count = int(numbers[0])
        ends = 1 + count + np.cumsum(numbers[1 : 1 + count], dtype=np.int64)
        begins = np.concatenate([[1 + count], ends[:-1]])
        tokens = numbers.tolist()
        return np.array(
            [self._document(tokens[begin:end]) for begin, end in zip(begins, ends, strict=True)], dtype="<f8"
        ).tobytes()

    def _document(self, tokens: list[int]) -> float:
        return self._model.score(" ".join([self._pieces[t] for t in tokens]), bos=True, eos=False)


def _is_binary(path: str) -> bool:
    with Path(path).open("rb") as file:
        return file.read(len(BINARY)) == BINARY


def limit_computing(seconds: int) -> None:
    """This process may compute so long from here on."""
    used = sum(resource.getrusage(resource.RUSAGE_SELF)[:2])
    resource.setrlimit(resource.RLIMIT_CPU, (math.ceil(used) + seconds, resource.RLIM_INFINITY))


def main(path: str, seconds: int) -> None:
    """Answers until nobody asks."""
    asked, answers = sys.stdin.buffer, sys.stdout.buffer
    model: _Model | None = None
    while (message := receive(asked)) is not None:
        try:
            if model is None:
                model = _Model(path, json.loads(message), seconds)
                limit_computing(seconds)
                answer = model.known()
            else:
                limit_computing(seconds)
                answer = model.score(message)
            send(answers, OK + answer)
        except Exception as e:
            send(answers, FAILED + f"{e.__class__.__name__}: {e}".encode(errors="replace"))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
