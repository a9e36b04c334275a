"""A world small enough for tests: a tokenizer, a random Llama, a committed corpus, and requests over them."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from conftest import Workbench

from cpt_ml.store import Json

WORDS = {
    "en": "the water of every river runs down to a cold sea and birds over it rest on old stones",
    "zh": "水 流 向 大 海 鸟 在 石 头 上 休 息 天 空 很 蓝 山 高 路 远",
}


@dataclass(frozen=True)
class Doc:
    """A document of a test corpus; `nll` NaN means unscored."""

    id: str
    text: str
    language: str
    kind: str
    topic: str | None
    nll: float


def write_text(language: str, words: int, seed: int) -> str:
    """Seeded text of a language."""
    rng = random.Random(f"{language}{seed}")
    return " ".join(rng.choices(WORDS[language].split(), k=words))


def make_docs(  # noqa: PLR0917
    language: str, kind: str, count: int, topic: str | None = None, seed: int = 0, words: tuple[int, int] = (5, 60)
) -> list[Doc]:
    """Documents of one stratum with random lengths and scores."""
    rng = random.Random(f"{language}{kind}{topic}{seed}")
    return [
        Doc(f"{language}-{kind}-{topic}-{i:04d}", write_text(language, rng.randint(*words), rng.randrange(2**31)),
            language, kind, topic, rng.uniform(1, 6))
        for i in range(count)
    ]  # fmt: skip


def make_tokenizer(bench: Workbench) -> Json:
    """Reference to `tiny/tokenizer.json`: byte-level BPE of 300 tokens, <s> and </s> first."""
    path = bench.files / "tiny" / "tokenizer.json"
    if not path.exists():
        from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers  # noqa: PLC0415

        tokenizer: Any = Tokenizer(models.BPE())
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=300, special_tokens=["<s>", "</s>"], initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        )  # fmt: skip
        tokenizer.train_from_iterator([write_text(lang, 400, 1) for lang in WORDS], trainer)
        path.parent.mkdir(parents=True, exist_ok=True)
        tokenizer.save(str(path))
    return bench.ref("tiny/tokenizer.json")


CONFIG = {
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": 300, "hidden_size": 16,
    "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 4,
    "max_position_embeddings": 128, "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "hidden_act": "silu",
    "tie_word_embeddings": True, "attention_bias": False, "mlp_bias": False, "bos_token_id": 0, "eos_token_id": 1,
}  # fmt: skip


def make_model(bench: Workbench, seed: int = 0, **config: Any) -> Json:
    """Reference to a Hugging Face folder with a random Llama and the tiny tokenizer."""
    import torch  # noqa: PLC0415

    from cpt_ml.llama import Llama, LlamaConfig  # noqa: PLC0415
    from cpt_ml.train_state import write_model  # noqa: PLC0415

    make_tokenizer(bench)
    folder = bench.files / f"model-{seed}"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps({**CONFIG, **config}))
    (folder / "tokenizer.json").write_bytes((bench.files / "tiny" / "tokenizer.json").read_bytes())
    (folder / "tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<s>", "eos_token": "</s>"})
    )
    model = Llama(LlamaConfig.read(folder))
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in model.parameters():
            if p.ndim == 1:
                p.fill_(1.0)
            else:
                p.normal_(0, 0.2, generator=generator)
    write_model(folder / "model.safetensors", model)
    return bench.ref(f"model-{seed}/")


def make_pool(bench: Workbench, docs: Sequence[Doc], shards: int = 2, scored: bool = True) -> Json:
    """Commits a corpus with tokens, index, topics and scores as docs/data-formats.md says; returns a planner's pool."""
    from tokenizers import Tokenizer  # noqa: PLC0415

    tokenizer: Any = Tokenizer.from_file(str(bench.path(make_tokenizer(bench))))
    job = bench.job("corpus-for-tests", {"docs": [str(d) for d in docs], "shards": shards})
    attempt = job.attempt()
    entries: dict[str, list[Json]] = {k: [] for k in ("corpus", "tokens", "index", "topics", "scores")}
    for s in range(shards):
        part = docs[s * len(docs) // shards : (s + 1) * len(docs) // shards]
        ids = [np.array(tokenizer.encode(d.text, add_special_tokens=False).ids, dtype="<u4") for d in part]
        lengths = np.array([len(x) for x in ids], dtype=np.uint32)
        tables = {
            "corpus": {
                "id": [d.id for d in part], "text": [d.text for d in part], "language": [d.language for d in part],
                "kind": [d.kind for d in part], "use": ["train"] * len(part),
            },
            "index": {
                "offset": pa.array(np.cumsum(lengths, dtype=np.uint64) - lengths, pa.uint64()),
                "num_tokens": lengths, "num_bytes": pa.array([len(d.text.encode()) for d in part], pa.uint32()),
            },
            "topics": {"topic": pa.array([d.topic for d in part], pa.string())},
            "scores": {"nll": pa.array(np.array([d.nll for d in part], dtype=np.float32)), "num_tokens": lengths},
        }  # fmt: skip
        for kind, columns in tables.items():
            pq.write_table(pa.table(columns), attempt.path(f"{kind}-{s}.parquet"), compression="zstd")
            entries[kind].append(attempt.shard(f"{kind}-{s}.parquet", len(part)))
        attempt.path(f"tokens-{s}.u32").write_bytes(np.concatenate([np.zeros(0, dtype="<u4"), *ids]).tobytes())
        entries["tokens"].append(attempt.shard(f"tokens-{s}.u32", len(part)))
    pool: Json = {}
    for kind, shard_list in entries.items():
        manifest = {"format": "cpt-manifest/1", "kind": kind, "shards": shard_list}
        attempt.path(f"{kind}.json").write_text(json.dumps(manifest))
        pool[kind] = attempt.ref(f"{kind}.json")
    job.commit(attempt, {})
    return {**pool, "scores": pool["scores"] if scored else None}


def plan_request(bench: Workbench, pools: list[Json], strata: list[Json], budget: int, **more: Any) -> Json:
    """A sample-mixture request: perplexity order, the whole stage as the band, EOS on."""
    return {
        "pools": pools, "tokenizer": make_tokenizer(bench), "strata": strata, "tokenBudget": budget,
        "sequenceTokens": 16, "order": "perplexity", "curriculumLanguages": None,
        "band": {"fromTokens": 0, "toTokens": budget, "totalTokens": budget}, "previous": None,
        "exhaustion": "repeat", "maxEpochs": 8, "bos": False, "eos": True, "seed": 42, **more,
    }  # fmt: skip


def stratum(language: str, kind: str, ratio: float, topic: str | None = None) -> Json:
    return {"language": language, "kind": kind, "topic": topic, "ratio": ratio}


def make_validation(bench: Workbench, per_language: int = 4) -> Json:
    """Reference to a validation.parquet with both sets."""
    rows = [
        {"id": f"v-{set_}-{lang}-{i}", "text": write_text(lang, 30, 900 + i), "set": set_, "language": lang,
         "kind": "web", "topic": "Others" if set_ == "corpus" else None}
        for set_, lang in (("corpus", "en"), ("corpus", "zh"), ("retention", "en"))
        for i in range(per_language)
    ]  # fmt: skip
    path = bench.files / "validation.parquet"
    columns = ["id", "text", "set", "language", "kind", "topic"]
    pq.write_table(pa.table({n: pa.array([r[n] for r in rows], pa.string()) for n in columns}), path)
    return bench.ref("validation.parquet")


def train_request(bench: Workbench, plan: Json, budget: int, **more: Any) -> Json:
    """A train request over a plan: sequences of 16, global batches of 128 tokens, AdamW with warm-up and decay."""
    start = more.pop("start", None) or {"kind": "model", "model": make_model(bench)}
    schedule = {
        "shape": "warmup-stable-decay", "peakLr": 3e-3, "minLr": 1e-4, "warmupTokens": budget // 8,
        "decayTokens": budget // 4, "totalTokens": budget, "startTokens": 0, **more.pop("schedule", {}),
    }  # fmt: skip
    return {
        "start": start, "plan": plan, "tokenizer": make_tokenizer(bench), "tokenBudget": budget, "sequenceTokens": 16,
        "globalBatchTokens": 128, "schedule": schedule,
        "optimizer": {"beta1": 0.9, "beta2": 0.95, "epsilon": 1e-8, "weightDecay": 0.1, "clipNorm": 1.0},
        "dtype": "float32", "seed": 42,
        "validation": {"sets": make_validation(bench), "windowTokens": 32, "maxTokensPerDoc": 64}, **more,
    }  # fmt: skip


def make_plan(bench: Workbench, budget: int) -> Json:
    """The plan of a small bilingual mixture."""
    docs = [*make_docs("en", "web", 60, "Others"), *make_docs("zh", "web", 40, "Others"), *make_docs("en", "book", 20)]
    strata = [stratum("en", "web", 0.5, "Others"), stratum("zh", "web", 0.3, "Others"), stratum("en", "book", 0.2)]
    return bench.run("sample-mixture", plan_request(bench, [make_pool(bench, docs)], strata, budget))["plan"]


def read_pieces(bench: Workbench, plan: Json) -> pa.Table:
    """The pieces of a plan, in training order."""
    return pq.read_table(plan_folder(bench, plan) / "pieces.parquet")


def plan_folder(bench: Workbench, plan: Json) -> Path:
    return bench.job("read", plan).store.folder(plan)
