"""What moves a digest of code and what does not; test/code-lock holds the lock itself."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from cpt_ml.code_digests import INFRASTRUCTURE, UnknownLibrary, code_digests, module_digest

LOCK = '[[package]]\nname = "numpy"\nversion = "2.4.6"\n\n[[package]]\nname = "my-lib"\nversion = "1.0"\n'


def digest(text: str) -> str:
    return module_digest(ast.parse(text))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("x = 1  # one", "x  =  1"),
        ('"""One."""\nx = 1', "x = 1"),
        ("def f(a, b):\n    return a", 'def f(\n    a,\n    b,\n):\n    """Words."""\n    return a'),
        ("class A:\n    '''Words.'''\n    x = 1", "class A:\n    x = 1"),
        ("import os\nimport re\nx = 1", "import re\nimport os\nx = 1"),
        ("from a import b, c", "from a import (\n    c,\n    b,\n)"),
        ("x = 'a'", 'x = "a"'),
        ("x = 1_000", "x = 1000"),
    ],
)
def test_writing_the_same_otherwise_is_the_same(one: str, other: str) -> None:
    assert digest(one) == digest(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("x = 1", "x = 2"),
        ("x = 1", "x = 1.0"),
        ("x = 1", "x = True"),
        ("x = 'a'", "x = b'a'"),
        ("def f(a: int): ...", "def f(a: float): ..."),
        ("def f(a, b=1): ...", "def f(a, *, b=1): ..."),
        ("def f():\n    return None", "def f():\n    return"),
        ("import os\nx = 1\nimport re", "import re\nx = 1\nimport os"),
        ("from a import b", "from a import b as c"),
        ("f(1)\ng(2)", "g(2)\nf(1)"),
    ],
)
def test_another_meaning_is_another_digest(one: str, other: str) -> None:
    assert digest(one) != digest(other)


def package(folder: Path, **modules: str) -> tuple[Path, Path]:
    (folder / "cpt_ml").mkdir(exist_ok=True)
    for name, text in modules.items():
        (folder / "cpt_ml" / f"{name}.py").write_text(text)
    (folder / "uv.lock").write_text(LOCK)
    return folder / "cpt_ml", folder / "uv.lock"


STAGE = "def run(job):\n    from cpt_ml.helper import f\n"


@pytest.mark.parametrize(
    "how",
    [
        "from cpt_ml.helper import f",
        "from cpt_ml import helper",
        "import cpt_ml.helper as h",
        "from .helper import f",
        "from . import helper",
        "import importlib\nimportlib.import_module('cpt_ml.helper')",
    ],
)
def test_a_module_is_reached_however_it_is_imported(tmp_path: Path, how: str) -> None:
    found = code_digests(
        *package(tmp_path, a_stage=f"def run(job):\n    pass\n{how}\n", helper="import numpy.linalg\n")
    )
    assert set(found) == {"a-stage"}
    assert set(found["a-stage"]["parts"]) == {"cpt_ml.a_stage", "cpt_ml.helper", "numpy"}


def test_what_the_infrastructure_imports_does_not_count(tmp_path: Path) -> None:
    found = code_digests(
        *package(tmp_path, a_stage="from cpt_ml.store import x\ndef run(job): ...\n", store="import numpy\n")
    )
    assert set(found["a-stage"]["parts"]) == {"cpt_ml.a_stage"}


def test_names_are_compared_as_packages_are_named(tmp_path: Path) -> None:
    found = code_digests(*package(tmp_path, a_stage=f"{STAGE}    import My_Lib.sub\n", helper=""))
    assert found["a-stage"]["parts"]["my-lib"] == "1.0"


def test_an_unpinned_library_is_an_error_with_the_module_and_the_cure(tmp_path: Path) -> None:
    with pytest.raises(UnknownLibrary, match=r"cpt_ml\.helper imports leftpad, and uv\.lock pins no leftpad"):
        code_digests(*package(tmp_path, a_stage=STAGE, helper="import leftpad\n"))


def test_everything_that_is_left_out_is_there_and_has_a_reason() -> None:
    there = {p.stem for p in Path(__file__).parents[1].glob("cpt_ml/*.py")}
    assert set(INFRASTRUCTURE) - there == set()
    assert all(INFRASTRUCTURE.values())
