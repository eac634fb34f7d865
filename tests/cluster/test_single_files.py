"""A job with a GGUF file: planned, rendered on a fleet, rendered again, and printed as a script."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import gguf

from tests.commands import command
from tests.gguf_files import wan_weights, write_gguf
from tests.jobs import job_values, prompt_rows, records_of, write_job, write_table
from tests.models.test_single_files import WEIGHTS, write
from tests.rendered import run_script
from tests.tiny import tiny


def test_a_job_with_files_in_place_of_weights(tmp_path: Path, ray_cluster: str) -> None:
    base = tmp_path / "base"
    shutil.copytree(tiny("wan"), base)
    (base / "transformer" / WEIGHTS).unlink()
    write_gguf(wan_weights(), tmp_path / "wan-Q8_0.gguf", gguf.GGMLQuantizationType.Q8_0)
    table = write_table(tmp_path / "t.parquet", prompt_rows(4))
    values = job_values(table, tmp_path / "out", address=ray_cluster)
    # Next to the job file, as all that it names.
    model = {"path": "base", "parts": {"transformer": "wan-Q8_0.gguf"}}
    job = write_job(tmp_path / "job.yaml", values | {"model": model})
    planned = command("plan", job)
    assert f"transformer={tmp_path}/wan-Q8_0.gguf" in planned.stdout.replace("\n", "")
    assert "4 rows rendered in" in command("render", job).stderr
    records = records_of(tmp_path / "out")
    assert {record["model"] for record in records} == {f"{base} + transformer={tmp_path}/wan-Q8_0.gguf"}
    assert "gguf" in json.loads(records[0]["environment"])
    claim = json.loads((tmp_path / "out" / "job.json").read_text())
    assert "transformer.gguf" in claim["model_files"]

    row, out = records[0], str(tmp_path / "out")
    assert command("replay", out, row["row_id"]).exit_code == 0
    script = command("replay", out, row["row_id"], "--script").stdout
    assert "from_single_file" in script
    assert row["frames_sha256"] in run_script(script)
    moved = tmp_path / "elsewhere.gguf"
    shutil.move(tmp_path / "wan-Q8_0.gguf", moved)
    assert "does not exist" in command("replay", out, row["row_id"]).stderr
    assert command("replay", out, row["row_id"], "--part", f"transformer={moved}").exit_code == 0
    write(wan_weights(), tmp_path / "other.safetensors")
    other = command("replay", out, row["row_id"], "--part", f"transformer={tmp_path}/other.safetensors")
    assert other.exit_code == 2  # other files are another model
