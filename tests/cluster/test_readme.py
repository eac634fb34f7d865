"""The README's Python, run as it stands there but for the model and the size of its clips."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from tests.jobs import ROOT, job_values, prompt_rows, records_of, write_job, write_table
from tests.tiny import tiny

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
