"""Trains a byte-level BPE tokenizer on the small corpus, most of whose merges are Chinese; the samples' base has few.

python small_tokenizer.py CORPUS writes CORPUS/tokenizer.json; no randomness.
"""

import json
import sys
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

VOCABULARY = 5000
SPECIAL = ["<s>", "</s>"]


def main(corpus: Path) -> None:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=VOCABULARY, special_tokens=SPECIAL, initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()), show_progress=False)
    texts = [json.loads(line)["text"] for name in ("zh", "zh", "en") for line in (corpus / f"{name}.jsonl").read_bytes().splitlines()]
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.save(str(corpus / "tokenizer.json"))


main(Path(sys.argv[1]))
