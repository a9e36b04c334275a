"""Sources in a bucket: a job reads a verified copy, and says what changed or is missing."""

from __future__ import annotations

from pathlib import Path

import pytest
from conftest import Workbench
from documents import PROSE, doc, json_lines, request, rows
from s3_server import BUCKET, S3Server

from cpt_ml.durable_files import tree_digest
from cpt_ml.errors import StoreCorrupt
from cpt_ml.store import Json, open_backend


@pytest.fixture
def lake(s3: S3Server, workbench: Workbench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workbench:
    monkeypatch.setenv("CPT_CACHE", str(tmp_path / "cache"))
    workbench.roots["lake"] = f"s3://{BUCKET}/{tmp_path.name}"
    return workbench


def put(lake: Workbench, key: str, data: bytes) -> None:
    backend = open_backend(lake.roots["lake"])
    backend.remove(key)
    assert backend.put_if_absent(key, data)


def ref(lake: Workbench, key: str, data: bytes) -> Json:
    return {**lake.put(f"as-file/{key}", data), "uri": f"lake:{key}"}


def ingested(lake: Workbench, file: Json, **more: object) -> list[Json]:
    source = {**request("ingest")["sources"][0], "name": "web", "file": file, **more}
    return rows(lake, lake.run("ingest", {"sources": [source], "maxQuarantineRatio": 0.0})["corpus"])


def test_an_object_is_read_as_a_file_is_and_a_changed_or_missing_one_is_named(lake: Workbench) -> None:
    data = json_lines([doc("a", PROSE)])
    file = ref(lake, "deep/a.jsonl", data)
    with pytest.raises(StoreCorrupt, match=r"lake:deep/a\.jsonl is missing; expected it at s3://"):
        ingested(lake, file)
    put(lake, "deep/a.jsonl", data)
    assert [r["text"] for r in ingested(lake, file)] == [PROSE]
    other = ref(lake, "deep/a.jsonl", json_lines([doc("a", f"{PROSE} More.")]))
    with pytest.raises(StoreCorrupt, match=r"expected [0-9a-f]{64}: it changed since the run began, start a new one"):
        ingested(lake, other)


def test_a_prefix_is_a_folder_of_texts_and_a_wrong_copy_does_not_stay(lake: Workbench) -> None:
    texts = {"one.txt": PROSE.encode(), "more/two.txt": b"Other words, and more of them than nothing."}
    for name, data in texts.items():
        put(lake, f"notes/{name}", data)
    files = [(name, lake.put(f"as-file/{name}", data)["sha256"]) for name, data in texts.items()]
    size = sum(len(data) for data in texts.values())
    folder = {"uri": "lake:notes/", "sha256": tree_digest(sorted(files)), "bytes": size}
    put(lake, "notes/one.txt", b"changed")
    with pytest.raises(StoreCorrupt, match=r"folder lake:notes/ at .* has digest"):
        ingested(lake, folder, format="text", language="en", kind="book")
    put(lake, "notes/one.txt", texts["one.txt"])
    found = ingested(lake, folder, format="text", language="en", kind="book")
    assert sorted(r["id"] for r in found) == ["web:more/two.txt", "web:one.txt"]
