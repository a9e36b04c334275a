"""Documents scored by a KenLM n-gram model (Heafield 2011): some thousand times cheaper than a transformer.

Its words are the pieces of the run's tokenizer as the tokenizer writes them (`Ġthe`, `▁the`), parted by blanks: train
one with `lmplz` on text that is written so. A document is one sentence with a beginning and no end, so every one of
its tokens is scored.
"""

from __future__ import annotations

import math
import re
import time
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from cpt_ml.errors import BadRequest, JobFailure
from cpt_ml.nll import TokenIds
from cpt_ml.score_ppl import Beat, Scored

INSTALL = "install it with `uv sync --frozen --extra kenlm` in ml/, which compiles for two minutes"
BEAT_DOCS = 200
PROBE_DOCS = 200
KNOWN_SHARE = 0.5
# a document's own <s> is no beginning of a sentence
MARKS = frozenset(["<s>", "</s>"])


class KenlmScorer:
    """An .arpa or binary model over the pieces of a tokenizer.json; documents are cut to `max_tokens`."""

    parameters = 0
    device = "cpu"

    def __init__(self, model: Path, tokenizer: Path, max_tokens: int) -> None:
        try:
            import kenlm  # noqa: PLC0415 # pyright: ignore[reportMissingImports]
        except ImportError as e:
            raise JobFailure(f"score-ppl: engine kenlm: {e}; {INSTALL}", "EnvironmentBroken") from e
        from tokenizers import Tokenizer  # noqa: PLC0415

        try:
            self._model: Any = kenlm.Model(str(model))
        except (OSError, RuntimeError) as e:
            raise BadRequest(f"scorer: {model.name} is no KenLM model: {' '.join(str(e).split())[:300]}") from e
        read: Any = Tokenizer.from_file(str(tokenizer))
        self._pieces = [_word(read.id_to_token(i)) for i in range(read.get_vocab_size())]
        self._known = np.array([p in self._model for p in self._pieces], dtype=np.bool_)
        self._max_tokens = max_tokens

    def score(self, docs: Sequence[TokenIds], beat: Beat) -> Scored:
        """As Scorer says. BadRequest if the model does not know half of the tokens: it is of another tokenizer."""
        tokens_D = np.array([min(len(doc), self._max_tokens) for doc in docs], dtype=np.int64)
        nats_D = np.zeros(len(docs), dtype=np.float64)
        total, done, known = int(tokens_D.sum()), 0, 0
        for i, doc in enumerate(docs):
            nats_D[i], of_it = self._document(doc)
            known += of_it
            done += int(tokens_D[i])
            if i % BEAT_DOCS == 0:
                beat(done, total)
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
        for doc in some:
            self._document(doc)
        return sum(min(len(doc), self._max_tokens) for doc in some) / (time.perf_counter() - began)

    def _document(self, doc: TokenIds) -> tuple[float, int]:
        """Nats of all its tokens, and how many of them the model knows. BadRequest outside the vocabulary."""
        ids = doc[: self._max_tokens]
        if int(ids.max(initial=0)) >= len(self._pieces):
            raise BadRequest(f"tokenizer: a document has token {int(ids.max())}, the tokenizer {len(self._pieces)}")
        words = " ".join([self._pieces[i] for i in ids.tolist()])
        return -math.log(10) * self._model.score(words, bos=True, eos=False), int(self._known[ids].sum())


def _word(piece: str | None) -> str:
    """A piece as one word of the model: no blanks inside, never a mark of the model's own."""
    if piece is None or not piece or piece in MARKS:
        return "<unk>"
    return re.sub(r"\s", "▁", piece)
