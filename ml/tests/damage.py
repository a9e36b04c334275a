"""Seeded damage to a chain of checkpoints on disk: what disks, people and half-done copies do to files."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Chain:
    """The records of a chain, oldest first, and the store that their files lie in."""

    store: Path
    records: list[Path]

    def files(self, record: Path) -> list[Path]:
        return [self.store / f["path"] for f in json.loads(record.read_bytes())["files"]]

    def intact(self, before: dict[Path, bytes]) -> list[Path]:
        """The records that are as they were, with all that they name, oldest first; `before`: all bytes."""

        def same(path: Path) -> bool:
            return path.is_file() and path.read_bytes() == before[path]

        named = {r: [self.store / f["path"] for f in json.loads(before[r])["files"]] for r in self.records}
        return [r for r in self.records if same(r) and all(map(same, named[r]))]

    def snapshot(self) -> dict[Path, bytes]:
        return {p: p.read_bytes() for r in self.records for p in (r, *self.files(r))}


Damage = Callable[[Chain, random.Random], str]


def lengths(size: int) -> list[int]:
    """One length of every class that a file of `size` bytes can be cut to, or grown to: nothing, within a length
    field, at and around powers of two and disk blocks, the last bytes gone, something behind it."""
    near = [n + d for n in (8, 16, 64, 512, 4096, 65536, size // 4, size // 2, size) for d in (-9, -8, -1, 0, 1)]
    return sorted({0, 1, *(n for n in near if 0 <= n <= size + 1)} - {size})


def cut(path: Path, length: int) -> None:
    data = path.read_bytes()
    path.write_bytes((data + b"\0" * length)[:length])


def any_file(chain: Chain, rng: random.Random) -> Path:
    record = rng.choice(chain.records)
    return rng.choice([record, *chain.files(record)])


def flip_bits(chain: Chain, rng: random.Random) -> str:
    path = any_file(chain, rng)
    data = bytearray(path.read_bytes())
    for _ in range(rng.choice([1, 1, 2, 64])):
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    path.write_bytes(data)
    return path.name


def cut_somewhere(chain: Chain, rng: random.Random) -> str:
    path = any_file(chain, rng)
    cut(path, rng.choice(lengths(path.stat().st_size)))
    return path.name


def zero_a_block(chain: Chain, rng: random.Random) -> str:
    """What a disk gives back that lost a write."""
    path = any_file(chain, rng)
    data = bytearray(path.read_bytes())
    at = rng.randrange(len(data))
    data[at : at + 512] = b"\0" * len(data[at : at + 512])
    path.write_bytes(data)
    return path.name


def remove_file(chain: Chain, rng: random.Random) -> str:
    path = any_file(chain, rng)
    path.unlink()
    return path.name


def swap_files(chain: Chain, rng: random.Random) -> str:
    """Files of the same name change places between two checkpoints."""
    one, two = rng.sample(chain.records, 2)
    pairs = [(a, b) for a in chain.files(one) for b in chain.files(two) if a.name == b.name and a != b]
    a, b = rng.choice(pairs)
    held = a.read_bytes()
    a.write_bytes(b.read_bytes())
    b.write_bytes(held)
    return a.name


def mix_shards(chain: Chain, rng: random.Random) -> str:
    """Some files of one checkpoint are those of another."""
    one, two = rng.sample(chain.records, 2)
    pairs = [(a, b) for a in chain.files(one) for b in chain.files(two) if a.name == b.name and a != b]
    for a, b in rng.sample(pairs, rng.randint(1, len(pairs))):
        shutil.copyfile(b, a)
    return one.name


def a_folder_in_its_place(chain: Chain, rng: random.Random) -> str:
    path = rng.choice(chain.files(rng.choice(chain.records)))
    path.unlink()
    path.mkdir()
    return path.name


def edit_record(chain: Chain, rng: random.Random) -> str:
    """Another value somewhere in a record, its JSON still good."""
    path = rng.choice(chain.records)
    record = json.loads(path.read_bytes())
    places: list[tuple[Any, Any]] = []

    def walk(value: Any) -> None:
        for key in value if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else []:
            places.append((value, key))
            walk(value[key])

    walk(record)
    inside, key = rng.choice(places)
    old = inside[key]
    inside[key] = old + 1 if isinstance(old, int | float) else f"{old}x" if isinstance(old, str) else "x"
    path.write_text(json.dumps(record))
    return path.name


def drop_from_record(chain: Chain, rng: random.Random) -> str:
    path = rng.choice(chain.records)
    record = json.loads(path.read_bytes())
    record["files"].pop(rng.randrange(len(record["files"])))
    path.write_text(json.dumps(record))
    return path.name


def add_to_record(chain: Chain, rng: random.Random) -> str:
    path = rng.choice(chain.records)
    record = json.loads(path.read_bytes())
    record["files"].append({**rng.choice(record["files"]), "name": "extra.safetensors"})
    path.write_text(json.dumps(record))
    return path.name


def rename_record(chain: Chain, rng: random.Random) -> str:
    """A whole record under the name of one that would be newer."""
    path = rng.choice(chain.records)
    newer = path.with_name(f"{rng.randint(0, 2):03d}-{rng.randint(500, 999):06d}.json")
    shutil.copyfile(path, newer)
    return newer.name


def record_of_nothing(chain: Chain, rng: random.Random) -> str:
    path = chain.records[-1].with_name("002-000999.json")
    path.write_bytes(rng.choice([b"", b"{", b"[]", b"null", b'{"state": {}}', b"\xff\xfe", rng.randbytes(300)]))
    return path.name


DAMAGES: list[Damage] = [
    flip_bits, cut_somewhere, zero_a_block, remove_file, swap_files, mix_shards, a_folder_in_its_place, edit_record,
    drop_from_record, add_to_record, rename_record, record_of_nothing,
]  # fmt: skip
