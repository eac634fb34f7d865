"""A GPU day goes on after a part that fails, hangs or dies, and its report is whole at any moment."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tools.benchmarks import gpu_day
from tools.benchmarks.gpu_day import Part
from tools.benchmarks.gpu_report import Outcome, repeats, write_report
from tools.benchmarks.results import Tell, tables


def ends(_: Sequence[str], tell: Tell) -> None:
    tell({"case": "a", "digest": "d1", "products": "cpu"})


def fails(_: Sequence[str], tell: Tell) -> None:
    tell({"case": "a", "digest": "d2", "products": "cpu"})
    raise ValueError("no such | kernel")


def dies(_: Sequence[str], tell: Tell) -> None:
    os._exit(9)


def prints() -> None:
    print("| a table |", sys.argv[1])


def hangs(_: Sequence[str], tell: Tell) -> None:
    tell({"case": "before"})
    time.sleep(60)


@pytest.fixture(autouse=True)
def programs(monkeypatch: pytest.MonkeyPatch) -> None:
    for program in (ends, fails, dies, hangs, prints):
        module = SimpleNamespace(**{"main" if program is prints else "run": program})
        monkeypatch.setitem(sys.modules, f"told_{program.__name__}", module)  # type: ignore[arg-type]


def day(folder: Path, monkeypatch: pytest.MonkeyPatch, *programs: Callable[..., Any], minutes: float) -> Any:
    names = [program.__name__ for program in programs]
    found = [Part(name=name, program=f"told_{name}", arguments=["--x"], share=1) for name in names]
    monkeypatch.setattr(gpu_day.signal, "signal", lambda *_: None)  # of this process
    monkeypatch.setattr(gpu_day, "parts", lambda **_: found)
    monkeypatch.setattr(sys, "argv", ["gpu_day", str(folder), "--small", "--minutes", str(minutes)])
    with pytest.raises(SystemExit) as ended:
        gpu_day.main()
    assert (folder / "report.md").exists()
    report = json.loads((folder / "report.json").read_text())
    assert ended.value.code == any(part["state"] != "ended" for part in report["parts"])
    return report


def test_what_fails_is_in_the_report_and_the_next_part_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    report = day(tmp_path, monkeypatch, fails, dies, ends, prints, minutes=9)
    assert [part["state"] for part in report["parts"]] == ["failed", "failed", "ended", "ended"]
    assert 'raise ValueError("no such | kernel")' in report["parts"][0]["error"]
    assert "exit code 9" in report["parts"][1]["error"]
    assert [len(part["results"]) for part in report["parts"]] == [1, 0, 1, 0]
    assert report["parts"][3]["printed"] == "| a table | --x\n"
    assert report["other process"] == [{"case": "a", "products": "cpu", "is the same": False}]
    assert "    ValueError: no such | kernel" in (tmp_path / "report.md").read_text()


def test_a_part_that_takes_too_long_keeps_its_results(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    results = tmp_path / "hangs.jsonl"

    def now() -> float:
        """Return a time that has passed once the part that hangs has told a result."""
        return 40.0 if results.exists() and results.stat().st_size else 0.0

    monkeypatch.setattr(gpu_day, "time", SimpleNamespace(monotonic=now))
    report = day(tmp_path, monkeypatch, hangs, ends, minutes=1)
    assert [part["state"] for part in report["parts"]] == ["out of time", "ended"]
    assert report["parts"][0]["results"] == [{"case": "before"}]


def test_a_report_of_a_part_that_still_runs_is_whole(tmp_path: Path) -> None:
    assert tables([{"a": 1}, {"a": "x|y"}, {"b": 2}]) == (
        "| a |\n| --- |\n| 1 |\n| x\\|y |\n\n| b |\n| --- |\n| 2 |\n"
    )
    runs = Outcome(part="p", program="x", state="runs", seconds=1.0, results=[])
    write_report(tmp_path, [runs])
    assert json.loads((tmp_path / "report.json").read_text())["parts"][0]["state"] == "runs"
    assert "## p: runs after 1.0 s" in (tmp_path / "report.md").read_text()
    assert not repeats([runs])
