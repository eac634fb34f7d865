"""Every command that reads an output refuses a place that is none, and writes nothing there."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.commands import command
from tests.jobs import write_job

COMMANDS = [
    ["gallery"],
    ["gallery", "--previews"],
    ["sheet"],
    ["report"],
    ["status"],
    ["failures"],
    ["verify"],
    ["verify", "--files"],
    ["repair"],
    ["repair", "--dry-run"],
    ["retry"],
    ["score", "--scores", "motion"],
    ["export", "exported", "--format", "webdataset"],
    ["pack"],
    ["replay", "0123"],
    ["render"],
    ["plan"],
]


@pytest.mark.parametrize("arguments", COMMANDS, ids=" ".join)
def test_a_folder_of_something_else_is_refused_and_stays_as_it_is(
    arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures" / "cat.png").write_bytes(b"a cat")
    name, *options = arguments
    for place in ("pictures", "nowhere"):
        ended = command(name, place, *options)
        assert ended.exit_code == 2, ended.output
        assert "has no records" not in ended.output
    assert sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*")) == [
        "pictures",
        "pictures/cat.png",
    ]


@pytest.mark.parametrize(
    "arguments", [["repair"], ["repair", "--dry-run"], ["judge"], ["prompts"]], ids=" ".join
)
def test_a_job_that_has_not_run_has_no_output_afterwards_either(arguments: list[str], tmp_path: Path) -> None:
    job = write_job(tmp_path / "job.yaml", {"table": "t.csv", "output": "out", "model": "m"})
    name, *options = arguments
    ended = command(name, job, *options)
    assert ended.exit_code == 2, ended.output
    assert [path.name for path in tmp_path.iterdir()] == ["job.yaml"]
