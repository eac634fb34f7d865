"""A GPU day is rehearsed on the stand-in for CUDA: each part finds what it is to find on a GPU."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest
import torch

from tests.warm.process import start
from tools.benchmarks.gpu_day import parts
from tools.benchmarks.gpu_tests import ORDER, TESTS

pytestmark = pytest.mark.skipif(torch.cuda.is_available(), reason="has a GPU")

# The program of "rows at 480p" too, with pipelines that take a minute; "compile again" is "compile".
LEFT_OUT = ("rows at 512", "rows at 1024", "compile again")


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    folder = tmp_path_factory.mktemp("gpu_day")
    names = [part.name for part in parts(device="cuda", small=True) if part.name not in LEFT_OUT]
    process = start(
        "-m", "tools.benchmarks.gpu_day", str(folder), "--stand-in", "--small", "--only", *names,
        stderr=subprocess.PIPE,
    )  # fmt: skip
    _, said = process.communicate()
    report = json.loads((folder / "report.json").read_text())
    assert process.returncode == 0, f"{said}\n{(folder / 'report.md').read_text()}"
    assert [part["part"] for part in report["parts"]] == names
    yield {part["part"]: part["results"] for part in report["parts"]} | {"repeats": report["other process"]}


def test_rows_on_two_gpus_are_compared_with_one(found: dict[str, Any]) -> None:
    results = found["components on two GPUs"]
    assert results and all(result["equal"] == result["rows"] for result in results), results


def test_rows_go_on_beside_another_process_and_are_never_blamed(found: dict[str, Any]) -> None:
    said, *rooms = found["full GPU"]
    assert said["neighbour"].startswith("imitated")
    assert [(room["exact"], room["wrong"], room["blamed"]) for room in rooms] == [
        (2, 0, "nobody"),
        (2, 0, "nobody"),
        (0, 0, "memory: 2"),
    ]


def test_a_device_assert_ends_the_worker_and_another_process_renders_its_rows(found: dict[str, Any]) -> None:
    assert {row["blamed"] for row in found["device assert"] if "row" in row} == {"worker"}
    assert found["device assert"][-1] == {"worker is ended": True, "rows back": 3, "given up": 0}
    assert [repeated["is the same"] for repeated in found["repeats"]] == [True] * 3


def test_every_file_of_tests_has_its_turn() -> None:
    assert {file.stem for file in TESTS.glob("test_*.py")} == {f"test_{name}" for name in ORDER}
