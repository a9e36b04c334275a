"""Which ids a tokenizer uses for the beginning and the end of a text."""

from __future__ import annotations

import json
from pathlib import Path

from cpt_ml.errors import BadRequest
from cpt_ml.store import ArtifactRef, Store

BOS_NAMES = ("<s>", "<|begin_of_text|>", "<|startoftext|>", "<bos>", "<|bos|>", "[BOS]")
EOS_NAMES = ("</s>", "<|end_of_text|>", "<|endoftext|>", "<eos>", "<|eos|>", "[EOS]")


def tokenizer_file(store: Store, ref: ArtifactRef) -> Path:
    """Path of the tokenizer.json that a reference to it, or to a model folder, names."""
    return store.folder(ref) / "tokenizer.json" if ref.uri.endswith("/") else store.file(ref)


def special_token_id(tokenizer: Path, names: tuple[str, ...], setting: str) -> int:
    """The id of the first of `names` among the special tokens of a tokenizer.json. Raises BadRequest if it has none."""
    added = json.loads(tokenizer.read_bytes())["added_tokens"]
    ids = {t["content"]: int(t["id"]) for t in added if t["special"]}
    for name in names:
        if name in ids:
            return ids[name]
    raise BadRequest(
        f"{setting} is set, but the tokenizer has none of {list(names)}; its special tokens: {sorted(ids)}"
    )


def padded_rows(size: int, multiple: int) -> int:
    """Rows of an embedding for so many ids, up to the next multiple."""
    return -(-size // multiple) * multiple


def vocabulary_size(tokenizer: Path) -> int:
    """One more than the highest id that a tokenizer.json can give."""
    content = json.loads(tokenizer.read_bytes())
    vocabulary = content["model"]["vocab"]
    ids = list(vocabulary.values()) if isinstance(vocabulary, dict) else list(range(len(vocabulary)))
    return 1 + max([*ids, *(int(t["id"]) for t in content["added_tokens"])])
