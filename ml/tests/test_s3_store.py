"""What is particular to a store in S3: its settings, its cache, and that nobody else needs its client."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import Workbench, s3_place
from s3_server import S3Server

from cpt_ml import job as jobs
from cpt_ml.errors import BadRequest, TryAgain
from cpt_ml.store import Store, open_backend

ML = Path(__file__).parent.parent


def test_a_job_on_a_disk_does_not_need_the_client(tmp_path: Path) -> None:
    code = (
        "import sys; sys.modules['obstore'] = None\n"
        "import cpt_ml.warm, cpt_ml.checkpoint_chain\n"
        "from cpt_ml.store import open_backend\n"
        f"assert open_backend({str(tmp_path)!r}).put_if_absent('k', b'x')\n"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=ML, check=False).returncode == 0
    assert (tmp_path / "k").read_bytes() == b"x"


def test_where_the_client_is_missing_the_message_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "obstore.store", None)
    with pytest.raises(BadRequest, match="needs the Python package obstore; install it"):
        open_backend("s3://cpt/x")


@pytest.mark.parametrize("url", ["s3://", "https://elsewhere/bucket", "s3://bucket/x?versionId=1"])
def test_a_url_that_is_no_store_is_refused(url: str) -> None:
    with pytest.raises(BadRequest, match="expected a folder or s3://bucket/prefix"):
        open_backend(url)


def test_a_bucket_that_does_not_exist_is_named_and_not_tried_again(s3: S3Server) -> None:
    backend = open_backend("s3://no-such-bucket/x")
    for ask in (lambda: backend.get("k"), lambda: backend.put_if_absent("k", b""), lambda: backend.list("")):
        with pytest.raises(BadRequest, match="the bucket no-such-bucket does not exist; create it"):
            ask()


def test_keys_that_are_not_accepted_are_trouble_that_names_the_object_and_no_secret(
    s3: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hunter2-is-wrong")
    with pytest.raises(TryAgain, match=r"s3://cpt/p/k: .*403 Forbidden") as caught:
        open_backend("s3://cpt/p").put_if_absent("k", b"")
    assert "hunter2" not in str(caught.value)


def test_a_store_that_cannot_be_opened_ends_the_job_with_a_reason(s3: S3Server, tmp_path: Path) -> None:
    bench = Workbench(tmp_path, "s3://no-such-bucket/x")
    request = {"backend": "template", "numDocs": 2, "languages": ["en"], "families": ["units"], "wrongAnswerShare": 0,
               "seed": 1}  # fmt: skip
    job = bench.job("synthesize-qa", request)
    path = job.folder / "request.json"
    path.write_text(json.dumps(job.spec))
    arguments = ["synthesize-qa", "--request", str(path), "--result", str(job.folder / "result.json")]
    ended = subprocess.run([sys.executable, "-m", "cpt_ml", *arguments], cwd=ML, capture_output=True, check=False)
    end = json.loads((job.folder / "end.json").read_bytes())
    assert (ended.returncode, end["type"]) == (jobs.BadRequest.exit_code, "BadRequest")
    assert "no-such-bucket" in end["message"]


def test_a_download_is_kept_and_a_damaged_copy_is_fetched_again(s3: S3Server, tmp_path: Path) -> None:
    place = s3_place(s3)
    job = Workbench(tmp_path, place.root).job("work", {})
    attempt = job.attempt()
    attempt.path("rows").write_bytes(b"rows")
    ref = attempt.ref("rows")
    job.commit(attempt, {})
    place.forget_cache()
    store = Store({"store": place.root})
    path = store.file(ref)
    kept = path.stat().st_ino
    assert store.file(ref).stat().st_ino == kept
    path.write_bytes(b"rowz")
    assert store.file(ref).read_bytes() == b"rows"
    assert [p.name for p in path.parent.iterdir()] == ["rows"]


def test_a_server_that_was_killed_and_started_again_still_has_the_commit(s3: S3Server, tmp_path: Path) -> None:
    place = s3_place(s3)
    job = Workbench(tmp_path, place.root).job("work", {})
    attempt = job.attempt()
    attempt.path("rows").write_bytes(b"rows")
    record = job.commit(attempt, {"n": 1})
    s3.kill()
    s3.start()
    place.forget_cache()
    assert Store({"store": place.root}).record(job.fingerprint) == record
    assert job.store.entry(record["files"][0]).read_bytes() == b"rows"
