"""What holds for the store, on a disk and on a real S3 server alike."""

from __future__ import annotations

import hashlib
import json
import secrets
from pathlib import Path

import pytest
from conftest import Place, Workbench, fingerprint
from put_race import race

from cpt_ml.checkpoint_chain import CheckpointChain, files_to_verify
from cpt_ml.durable_files import link_or_copy, sha256_file
from cpt_ml.errors import BadRequest, StoreCorrupt, Superseded
from cpt_ml.in_threads import in_threads
from cpt_ml.job import Job
from cpt_ml.part_names import part_name
from cpt_ml.store import Attempt, Json, commit_key
from cpt_ml.world import World

REQUEST = {"work": 1}
FINGERPRINT = fingerprint("work", REQUEST)
CLAIM = f"claims/{FINGERPRINT[:2]}/{FINGERPRINT}/0/"


@pytest.fixture
def bench(place: Place, tmp_path: Path) -> Workbench:
    return Workbench(tmp_path, place.root)


def attempt_at(bench: Workbench, number: int) -> Job:
    job = bench.job("work", REQUEST)
    job.spec["attempt"] = number
    return job


def written(job: Job, content: bytes = b"rows") -> Attempt:
    attempt = job.attempt()
    attempt.path("rows.json").write_bytes(content)
    attempt.path("model/weights").write_bytes(content * 2)
    attempt.path("model/deep/config").write_bytes(b"")
    return attempt


# --- keys ---


def test_a_key_is_put_once_and_the_second_put_changes_nothing(place: Place) -> None:
    backend = place.backend
    assert backend.put_if_absent("claims/aa/1.json", b"first")
    assert not backend.put_if_absent("claims/aa/1.json", b"second")
    assert backend.get("claims/aa/1.json") == b"first"
    assert place.everything() == ["claims/aa/1.json"]


def test_eight_processes_race_and_each_round_has_one_winner_whose_bytes_all_read(place: Place) -> None:
    rounds = 120
    result = race(place.root, 8, rounds)
    # one process that always wins would mean that nothing was raced
    assert result.pop("winners") > 1
    assert result == {"rounds": rounds, "oneWinner": rounds, "allReadIt": rounds}
    assert len(place.everything()) == rounds


def test_keys_are_listed_by_prefix_sorted_and_across_folders(place: Place) -> None:
    backend = place.backend
    keys = ["c/ab/x/000-000002.json", "c/ab/x/000-000010.json", "c/ab/x/000-000001.json", "c/cd/y/1", "d/1"]
    for key in keys:
        backend.put_if_absent(key, key.encode())
    assert backend.list("c/ab/") == sorted(keys[:3])
    assert backend.list("c/ab/x/000-00001") == ["c/ab/x/000-000010.json"]
    assert backend.list("nothing/") == []
    assert backend.list("") == sorted(keys)


def test_what_is_not_there_reads_as_nothing_and_may_be_removed(place: Place) -> None:
    backend = place.backend
    assert backend.get("a/b") is None
    assert not backend.exists("a/b")
    backend.remove("a/b")
    assert backend.fetch("a/b", "0" * 64)[1] == ""


def test_a_removed_key_may_be_put_again(place: Place) -> None:
    backend = place.backend
    for content in (b"", bytes(range(256))):
        assert backend.put_if_absent("k", content)
        assert backend.exists("k")
        assert backend.get("k") == content
        backend.remove("k")
    assert place.everything() == []


@pytest.mark.parametrize("key", ["../outside", "a/../../outside", "/etc/hostname"])
def test_a_key_that_leaves_the_store_is_refused_as_a_file_of_a_record(place: Place, key: str) -> None:
    with pytest.raises(BadRequest, match="leaves the store"):
        place.backend.fetch(key, "0" * 64)


# --- commits ---


def test_a_commit_makes_files_readable_and_nothing_does_before_it(bench: Workbench, place: Place) -> None:
    job = attempt_at(bench, 1)
    attempt = written(job)
    ref, folder = attempt.ref("rows.json"), attempt.folder_ref("model/")
    with pytest.raises(BadRequest, match="no commit record"):
        job.store.file(ref)
    job.commit(attempt, {"rows": 4})
    place.forget_cache()
    assert job.store.file(ref).read_bytes() == b"rows"
    model = job.store.folder(folder)
    assert sorted(p.relative_to(model).as_posix() for p in model.rglob("*")) == ["deep", "deep/config", "weights"]
    assert (model / "weights").read_bytes() == b"rowsrows"


@pytest.mark.parametrize("threads", [1, 4])
def test_a_file_is_read_for_its_digest_once_by_all_its_names(
    bench: Workbench, monkeypatch: pytest.MonkeyPatch, threads: int
) -> None:
    job, read, told = attempt_at(bench, 1), list[str](), list[tuple[int, int]]()
    job.store.threads = threads
    digest = sha256_file

    def spied(path: Path) -> str:
        read.append(path.name)
        return digest(path)

    def tell(done: int, total: int) -> None:
        told.append((done, total))

    monkeypatch.setattr("cpt_ml.store.sha256_file", spied)
    attempt = written(job)
    attempt.tell = tell
    link_or_copy(attempt.path("model/weights"), attempt.path("again/weights"))
    attempt.path("given").write_bytes(b"given")
    attempt.know(attempt.folder, {"given": digest(attempt.path("given"))})
    folders = [attempt.folder_ref(f"{name}/") for name in ("model", "again")]
    record = job.commit(attempt, {"rows": attempt.ref("rows.json")})
    assert sorted(read) == ["config", "rows.json", "weights"]
    names = ["again/weights", "given", "model/deep/config", "model/weights", "rows.json"]
    assert {f["name"]: f["sha256"] for f in record["files"]} == {n: digest(attempt.path(n)) for n in names}
    assert [job.store.folder(f).name for f in folders] == ["model", "again"]
    assert told[:2] == [(1, 2), (2, 2)]
    assert told[-5:] == [(n, 5) for n in range(1, 6)]
    attempt.path("rows.json").write_bytes(b"other rows")
    assert attempt.ref("rows.json")["sha256"] == digest(attempt.path("rows.json"))


def test_work_in_threads_is_told_in_order_and_stops_at_the_first_failure() -> None:
    begun = list[int]()

    def work(n: int) -> int:
        begun.append(n)
        if n == 3:
            raise BadRequest("the third")
        hashlib.sha256(bytes(1 << 22))
        return n * n

    for threads in (1, 3):
        assert in_threads(work, [1, 2, 4, 5], threads) == [1, 4, 16, 25]
        begun.clear()
        with pytest.raises(BadRequest, match="the third"):
            in_threads(work, [3, *range(4, 1000)], threads)
        assert len(begun) < 996


def test_the_loser_of_a_commit_reads_the_winners_record_and_both_kept_to_their_own_files(
    bench: Workbench, place: Place
) -> None:
    first, second = attempt_at(bench, 1), attempt_at(bench, 1)
    a, b = written(first, b"one"), written(second, b"two")
    won = first.commit(a, {"n": 1})
    assert second.commit(b, {"n": 2}) == won == second.store.record(FINGERPRINT)
    assert {f["path"] for f in won["files"]} <= set(place.everything())
    assert all(f["path"].startswith(a.prefix) for f in won["files"])
    assert any(k.startswith(b.prefix) for k in place.everything())
    assert a.prefix != b.prefix


def test_a_record_says_the_same_on_disk_and_on_s3(bench: Workbench) -> None:
    record = attempt_at(bench, 1).commit(written(attempt_at(bench, 1)), {"n": 1})
    prefix = f"data/{FINGERPRINT[:2]}/{FINGERPRINT}/attempt-0002/"
    assert [(f["name"], f["path"], f["bytes"]) for f in record["files"]] == [
        ("model/deep/config", f"{prefix}model/deep/config", 0),
        ("model/weights", f"{prefix}model/weights", 8),
        ("rows.json", f"{prefix}rows.json", 4),
    ]
    assert list(record) == ["format", "fingerprint", "stage", "version", "request", "files", "result", "parents",
                            "attempt", "wallSeconds", "committedAt"]  # fmt: skip


def test_a_file_larger_than_a_part_arrives_whole(bench: Workbench, place: Place) -> None:
    job = attempt_at(bench, 1)
    attempt, content = job.attempt(), secrets.token_bytes(33 << 20)
    attempt.path("large").write_bytes(content)
    ref = attempt.ref("large")
    job.commit(attempt, {})
    place.forget_cache()
    assert job.store.file(ref).read_bytes() == content


@pytest.mark.parametrize("damaged", [b"rowz", b"row", None])
def test_damage_to_a_committed_file_is_detected_by_its_digest_and_the_message_names_it(
    bench: Workbench, place: Place, damaged: bytes | None
) -> None:
    job = attempt_at(bench, 1)
    attempt = written(job)
    refs = attempt.ref("rows.json"), attempt.folder_ref("model/"), attempt.shard("rows.json", 1)
    entry = job.commit(attempt, {})["files"]
    for f in entry:
        if f["name"] != "model/deep/config":
            place.damage(f["path"], damaged)
    said = "is missing" if damaged is None else "has sha256"
    with pytest.raises(StoreCorrupt, match=rf"rows\.json.* {said}"):
        job.store.file(refs[0])
    with pytest.raises(StoreCorrupt, match=r"weights at .* is missing or damaged"):
        job.store.folder(refs[1])
    with pytest.raises(StoreCorrupt, match=said):
        job.store.shard(refs[2])
    with pytest.raises(StoreCorrupt, match=said):
        job.store.entry(entry[-1])


def test_a_damaged_record_is_named(bench: Workbench, place: Place) -> None:
    job = attempt_at(bench, 1)
    job.commit(written(job), {})
    place.damage(commit_key(FINGERPRINT), b'{"format": "cpt-co')
    with pytest.raises(StoreCorrupt, match=rf"{FINGERPRINT}\.json is not a commit record"):
        job.store.record(FINGERPRINT)


def test_a_number_that_json_cannot_carry_is_not_committed(bench: Workbench) -> None:
    job = attempt_at(bench, 1)
    with pytest.raises(ValueError, match="not JSON compliant"):
        job.commit(written(job), {"loss": float("nan")})
    assert not job.store.backend.exists(commit_key(FINGERPRINT))


# --- the fence ---


def test_a_stale_attempt_publishes_neither_result_nor_checkpoint(bench: Workbench, place: Place) -> None:
    job = attempt_at(bench, 1)
    chain = CheckpointChain(job)
    save(chain, 1)
    place.backend.put_if_absent(f"{CLAIM}2.json", b"{}")
    with pytest.raises(Superseded, match="attempt 2 exists, this one is 1"):
        job.commit(written(job), {})
    with pytest.raises(Superseded, match="attempt 2 exists, this one is 1"):
        save(chain, 2)
    assert [Path(k).stem for k in records(place)] == ["000-000001"]
    assert not place.backend.exists(commit_key(FINGERPRINT))
    newer = attempt_at(bench, 2)
    assert newer.commit(written(newer), {"n": 2})["result"] == {"n": 2}


def test_a_newer_claim_between_fence_and_put_leaves_one_record_that_both_attempts_hold(
    bench: Workbench, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    stale, newer = attempt_at(bench, 1), attempt_at(bench, 2)
    fence = stale.fence

    def claimed_right_after() -> None:
        fence()
        place.backend.put_if_absent(f"{CLAIM}2.json", b"{}")

    monkeypatch.setattr(stale, "fence", claimed_right_after)
    record = stale.commit(written(stale), {"n": 1})
    assert newer.commit(written(newer), {"n": 1}) == record
    assert {f["path"] for f in record["files"]} <= set(place.everything())


def test_a_checkpoint_that_a_stale_attempt_got_through_is_taken_up_by_the_next(
    bench: Workbench, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    stale, newer = attempt_at(bench, 1), attempt_at(bench, 2)
    late, now = CheckpointChain(stale), CheckpointChain(newer)
    save(late, 1)
    assert now.resume() is not None
    save(late, 2)
    with pytest.raises(Superseded, match="000-000002 exists already"):
        save(now, 2)
    third = CheckpointChain(attempt_at(bench, 3))
    found = third.resume()
    assert found is not None
    assert found.tokens == 2
    assert_whole(place)


# --- checkpoints ---


def save(chain: CheckpointChain, tokens: int, carry: list[Json] | None = None) -> None:
    def write(attempt: Attempt, prefix: str) -> list[str]:
        attempt.path(f"{prefix}weights").write_bytes(f"weights {tokens}".encode())
        attempt.path(f"{prefix}curve-{tokens}").write_bytes(f"loss {tokens}".encode())
        return [f"{prefix}weights", f"{prefix}curve-{tokens}"]

    chain.save(tokens, tokens, {"carry": carry or []}, write)


def records(place: Place) -> list[str]:
    return place.backend.list(f"checkpoints/{FINGERPRINT[:2]}/{FINGERPRINT}/")


def assert_whole(place: Place) -> None:
    """Every checkpoint that can be seen has all its files, and nothing else of a checkpoint is left."""
    named: set[str] = set()
    for key in records(place):
        for f in json.loads(place.backend.get(key) or b"")["files"]:
            assert place.backend.fetch(f["path"], f["sha256"])[1] == f["sha256"]
            named.add(f["path"])
    assert {k for k in place.everything() if "-checkpoints/" in k} == named


def test_checkpoints_form_a_chain_of_which_two_are_kept(bench: Workbench, place: Place) -> None:
    chain = CheckpointChain(attempt_at(bench, 1))
    assert chain.resume() is None
    for n in range(1, 5):
        save(chain, n)
    assert [Path(k).stem for k in records(place)] == ["000-000003", "000-000004"]
    assert_whole(place)
    place.forget_cache()
    resumed = CheckpointChain(attempt_at(bench, 2))
    tip = resumed.resume()
    assert tip is not None
    assert tip.tokens == 4
    assert tip.paths["weights"].read_bytes() == b"weights 4"
    save(resumed, 5)
    assert [Path(k).stem for k in records(place)] == ["000-000004", "000-000005"]
    assert json.loads(place.backend.get(records(place)[1]) or b"")["parent"] == tip.sha256


def test_carried_files_outlive_the_checkpoint_that_wrote_them(bench: Workbench, place: Place) -> None:
    chain, carried = CheckpointChain(attempt_at(bench, 1)), []
    for n in range(1, 5):
        save(chain, n, carried)
        assert chain.tip
        carried = [f for f in chain.tip.record["files"] if f["name"].startswith("curve")]
    assert [f["name"] for f in carried] == ["curve-1", "curve-2", "curve-3", "curve-4"]
    place.forget_cache()
    resumed = CheckpointChain(attempt_at(bench, 2))
    assert resumed.resume() is not None
    assert [resumed.job.store.entry(f).read_bytes() for f in carried] == [b"loss 1", b"loss 2", b"loss 3", b"loss 4"]
    assert_whole(place)


@pytest.mark.parametrize("damaged", ["weights", "weights is gone", "record"])
def test_a_damaged_tip_costs_one_checkpoint_and_the_chain_goes_on_under_the_next_branch(
    bench: Workbench, place: Place, damaged: str, capfd: pytest.CaptureFixture[str]
) -> None:
    chain = CheckpointChain(attempt_at(bench, 1))
    for n in range(1, 4):
        save(chain, n)
    tip = records(place)[-1]
    files = json.loads(place.backend.get(tip) or b"")["files"]
    target = tip if damaged == "record" else next(f["path"] for f in files if f["name"] == "weights")
    place.damage(target, None if damaged.endswith("gone") else b'{"x": 1}')
    resumed = CheckpointChain(attempt_at(bench, 2))
    found = resumed.resume()
    assert found is not None
    assert found.tokens == 2
    assert Path(target).name in capfd.readouterr().err
    save(resumed, 3)
    assert [Path(k).stem for k in records(place)] == ["000-000002", "001-000003"]
    assert_whole(place)


def test_the_debris_of_an_unfinished_save_goes_and_other_work_stays(bench: Workbench, place: Place) -> None:
    chain = CheckpointChain(attempt_at(bench, 1))
    save(chain, 1)
    data = f"data/{FINGERPRINT[:2]}/{FINGERPRINT}/"
    backend = place.backend
    for key in (f"{data}gone-checkpoints/000-000002/weights", f"{data}gone/rows.json",
                f"data/{FINGERPRINT[:2]}/{'0' * 64}/x-checkpoints/000-000001/weights"):  # fmt: skip
        backend.put_if_absent(key, b"half a")
    CheckpointChain(attempt_at(bench, 2)).resume()
    left = [k for k in place.everything() if k.endswith(("weights", "rows.json"))]
    assert left == [f"data/{FINGERPRINT[:2]}/{'0' * 64}/x-checkpoints/000-000001/weights",
                    f"{data}attempt-0001-checkpoints/000-000001/weights", f"{data}gone/rows.json"]  # fmt: skip


def test_a_save_that_fails_takes_its_own_files_away_and_leaves_the_checkpoint_before_it(
    bench: Workbench, place: Place
) -> None:
    chain = CheckpointChain(attempt_at(bench, 1))
    save(chain, 1)

    def write_half(attempt: Attempt, prefix: str) -> list[str]:
        attempt.path(f"{prefix}weights").write_bytes(b"half")
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        chain.save(2, 2, {"carry": []}, write_half)
    assert [Path(k).stem for k in records(place)] == ["000-000001"]
    assert_whole(place)
    assert not list(chain.attempt.folder.rglob("000-000002/*"))
    save(chain, 2)
    assert [Path(k).stem for k in records(place)] == ["000-000001", "000-000002"]


def test_processes_share_the_verifying_of_a_checkpoint_and_each_machine_has_verified_what_it_loads() -> None:
    def files_of(parts: int) -> list[Json]:
        names = [
            part_name(stem, n, parts) for stem in ("model.safetensors", "optimizer.safetensors") for n in range(parts)
        ]
        return [{"name": n} for n in [*names, "curve-00000010.jsonl"]]

    def shares(parts: int, one_disk: bool, replicas: int = 1) -> list[set[str]]:
        """What each of 4 processes, two on each of two machines, verifies."""
        worlds = [World(rank, 4, rank % 2, 2, replicas) for rank in range(4)]
        return [{f["name"] for f in files_to_verify(files_of(parts), w, one_disk)} for w in worlds]

    def names_of(n: int, parts: int) -> set[str]:
        return {part_name(f"{stem}.safetensors", n, parts) for stem in ("model", "optimizer")}

    curve = {"curve-00000010.jsonl"}
    assert shares(4, True) == [names_of(n, 4) | (curve if n % 2 == 0 else set[str]()) for n in range(4)]
    assert shares(2, True, replicas=2) == [names_of(n % 2, 2) | (curve if n % 2 == 0 else set[str]()) for n in range(4)]
    # on an object store, or from another number of processes, each machine fetches and verifies all of it
    for parts, one_disk in ((4, False), (2, True), (1, True)):
        of = shares(parts, one_disk)
        assert of[0] | of[1] == of[2] | of[3] == {f["name"] for f in files_of(parts)}
        assert of[0] & of[1] == set()


def test_a_second_name_of_a_file_costs_no_bytes_or_is_a_copy_where_the_disk_cannot_link(tmp_path: Path) -> None:
    (tmp_path / "one").write_bytes(b"weights")
    link_or_copy(tmp_path / "one", tmp_path / "two")
    assert (tmp_path / "two").samefile(tmp_path / "one")
    link_or_copy(Path("/proc/version"), tmp_path / "two")  # another disk
    assert (tmp_path / "two").read_bytes() == Path("/proc/version").read_bytes()
    assert (tmp_path / "one").read_bytes() == b"weights"
