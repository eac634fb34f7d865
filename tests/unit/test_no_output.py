"""Every command that reads an output refuses a place that is none, and writes nothing there."""

from __future__ import annotations

import inspect
from pathlib import Path

import pytest

import framefleet
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
        ended = command(name, place, *options, exits=2)
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
    command(name, job, *options, exits=2)
    assert [path.name for path in tmp_path.iterdir()] == ["job.yaml"]


# What functions of an output need besides it.
MORE = {"export": {"to": "to", "format": "hf"}, "grid": {"to": "to.mp4"}, "sheet": {"to": "to.png"}}
MORE |= {"replay": {"row_id": "0123"}, "replay_script": {"row_id": "0123"}, "score": {"scores": ["motion"]}}


def test_functions_take_the_place_of_an_output_as_a_path(tmp_path: Path) -> None:
    functions = {name: getattr(framefleet, name) for name in framefleet.__all__}
    named = [name for name, one in functions.items() if inspect.isfunction(one)]
    of_outputs = [
        name for name in named if [*inspect.signature(functions[name]).parameters][:1] == ["output"]
    ]
    of_outputs.remove("logs")  # of a submission, by a job server
    assert len(of_outputs) > 15
    for name in of_outputs:
        with pytest.raises(framefleet.JobError, match=r"nowhere does not exist|no job"):
            result = functions[name](tmp_path / "nowhere", **MORE.get(name, {}))
            list(result) if inspect.isgenerator(result) else None
