"""What cells of a table may name: what the job declared, and nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.commands import command
from tests.jobs import job_values, prompt_rows, write_job, write_table


def test_a_plan_imports_nothing_that_a_cell_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "generate.py").write_text("open('ran', 'w')\ndef x(pipe, request): ...\n")
    table = write_table(tmp_path / "t.parquet", prompt_rows(1, recipe="generate:x"))
    ended = command("plan", write_job(tmp_path / "job.yaml", job_values(table, tmp_path / "out")))
    assert ended.exit_code == 2
    said = " ".join(ended.output.split())
    assert "row 0: recipe is 'generate:x', but recipe 'generate:x' is not of a module" in said
    assert not (tmp_path / "ran").exists()
