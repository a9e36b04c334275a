"""Wherever a commit or a save is cut off, readers see the state before it or the new one, and a retry ends well."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import store_script
from conftest import s3_place
from crash_points import (
    WORKS,
    AtRequest,
    Broken,
    check,
    crash_on_disk,
    crash_on_s3,
    full_disk,
    prepare,
    record_calls,
    unsynced,
)
from s3_server import Proxy, S3Server

from cpt_ml.checkpoint_chain import CheckpointChain
from cpt_ml.errors import TryAgain


@pytest.fixture(autouse=True)
def strace() -> None:
    if shutil.which("strace") is None:
        pytest.fail("strace is missing: the crash tests run under it; `apt-get install strace` (npm test does)")


@pytest.mark.parametrize("what", WORKS)
def test_killed_at_any_system_call_that_changes_the_disk_nothing_broken_is_seen(tmp_path: Path, what: str) -> None:
    result = crash_on_disk(tmp_path, what)
    assert result["points"] == result["before"] + result["new"]
    assert result["points"] >= 25
    assert result["new"] >= 5


@pytest.mark.parametrize("what", WORKS)
def test_on_a_disk_that_is_full_at_any_call_the_state_before_stays_and_a_retry_ends_well(
    tmp_path: Path, what: str
) -> None:
    result = full_disk(tmp_path, what)
    assert result["points"] == result["before"] + result.get("new", 0)
    assert result["before"] >= 10


def test_a_record_that_comes_before_its_files_is_noticed(tmp_path: Path) -> None:
    with pytest.raises(Broken, match="is missing"):
        crash_on_disk(tmp_path, "commit-record-first")


@pytest.mark.parametrize("what", WORKS)
def test_files_folders_and_record_are_durable_in_an_order_that_survives_a_power_failure(
    tmp_path: Path, what: str
) -> None:
    assert unsynced(record_calls(tmp_path, what), what) == []


def test_a_commit_that_does_not_sync_is_noticed(tmp_path: Path) -> None:
    found = unsynced(record_calls(tmp_path, "commit-unsynced"), "commit")
    assert any(path.endswith("model/weights") for path in found)


@pytest.mark.parametrize("what", WORKS)
def test_killed_before_or_after_any_request_to_s3_nothing_broken_is_seen(
    s3: S3Server, tmp_path: Path, what: str
) -> None:
    result = crash_on_s3(s3, tmp_path / f"{tmp_path.name}-{what}", what)
    assert result["points"] == result["before"] + result["new"]
    # a commit asks for newer claims, puts two files and the record
    assert result["points"] >= 2 * 4
    assert result["new"] >= 1


@pytest.mark.parametrize("what", WORKS)
@pytest.mark.parametrize("verdict", ["drop", "error", "refuse"])
def test_a_lost_answer_of_any_request_to_s3_changes_nothing(
    s3: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str, verdict: str
) -> None:
    n = 0
    while True:
        place = tmp_path / str(n)
        root = prepare(s3_place(s3).root, place, what)
        judge = AtRequest(n, verdict)
        proxy = Proxy(s3.port, judge)
        with monkeypatch.context() as patch:
            patch.setenv("CPT_S3_ENDPOINT", proxy.endpoint)
            job = store_script.job_at(root, place / "job", 1)
            chain = CheckpointChain(job)
            chain.resume()
            store_script.mark(job, "begin")
            if what == "commit":
                assert store_script.commit(job)["attempt"] == "attempt-1"
            else:
                store_script.save(chain, 3)
        proxy.close()
        assert check(root, place, what) == "new"
        if not judge.fired:
            break
        n += 1
    assert n >= 4


def test_a_put_whose_answer_was_lost_is_not_taken_for_anothers_nor_anothers_for_ours(
    s3: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = s3_place(s3)
    direct = place.backend

    def another_is_quicker(line: str) -> str:
        direct.put_if_absent("theirs", b"the same bytes")
        return "drop" if line.startswith("PUT") else "pass"

    for judge, key, won in ((at_put_of("ours"), "ours", True), (another_is_quicker, "theirs", False)):
        proxy = Proxy(s3.port, judge)
        with monkeypatch.context() as patch:
            patch.setenv("CPT_S3_ENDPOINT", proxy.endpoint)
            assert place.backend.put_if_absent(key, b"the same bytes") is won
        proxy.close()
        assert direct.get(key) == b"the same bytes"


def at_put_of(key: str) -> Callable[[str], str]:
    """Loses the answers of the first two puts of a key."""
    seen: list[str] = []

    def judge(line: str) -> str:
        if line.startswith("PUT") and key in line:
            seen.append(line)
            return "drop" if len(seen) <= 2 else "pass"
        return "pass"

    return judge


def refuse_all(_: str) -> str:
    return "refuse"


def test_while_nobody_answers_a_put_is_neither_won_nor_lost(s3: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    place = s3_place(s3)
    monkeypatch.setattr("cpt_ml.s3_store.RETRIES", 1)
    monkeypatch.setattr("cpt_ml.s3_store.PAUSES_SECONDS", (0.0,))
    proxy = Proxy(s3.port, refuse_all)
    monkeypatch.setenv("CPT_S3_ENDPOINT", proxy.endpoint)
    with pytest.raises(TryAgain, match=r"s3://cpt/store-\d+/key: .*503"):
        place.backend.put_if_absent("key", b"x")
    with pytest.raises(TryAgain, match="503"):
        place.backend.list("")
    proxy.close()
    monkeypatch.undo()
    assert place.everything() == []
