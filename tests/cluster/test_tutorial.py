"""The tutorial, the skill for agents and the README's Python, typed and run as they stand there."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.jobs import ROOT, job_values, prompt_rows, records_of, write_job, write_table
from tests.tiny import tiny
from tests.warm.process import shell_environment

PAGE = (ROOT / "docs/tutorial.md").read_text("utf-8")
COMMANDS = re.findall(r"^    ((?:framefleet|python) .*)$", PAGE, re.M)
JOB = ROOT / "examples/tutorial.yaml"


def test_the_job_that_it_prints_is_the_example() -> None:
    (block,) = re.findall(r"(?:^    .*\n)+", PAGE[PAGE.index("    output: ") :], re.M)[:1]
    assert yaml.safe_load(re.sub(r"^    ", "", block, flags=re.M)) == yaml.safe_load(JOB.read_text("utf-8"))


def tutorial(folder: Path, seeds: str) -> str:
    """Run every command in a copy of examples/; return what they printed."""
    shutil.copytree(JOB.parent, folder / "examples")
    (folder / "plugins").symlink_to(ROOT / "plugins")
    job = folder / "examples/tutorial.yaml"
    job.write_text(job.read_text("utf-8").replace("seed: 0-19", f"seed: {seeds}"), encoding="utf-8")
    script = ["set -euo pipefail", f"cd {shlex.quote(str(folder))}"]
    for command in COMMANDS:
        row_id = '"$(head -1 picks.jsonl | cut -d\\" -f4)"'
        script.append(command.replace("ROW_ID", row_id))
    ended = subprocess.run(
        ["bash", "-c", "\n".join(script)],
        cwd=ROOT,
        env=shell_environment(folder),
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "warning" not in ended.stderr
    return ended.stdout


@pytest.mark.parametrize("seeds", ["0-0", pytest.param("0-19", marks=pytest.mark.long)])
def test_it_ends_with_the_picks_read_back_by_both_libraries(seeds: str, tmp_path: Path) -> None:
    printed = tutorial(tmp_path, seeds)
    num_seeds = int(seeds[2:]) + 1
    assert f"= {12 * num_seeds} rows" in printed, "it is counted before it runs"
    prompts = yaml.safe_load(JOB.read_text("utf-8"))["sweep"]["prompt"]
    for library in ("webdataset", "datasets"):
        read = [line for line in printed.splitlines() if line.startswith(f"{library}: ")]
        assert len(read) == 6, "of each prompt two"
        assert {line[len(library) + 2 :].rpartition(", ")[0] for line in read} == set(prompts)
    assert "frames_sha256: equal" in printed
    output = tmp_path / "tutorial-output"
    assert (output / "gallery/index.html").stat().st_size > 1000
    assert (tmp_path / "sheet.png").stat().st_size > 1000


def test_an_agent_gets_from_the_skill_to_a_dataset(tmp_path: Path) -> None:
    skill = (ROOT / "plugins/skill/SKILL.md").read_text("utf-8")
    commands = re.findall(r"^    (framefleet .*)$", skill, re.M)
    ended = subprocess.run(
        ["bash", "-euc", "\n".join(commands)],
        cwd=tmp_path,
        env=shell_environment(tmp_path),
        capture_output=True,
        text=True,
    )
    assert ended.returncode == 0, ended.stderr
    objects = [json.loads(line) for line in ended.stdout.splitlines() if line.startswith("{")]
    assert len(objects) == 3  # of status, plan and render; no row failed
    assert (tmp_path / "sheet.png").stat().st_size > 0
    assert len(list(tmp_path.glob("dataset/data/*/*.mp4"))) == 2


README = (ROOT / "README.md").read_text("utf-8")
MODEL, ARGUMENTS = "Wan-AI/Wan2.1-T2V-1.3B-Diffusers", '"num_frames": 17'
SMALL = '"num_frames": 5, "height": 16, "width": 16, "num_inference_steps": 2, "max_sequence_length": 32'


def block(start: str) -> str:
    """The indented block that starts so, with all that follows it without a sentence between."""
    (found,) = re.findall(rf"^    {re.escape(start)}\n(?:    .*\n|\n(?=    ))*", README, re.M)
    return re.sub(r"^    ", "", found, flags=re.M)


def test_from_python_a_job_and_a_renderer_render(
    tmp_path: Path, ray_cluster: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    table = write_table(tmp_path / "t.parquet", prompt_rows(2))
    values = job_values(table, tmp_path / "run-7", address=ray_cluster)
    write_job(tmp_path / "job.yaml", values)
    text = block("import framefleet")
    assert MODEL in text and ARGUMENTS in text
    found: dict[str, Any] = {}
    exec(text.replace(MODEL, str(tiny("wan"))).replace(ARGUMENTS, SMALL), found)
    assert found["summary"].done == len(records_of(tmp_path / "run-7")) == 2
    assert {path.name for path in tmp_path.glob("*.mp4")} == {f"{seed}.mp4" for seed in range(8)}
