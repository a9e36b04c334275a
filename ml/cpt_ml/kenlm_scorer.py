"""Documents scored by a KenLM n-gram model (Heafield 2011): some thousand times cheaper than a transformer.

Its words are the pieces of the run's tokenizer as the tokenizer writes them (`Ġthe`, `▁the`), parted by blanks: train
one with `lmplz` on text that is written so. A document is one sentence with a beginning and no end, so every one of
its tokens is scored.
"""

from __future__ import annotations

import importlib.util
import json
import math
import re
import signal
import subprocess
import sys
import time
import weakref
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from cpt_ml.errors import BadRequest, JobFailure
from cpt_ml.kenlm_process import OK, receive, send
from cpt_ml.nll import TokenIds
from cpt_ml.score_ppl import Beat, Scored

INSTALL = "install it with `uv sync --frozen --extra kenlm` in ml/, which compiles for two minutes"
BEAT_DOCS = 200
PROBE_DOCS = 200
KNOWN_SHARE = 0.5
COMPUTING_SECONDS = 60  # of BEAT_DOCS documents, which take one
NATS_PER_LOG10 = math.log(10)
# a document's own <s> is no beginning of a sentence
MARKS = frozenset(["<s>", "</s>"])


class KenlmScorer:
    """An .arpa or binary model over the pieces of a tokenizer.json; documents are cut to `max_tokens`."""

    parameters = 0
    device = "cpu"

    def __init__(self, model: Path, tokenizer: Path, max_tokens: int) -> None:
        if importlib.util.find_spec("kenlm") is None:
            raise JobFailure(f"score-ppl: engine kenlm is not installed; {INSTALL}", "EnvironmentBroken")
        from tokenizers import Tokenizer  # noqa: PLC0415

        try:
            read: Any = Tokenizer.from_file(str(tokenizer))
        except Exception as e:  # the binding raises Exception itself
            raise BadRequest(f"tokenizer: {tokenizer.name} is not a tokenizer.json ({e})") from e
        pieces = [_word(read.id_to_token(i)) for i in range(read.get_vocab_size())]
        self._model = _Process(model)
        self._vocabulary = len(pieces)
        self._known = np.frombuffer(self._model.ask(json.dumps(pieces).encode()), dtype=np.bool_)
        self._max_tokens = max_tokens

    def score(self, docs: Sequence[TokenIds], beat: Beat) -> Scored:
        """As Scorer says. BadRequest if the model does not know half of the tokens: it is of another tokenizer."""
        tokens_D = np.array([min(len(doc), self._max_tokens) for doc in docs], dtype=np.int64)
        nats_D = np.zeros(len(docs), dtype=np.float64)
        total, known = int(tokens_D.sum()), 0
        for begin in range(0, len(docs), BEAT_DOCS):
            some = slice(begin, begin + BEAT_DOCS)
            nats_D[some], of_them = self._documents(docs[some])
            known += of_them
            beat(int(tokens_D[: begin + BEAT_DOCS].sum()), total)
        if known < KNOWN_SHARE * total:
            raise BadRequest(
                f"scorer: the KenLM model knows {known} of {total} tokens; expected one trained on text as the pieces"
                " of this tokenizer"
            )
        return Scored(nats_D, tokens_D, total, total)

    def tokens_per_second(self, docs: Sequence[TokenIds]) -> float:
        """As Scorer says."""
        some = list(islice(docs, PROBE_DOCS))
        began = time.perf_counter()
        self._documents(some)
        return sum(min(len(doc), self._max_tokens) for doc in some) / (time.perf_counter() - began)

    def _documents(self, docs: Sequence[TokenIds]) -> tuple[Any, int]:
        """Nats of all tokens of each, and how many of them the model knows. BadRequest outside the vocabulary."""
        cut = [doc[: self._max_tokens] for doc in docs]
        tokens = np.concatenate([np.zeros(0, dtype="<u4"), *cut])
        if int(tokens.max(initial=0)) >= self._vocabulary:
            raise BadRequest(f"tokenizer: a document has token {int(tokens.max())}, the tokenizer {self._vocabulary}")
        asked = np.concatenate([np.array([len(cut), *map(len, cut)], dtype="<u4"), tokens], dtype="<u4")
        log10_D = np.frombuffer(self._model.ask(asked.tobytes()), dtype="<f8")
        return -NATS_PER_LOG10 * log10_D, int(self._known[tokens].sum())


class _Process:
    """The model in a process of its own, which leaves when this one is gone."""

    def __init__(self, model: Path) -> None:
        self._name = model.name
        command = [sys.executable, "-m", "cpt_ml.kenlm_process", str(model), str(COMPUTING_SECONDS)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        weakref.finalize(self, _end, self._process)

    def ask(self, message: bytes) -> bytes:
        """Its answer. BadRequest where KenLM refuses the model, or dies of it."""
        asked, answers = self._process.stdin, self._process.stdout
        assert asked is not None
        assert answers is not None
        try:
            send(asked, message)
            answer = receive(answers)
        except BrokenPipeError:
            answer = None
        if answer is None:
            raise self._death()
        if answer[:1] != OK:
            why = " ".join(answer[1:].decode(errors="replace").split())
            raise BadRequest(f"scorer: {self._name} is no KenLM model that can be used: {why[:300]}")
        return answer[1:]

    def _death(self) -> JobFailure:
        code = self._process.wait()
        if code == -signal.SIGKILL:
            why = f"scorer: the process with {self._name} was killed: is there memory enough for it?"
            return JobFailure(why, "OutOfMemory")
        how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        return BadRequest(
            f"scorer: KenLM ended by {how} over {self._name}, so the file is damaged: copy or build it again, or give"
            " the .arpa file that it was built from"
        )


def _end(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.communicate()


def _word(piece: str | None) -> str:
    """A piece as one word of the model: no blanks inside, never a mark of the model's own."""
    if piece is None or not piece or piece in MARKS:
        return "<unk>"
    return re.sub(r"[\s\0]", "▁", piece)
