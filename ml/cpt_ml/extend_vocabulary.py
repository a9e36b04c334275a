"""extend-vocabulary: a model folder for another tokenizer, its new embedding and head rows made by a recorded method.

A token that both tokenizers have keeps its rows, told by its string and not by its id. Shape suffixes: V rows of the
old vocabulary, W of the new one, D width.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from cpt_ml import contract
from cpt_ml.durable_files import sha256_file
from cpt_ml.errors import BadRequest
from cpt_ml.job import Job
from cpt_ml.special_tokens import BOS_NAMES, EOS_NAMES, padded_rows, tokenizer_file
from cpt_ml.store import ArtifactRef, Json
from cpt_ml.tensor_files import write_split
from cpt_ml.weights import copy_companions, stored_weights, weights_sha256

EMBEDDING, HEAD = "model.embed_tokens.weight", "lm_head.weight"
RECORD = "vocabulary-extension.json"
# of the old tokenizer, so they stay behind
OF_TOKENIZER = ("tokenizer.json", "special_tokens_map.json", "added_tokens.json", "vocab.json", "merges.txt",
                "tokenizer.model", "tokenizer_config.json")  # fmt: skip


@dataclass(frozen=True)
class ExtendVocabularyRequest:
    """contracts/src/extend-vocabulary.ts; `tokenizer` is a tokenizer.json, or a folder with one."""

    model: ArtifactRef
    tokenizer: ArtifactRef
    method: Literal["subword-mean", "mean"]
    pad_to_multiple_of: int


@dataclass(frozen=True)
class Rows:
    """Which old rows each new row is the mean of, and how many of each sort there are."""

    sources: list[Sequence[int]]
    copied: int
    averaged: int
    mean_of_all: int
    padding: int


def run(job: Job) -> None:
    """Writes model/: weights with the new embedding and head, config, the new tokenizer, vocabulary-extension.json.

    Raises BadRequest if a tokenizer cannot be loaded, or gives ids that the model has no rows for.
    """
    request = contract.parse(ExtendVocabularyRequest, job.request)
    job.beat("rows")
    source, new_file = job.store.folder(request.model), tokenizer_file(job.store, request.tokenizer)
    old, new = _tokenizer(source / "tokenizer.json"), _tokenizer(new_file)
    stored = stored_weights(source)
    if EMBEDDING not in stored:
        raise BadRequest(f"extend-vocabulary: {source.name} has no {EMBEDDING}: no Llama")
    config: Json = json.loads((source / "config.json").read_bytes())
    rows = choose_rows(old, new, stored[EMBEDDING].shape[0], request.method, request.pad_to_multiple_of)
    changed = [EMBEDDING] if config.get("tie_word_embeddings", False) else [EMBEDDING, HEAD]
    kept = [n for n in stored if n != HEAD or HEAD in changed]
    sizes = {n: stored[n].num_bytes // stored[n].shape[0] * len(rows.sources) if n in changed else stored[n].num_bytes
             for n in kept}  # fmt: skip

    attempt = job.attempt()
    target = attempt.path("model/config.json").parent
    job.beat("write")

    def tensor(name: str) -> Any:
        return means(stored[name][:], rows.sources) if name in changed else stored[name][:]

    write_split(target, "model.safetensors", sizes, tensor)
    copy_companions(source, target)
    for name in OF_TOKENIZER:
        (target / name).unlink(missing_ok=True)
    (target / "tokenizer.json").write_bytes(new_file.read_bytes())
    _write_configs(source, target, config, old, new, len(rows.sources))
    digest = weights_sha256(target)
    record = {
        "format": "cpt-vocabulary-extension/1",
        "model": request.model.json(),
        "tokenizerBefore": sha256_file(source / "tokenizer.json"),
        "tokenizerAfter": sha256_file(new_file),
        "method": request.method,
        "padToMultipleOf": request.pad_to_multiple_of,
        "rowsBefore": stored[EMBEDDING].shape[0],
        "rowsAfter": len(rows.sources),
        "copied": rows.copied,
        "averaged": rows.averaged,
        "meanOfAll": rows.mean_of_all,
        "padding": rows.padding,
        "changed": changed,
        "weightsSha256": digest,
    }
    (target / RECORD).write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    counts = {k: record[k] for k in ("rowsBefore", "rowsAfter", "copied", "averaged", "meanOfAll", "padding")}
    job.commit(attempt, {"model": attempt.folder_ref("model/"), **counts, "weightsSha256": digest})


def choose_rows(old: Any, new: Any, old_rows: int, method: str, multiple: int) -> Rows:
    """The old rows behind each id of the new tokenizer, up to the next multiple.

    A token of both keeps its row. With `subword-mean` another gets the mean of the old tokenizer's pieces of its text;
    where that is no text (a part of a character), of those of its characters that are tokens. What is left, with `mean`
    every new token, and padding get the mean of all rows that the old tokenizer uses.
    """
    known, wanted = old.get_vocab(with_added_tokens=True), new.get_vocab(with_added_tokens=True)
    beyond = {t: i for t, i in known.items() if i >= old_rows}
    if beyond:
        raise BadRequest(f"extend-vocabulary: the model has {old_rows} rows, its tokenizer also {sorted(beyond)[:5]}")
    everything = sorted(set(known.values()))
    size = padded_rows(1 + max(wanted.values()), multiple)
    sources: list[Sequence[int]] = [everything] * size
    copied = averaged = 0
    for token, i in wanted.items():
        if token in known:
            sources[i] = [known[token]]
            copied += 1
        elif method == "subword-mean" and (pieces := _pieces(token, i, old, new, known)):
            sources[i] = pieces
            averaged += 1
    used = len(set(wanted.values()))
    return Rows(sources, copied, averaged, used - copied - averaged, size - used)


def _pieces(token: str, number: int, old: Any, new: Any, known: dict[str, int]) -> list[int]:
    text = new.decode([number], skip_special_tokens=False)
    pieces = [] if not text or "\ufffd" in text else old.encode(text, add_special_tokens=False).ids
    return pieces or [known[c] for c in token if c in known]


def means(weight_VD: Any, sources: list[Sequence[int]]) -> Any:
    """Row i is the mean of the rows sources[i], summed in float64, in the type of the weights; one row is copied."""
    import torch  # noqa: PLC0415

    out_WD = torch.empty((len(sources), weight_VD.shape[1]), dtype=weight_VD.dtype)
    made: dict[int, Any] = {}  # rows that share their list of sources share their mean
    for i, ids in enumerate(sources):
        if len(ids) == 1:
            out_WD[i] = weight_VD[ids[0]]
            continue
        if id(ids) not in made:
            made[id(ids)] = weight_VD[torch.tensor(list(ids))].to(torch.float64).mean(0).to(weight_VD.dtype)
        out_WD[i] = made[id(ids)]
    return out_WD


def _tokenizer(path: Path) -> Any:
    from tokenizers import Tokenizer  # noqa: PLC0415

    try:
        tokenizer: Any = Tokenizer.from_file(str(path))
    except Exception as e:  # the binding raises Exception itself
        raise BadRequest(f"extend-vocabulary: {path.parent.name}/{path.name} is not a tokenizer.json ({e})") from e
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def _write_configs(  # noqa: PLR0917
    source: Path, target: Path, config: Json, old: Any, new: Any, rows: int
) -> None:
    """config.json and generation_config.json with the new size and ids, and a tokenizer_config.json."""

    def renumbered(number: Any, names: tuple[str, ...]) -> Any:
        if isinstance(number, list):
            return [n for n in (renumbered(x, names) for x in number) if n is not None]
        if not isinstance(number, int):
            return number
        candidates = (new.token_to_id(t) for t in (old.id_to_token(number), *names) if t is not None)
        return next((n for n in candidates if n is not None), None)

    ids = {"bos_token_id": BOS_NAMES, "eos_token_id": EOS_NAMES, "pad_token_id": ()}
    files = {"config.json": {**config, "vocab_size": rows}}
    if (source / "generation_config.json").is_file():
        files["generation_config.json"] = json.loads((source / "generation_config.json").read_bytes())
    for name, content in files.items():
        numbered = content | {k: renumbered(content[k], names) for k, names in ids.items() if k in content}
        (target / name).write_text(json.dumps(numbered, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    special = {key: next((t for t in names if new.token_to_id(t) is not None), None)
               for key, names in (("bos_token", BOS_NAMES), ("eos_token", EOS_NAMES))}  # fmt: skip
    settings = {"tokenizer_class": "PreTrainedTokenizerFast"} | {k: t for k, t in special.items() if t is not None}
    (target / "tokenizer_config.json").write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")
