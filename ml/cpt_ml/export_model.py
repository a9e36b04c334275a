"""export-model: the Hugging Face folder to publish, opened once by transformers and compared before it is committed."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cpt_ml import contract
from cpt_ml.errors import StoreCorrupt
from cpt_ml.job import Job
from cpt_ml.store import ArtifactRef
from cpt_ml.weights import INDEX, copy_companions, count_parameters, weight_files, weights_sha256

LOGIT_TOLERANCE = 1e-3  # two implementations in fp32; a wrong tensor is off by orders of magnitude more
PROBE_TOKENS = 32


@dataclass(frozen=True)
class Card:
    title: str
    language: list[str]
    license: str
    summary: str


@dataclass(frozen=True)
class LineageEntry:
    what: str
    sha256: str
    uri: str


@dataclass(frozen=True)
class ExportModelRequest:
    """contracts/src/export-model.ts."""

    model: ArtifactRef
    base: ArtifactRef
    card: Card
    lineage: list[LineageEntry]


def run(job: Job) -> None:
    """Writes model/ with weights, config, tokenizer, README.md and lineage.json.

    Raises BadRequest if the source is no Llama folder, StoreCorrupt if the written folder's logits on a fixed input are
    not those of the source.
    """
    request = contract.parse(ExportModelRequest, job.request)
    job.beat("write")
    source = job.store.folder(request.model)
    attempt = job.attempt()
    target = attempt.path("model/README.md").parent
    for path in weight_files(source):
        shutil.copyfile(path, target / path.name)
    if (source / INDEX).is_file():
        shutil.copyfile(source / INDEX, target / INDEX)
    copy_companions(source, target)
    digest = weights_sha256(target)
    lineage = {
        "format": "cpt-lineage/1",
        "model": request.model.json(),
        "base": request.base.json(),
        "weightsSha256": digest,
        "parents": job.request["lineage"],
    }
    (target / "lineage.json").write_text(json.dumps(lineage, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    parameters = count_parameters(target)
    (target / "README.md").write_text(model_card(request, parameters, digest), encoding="utf-8")
    job.beat("verify")
    _verify(source, target, job.threads)
    record = job.commit(
        attempt,
        {
            "model": attempt.folder_ref("model/"),
            "path": attempt.where("model"),
            "parameters": parameters,
            "files": sum(p.is_file() for p in target.iterdir()),
            "weightsSha256": digest,
        },
    )
    job.log("exported", path=record["result"]["path"])


def model_card(request: ExportModelRequest, parameters: int, digest: str) -> str:
    """README.md: YAML front matter of quoted strings, and text in which nothing of the user's is markup."""
    front = {
        "language": request.card.language,
        "license": request.card.license,
        "library_name": "transformers",
        "pipeline_tag": "text-generation",
        "tags": ["continual-pretraining"],
    }
    # a JSON string is a YAML string, so no value can end the front matter or add a key
    matter = "".join(f"{key}: {json.dumps(value)}\n" for key, value in front.items())
    rows = "".join(f"| {plain(e.what)} | `{plain(e.sha256)}` | {plain(e.uri)} |\n" for e in request.lineage)
    return (
        f"---\n{matter}---\n\n# {plain(request.card.title)}\n\n{plain(request.card.summary)}\n\n"
        f"{parameters:,} parameters, continually pre-trained from a base model with digest `{request.base.sha256}`.\n"
        f"Weights: `{digest}` (sha256 over sorted names, types, shapes and bytes).\n\n"
        f"## Lineage\n\n| what | sha256 | where |\n|---|---|---|\n{rows}"
    )


def plain(text: str) -> str:
    """The user's text as Markdown that shows it and does nothing else: one line, every mark escaped."""
    one_line = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return "".join(ENTITIES.get(c, c) for c in one_line)


ENTITIES = {c: f"&#{ord(c)};" for c in "<>&\"'|`*_[]()#!\\~$:@"}


def _verify(source: Path, target: Path, threads: int) -> None:
    import torch  # noqa: PLC0415
    from transformers import AutoModelForCausalLM  # noqa: PLC0415

    from cpt_ml.llama import load_llama  # noqa: PLC0415

    torch.set_num_threads(threads)
    ours = load_llama(source)
    theirs: Any = AutoModelForCausalLM.from_pretrained(
        target, dtype=torch.float32, local_files_only=True, trust_remote_code=False
    )
    tokens_BT = (torch.arange(PROBE_TOKENS)[None] * 7919) % ours.config.vocabulary
    with torch.inference_mode():
        expected, found = ours(tokens_BT), theirs.eval()(tokens_BT).logits
    off = float((expected - found).abs().max())
    if not off <= LOGIT_TOLERANCE * max(1.0, float(expected.abs().max())):
        raise StoreCorrupt(f"export-model: logits of the written folder differ from the source's by up to {off}")
