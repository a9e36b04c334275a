"""Train the byte-level BPE tokenizer of the tiny base model on its pre-training mix.

    python samples/make/train_tokenizer.py --shared DIR

Byte-level, so every script is representable; most merges are English, since the mix is.
"""

import argparse
import json
from collections.abc import Iterator
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from documents import Document
from pretraining_mix import pretraining_mix

BOS, EOS = "<s>", "</s>"
VOCAB_SIZE = 4096
MAX_POSITIONS = 256  # tokens


def train_tokenizer(documents: list[Document]) -> PreTrainedTokenizerFast:
    """Return a BPE tokenizer of VOCAB_SIZE tokens, the two special ones first; it adds neither by itself."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCAB_SIZE,
        special_tokens=[BOS, EOS],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    texts: Iterator[str] = (document["text"] for document in documents)
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=BOS,
        eos_token=EOS,
        model_max_length=MAX_POSITIONS,
        clean_up_tokenization_spaces=False,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shared", type=Path, required=True, help="folder of the source corpus")
    parser.add_argument("--samples", type=Path, default=Path(__file__).parent.parent, help="the samples folder")
    args = parser.parse_args()
    mix = pretraining_mix(args.shared, args.samples)
    base: Path = args.samples / "base"
    train_tokenizer(mix.english + mix.chinese).save_pretrained(base)
    config = json.loads((base / "tokenizer_config.json").read_bytes())
    config["tokenizer_class"] = "PreTrainedTokenizerFast"  # transformers 5 writes a name that 4 does not know
    config.pop("backend", None)
    (base / "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
