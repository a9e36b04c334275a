"""What is trained in the benchmark: sample text as a committed corpus, and two models.

`world.py --work DIR --seed S` makes it once. The corpus is the sample's documents over and over, each copy with a
score drawn by the seed: perplexity order then jumps all over the shards, as that of a real corpus does.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

home = Path(__file__).parents[3]
sys.path[:0] = [str(home / "ml" / "tests"), str(home / "test" / "bench" / "data")]

import numpy as np  # noqa: E402
import pyarrow as pa  # noqa: E402
import pyarrow.parquet as pq  # noqa: E402
from cpt_ml.store import Json  # noqa: E402

from conftest import Workbench  # noqa: E402
from enlarge import sample_documents  # noqa: E402

BASE = home / "samples" / "base"
COPIES, SHARDS = 12, 4
SEQUENCE = 256  # what the sample model was trained with
BATCH = 2048


@dataclass(frozen=True)
class Case:
    """A model and how many sequences of a global batch are computed at a time."""

    name: str
    model: str
    micro_batch: int
    steps: int


SMALL = Case("0.7M parameters", "small/", 8, 40)
LARGE = Case("14M parameters", "large/", 8, 12)
LARGE_SHAPE = {"hidden_size": 384, "intermediate_size": 1024, "num_hidden_layers": 7, "num_attention_heads": 6,
               "num_key_value_heads": 6, "head_dim": 64}  # fmt: skip


def main() -> None:
    args = arguments()
    bench = Workbench(args.work)
    for path in BASE.iterdir():
        bench.put(f"small/{path.name}", path.read_bytes())
    _make_large(bench, args.seed)
    tokenizer = bench.put("tokenizer.json", (BASE / "tokenizer.json").read_bytes())
    pool = _make_pool(bench, args.seed)
    bench.put("world.json", json.dumps({"tokenizer": tokenizer, "pool": pool}).encode())


def arguments() -> argparse.Namespace:
    """--work DIR and --seed S."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--seed", type=int, required=True)
    return parser.parse_args()


def opened(work: Path, name: str) -> Workbench:
    """The store and files that were made, for jobs of another script."""
    bench, made = Workbench(work / name), Workbench(work)
    bench.roots, bench.files = made.roots, made.files
    return bench


def draw_plan(bench: Workbench, steps: int, seed: int) -> Json:
    """The plan of a phase of so many steps, in perplexity order over the whole pool."""
    made, budget = _made(bench), steps * BATCH
    asked = {
        "pools": [made["pool"]], "tokenizer": made["tokenizer"], "tokenBudget": budget, "sequenceTokens": SEQUENCE,
        "strata": [{"language": n, "kind": "web", "topic": None, "ratio": 0.5} for n in ("en", "zh")],
        "order": "perplexity", "curriculumLanguages": None,
        "band": {"fromTokens": 0, "toTokens": budget, "totalTokens": budget}, "previous": None,
        "exhaustion": "repeat", "maxEpochs": 2, "bos": False, "eos": True, "seed": seed,
    }  # fmt: skip
    return bench.run("sample-mixture", asked)["plan"]


def _made(bench: Workbench) -> Json:
    return json.loads((bench.files / "world.json").read_bytes())


def train_request(bench: Workbench, case: Case, steps: int, seed: int) -> Json:
    """A phase of `steps` global batches: AdamW, clipping, warm-up and decay, a validation set of one document."""
    made, budget = _made(bench), steps * BATCH
    return {
        "start": {"kind": "model", "model": bench.ref(case.model)}, "plan": draw_plan(bench, steps, seed),
        "tokenizer": made["tokenizer"], "tokenBudget": budget, "sequenceTokens": SEQUENCE, "globalBatchTokens": BATCH,
        "schedule": {"shape": "warmup-stable-decay", "peakLr": 3e-4, "minLr": 3e-5, "warmupTokens": BATCH,
                     "decayTokens": BATCH, "totalTokens": budget, "startTokens": 0},
        "optimizer": {"beta1": 0.9, "beta2": 0.95, "epsilon": 1e-8, "weightDecay": 0.1, "clipNorm": 1.0},
        "dtype": "float32", "seed": seed,
        "validation": {"sets": _validation(bench), "windowTokens": SEQUENCE, "maxTokensPerDoc": SEQUENCE},
    }  # fmt: skip


def _validation(bench: Workbench) -> Json:
    row = {"id": "v", "text": "the water runs down to the sea", "set": "corpus", "language": "en", "kind": "web"}
    columns = {n: pa.array([v], pa.string()) for n, v in {**row, "topic": None}.items()}
    pq.write_table(pa.table(columns), bench.files / "validation.parquet")
    return bench.ref("validation.parquet")


def _make_large(bench: Workbench, seed: int) -> None:
    import torch  # noqa: PLC0415
    from cpt_ml.llama import Llama, LlamaConfig  # noqa: PLC0415
    from cpt_ml.train_state import write_model  # noqa: PLC0415

    config = {**json.loads((BASE / "config.json").read_bytes()), **LARGE_SHAPE, "dtype": "float32"}
    bench.put("large/config.json", json.dumps(config).encode())
    for name in ("tokenizer.json", "tokenizer_config.json", "generation_config.json"):
        bench.put(f"large/{name}", (BASE / name).read_bytes())
    model = Llama(LlamaConfig.read(bench.files / "large"))
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in model.parameters():
            _ = p.fill_(1.0) if p.ndim == 1 else p.normal_(0, 0.02, generator=generator)
    write_model(bench.files / "large" / "model.safetensors", model)


def _make_pool(bench: Workbench, seed: int) -> Json:
    """Commits COPIES times the sample's documents in SHARDS shards; returns a planner's pool."""
    from tokenizers import Tokenizer  # noqa: PLC0415

    docs = sample_documents(home / "samples" / "corpus")
    tokenizer: Any = Tokenizer.from_file(str(BASE / "tokenizer.json"))
    encoded = tokenizer.encode_batch([d["text"] for d in docs], add_special_tokens=False)
    ids = [np.array(e.ids, dtype="<u4") for e in encoded]
    job = bench.job("corpus-of-the-benchmark", {"seed": seed})
    attempt, rng = job.attempt(), np.random.default_rng(seed)
    entries: dict[str, list[Json]] = {k: [] for k in ("corpus", "tokens", "index", "topics", "scores")}
    for s in range(SHARDS):
        chosen = rng.permutation(np.repeat(np.arange(len(docs)), COPIES // SHARDS)).tolist()
        lengths = np.array([len(ids[i]) for i in chosen], dtype=np.uint32)
        tables: dict[str, dict[str, Any]] = {
            "corpus": {
                "id": [f"{docs[i]['id']}~{s}.{n}" for n, i in enumerate(chosen)], "text": [""] * len(chosen),
                "language": [docs[i]["lang"] for i in chosen], "kind": ["web"] * len(chosen),
                "use": ["train"] * len(chosen),
            },
            "index": {
                "offset": pa.array(np.cumsum(lengths, dtype=np.uint64) - lengths, pa.uint64()), "num_tokens": lengths,
                "num_bytes": pa.array([len(docs[i]["text"].encode()) for i in chosen], pa.uint32()),
            },
            "topics": {"topic": pa.array([None] * len(chosen), pa.string())},
            "scores": {"nll": pa.array(rng.uniform(1, 6, len(chosen)).astype(np.float32)), "num_tokens": lengths},
        }  # fmt: skip
        for kind, columns in tables.items():
            pq.write_table(pa.table(columns), attempt.path(f"{kind}-{s}.parquet"), compression="zstd")
            entries[kind].append(attempt.shard(f"{kind}-{s}.parquet", len(chosen)))
        attempt.path(f"tokens-{s}.u32").write_bytes(np.concatenate([ids[i] for i in chosen]).tobytes())
        entries["tokens"].append(attempt.shard(f"tokens-{s}.u32", len(chosen)))
    pool: Json = {}
    for kind, shards in entries.items():
        attempt.path(f"{kind}.json").write_text(
            json.dumps({"format": "cpt-manifest/1", "kind": kind, "shards": shards})
        )
        pool[kind] = attempt.ref(f"{kind}.json")
    job.commit(attempt, {})
    return pool


if __name__ == "__main__":
    main()
