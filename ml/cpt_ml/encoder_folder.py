"""A folder of weights that a person gave, as an encoder: what is hostile or unfit is refused before anything runs.

Of the folder only config.json, tokenizer.json and safetensors files are looked at: pickled weights are never opened and
Python files never imported.
"""

from __future__ import annotations

import json
import re
import struct
from pathlib import Path
from typing import Any

from cpt_ml.errors import BadRequest
from cpt_ml.store import Json

# encoders that transformers has a classification head for, and that tests train
MODEL_TYPES = ("albert", "bert", "camembert", "deberta-v2", "distilbert", "electra", "ernie", "modernbert", "mpnet",
               "roberta", "xlm-roberta")  # fmt: skip
# their positions begin after the padding's
OFFSET_POSITIONS = ("camembert", "mpnet", "roberta", "xlm-roberta")
MAX_LAYERS = 200
MAX_SIZE = 100_000_000
MIN_POSITIONS = 16
MAX_TOKENIZER_BYTES = 200 << 20
MAX_CONFIG_BYTES = 1 << 20
MAX_HEADER_BYTES = 100 << 20
HEAD_SHARE = 0.1  # of the weights may be missing: a pooler and a head that are trained anew
WEIGHTS = re.compile(r"model(?:-\d{5}-of-\d{5})?\.safetensors")
INDEX = "model.safetensors.index.json"


def checked_config(folder: Path) -> Json:
    """config.json without what would have code run or files read that are not ours.

    Raises BadRequest where it is none of an encoder, needs code of its own or is quantized.
    """
    config = _json(folder / "config.json", MAX_CONFIG_BYTES)
    if "auto_map" in config:
        wanted = str(config["auto_map"])[:200]
        raise refusal(folder, f"config.json wants code of its own (auto_map: {wanted}), which is not run")
    if config.get("model_type") not in MODEL_TYPES:
        raise refusal(folder, f"model_type is {config.get('model_type')!r}, expected one of {', '.join(MODEL_TYPES)}")
    if config.get("quantization_config"):
        raise refusal(folder, "its weights are quantized, expected float32, float16 or bfloat16")
    for name, least in (("vocab_size", 1), ("max_position_embeddings", MIN_POSITIONS), ("pad_token_id", 0)):
        value = config.get(name)
        if not (isinstance(value, int) and least <= value <= MAX_SIZE) and (value is not None or name == "vocab_size"):
            raise refusal(folder, f"config.json has {name} {str(value)[:80]!r}, expected {least} to {MAX_SIZE}")
    if (config.get("pad_token_id") or 0) >= config["vocab_size"]:
        raise refusal(
            folder, f"config.json pads with id {config['pad_token_id']}, and has {config['vocab_size']} words"
        )
    unwanted = ("custom_pipelines", "transformers_weights", "torch_dtype", "dtype", "_name_or_path", "num_labels",
                "id2label", "label2id", "problem_type")  # fmt: skip
    return {k: v for k, v in config.items() if k not in unwanted and not k.startswith("_attn")}


def checked_weights(folder: Path) -> tuple[list[Path], int]:
    """The safetensors files of a folder, with its index where there are several, and how many numbers they hold."""
    pickled = sorted(
        p.name for p in folder.iterdir() if p.suffix in (".bin", ".pt", ".pth", ".ckpt", ".h5", ".msgpack")
    )
    files = sorted(p for p in folder.iterdir() if WEIGHTS.fullmatch(p.name))
    if not files:
        instead = f"; {', '.join(pickled[:3])} is a format that can hold code and is not opened" if pickled else ""
        raise refusal(folder, f"there is no model.safetensors{instead}. Save it with save_pretrained of transformers")
    index = folder / INDEX
    if len(files) > 1:
        named = _json(index, MAX_HEADER_BYTES).get("weight_map")
        if not isinstance(named, dict) or not {*named.values()} <= {p.name for p in files}:
            raise refusal(folder, f"{INDEX} names other files than {', '.join(p.name for p in files)}")
    numbers = sum(_numbers(folder, path) for path in files)
    return [*files, *([index] if len(files) > 1 else [])], numbers


def _numbers(folder: Path, path: Path) -> int:
    """How many numbers a safetensors file holds, by its header."""
    try:
        with path.open("rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            if length > MAX_HEADER_BYTES:
                raise ValueError(f"a header of {length} bytes")
            header: Json = json.loads(file.read(length))
        shapes: list[list[int]] = [entry["shape"] for name, entry in header.items() if name != "__metadata__"]
        found = 0
        for shape in shapes:
            numbers = 1
            for n in shape:
                numbers *= int(n)
            found += numbers
    except (ValueError, KeyError, TypeError, AttributeError, struct.error) as e:
        raise refusal(folder, f"{path.name} is no safetensors file: {e}") from None
    return found


def read_tokenizer(folder: Path, vocabulary: int) -> Any:
    """The tokenizer of tokenizer.json, all of whose ids a model of that vocabulary has."""
    from tokenizers import Tokenizer  # noqa: PLC0415

    path = folder / "tokenizer.json"
    if not path.is_file():
        raise refusal(
            folder, "there is no tokenizer.json. Save it with AutoTokenizer's save_pretrained of transformers"
        )
    try:
        if path.stat().st_size > MAX_TOKENIZER_BYTES:
            raise ValueError(f"{path.stat().st_size} bytes")
        tokenizer: Any = Tokenizer.from_file(str(path))
        # what stands around every text need not be in the vocabulary
        around = tokenizer.encode("").ids
    except Exception as e:  # the library has no class of its own for it
        raise refusal(folder, f"tokenizer.json cannot be read: {e}") from None
    highest = max([*tokenizer.get_vocab(with_added_tokens=True).values(), *around], default=-1)
    if highest >= vocabulary:
        raise refusal(
            folder, f"tokenizer.json has id {highest}, and config.json a vocabulary of {vocabulary}: not a pair"
        )
    return tokenizer


def positions_of(config: Json) -> int:
    """How many tokens a text may have."""
    positions: int = config.get("max_position_embeddings") or 512
    return positions - 2 if config["model_type"] in OFFSET_POSITIONS else positions


def refusal(folder: Path, why: str) -> BadRequest:
    """Why a folder is not used."""
    return BadRequest(f"encoder {folder.name}: {why}")


def _json(path: Path, max_bytes: int) -> Json:
    try:
        if path.stat().st_size > max_bytes:
            raise ValueError(f"{path.stat().st_size} bytes")
        value: Any = json.loads(path.read_bytes())
        if not isinstance(value, dict):
            raise TypeError("no object")
    except FileNotFoundError:
        raise refusal(path.parent, f"there is no {path.name}") from None
    except (ValueError, TypeError, RecursionError) as e:
        raise refusal(path.parent, f"{path.name} cannot be read: {e}") from None
    return value
