"""The promises of the README on one model, by its commands and its public names alone.

Each is tested in more depth elsewhere. These tests name no file of framefleet, so any file may move.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import diffusers
import numpy as np
import pytest
import torch

import framefleet
from tests.commands import command
from tests.jobs import job_values, prompt_rows, write_job, write_table
from tests.tiny import tiny

ROWS = prompt_rows(5)


@pytest.fixture(scope="module")
def rendered(tmp_path_factory: pytest.TempPathFactory, ray_cluster: str) -> Path:
    """A folder with job.yaml and its output `out`, rendered by two workers in batches."""
    folder = tmp_path_factory.mktemp("promises")
    table = write_table(folder / "prompts.parquet", ROWS)
    job = write_job(folder / "job.yaml", job_values(table, folder / "out", address=ray_cluster))
    ended = command("render", job, exits=0)
    (folder / "printed.txt").write_text(ended.stderr)
    return folder


@pytest.mark.promise("A run prints how long the models were idle")
def test_a_run_prints_how_long_its_models_worked(rendered: Path) -> None:
    assert "once loaded, the models worked" in (rendered / "printed.txt").read_text()


@pytest.mark.promise("A row is a plain diffusers call", "Its frames equal those of")
def test_a_clip_has_the_bits_of_a_plain_diffusers_call(rendered: Path) -> None:
    pipe = diffusers.DiffusionPipeline.from_pretrained(tiny("wan"))
    records = framefleet.read_records(str(rendered / "out")).to_pylist()
    assert max(record["batch_size"] for record in records) > 1
    for record in records:
        generator = torch.Generator("cpu").manual_seed(record["seed"])
        clip = pipe(**json.loads(record["arguments"]), generator=generator).frames[0]
        pixels = (np.asarray(clip) * 255).round().astype("uint8")
        content = f"uint8 {'x'.join(map(str, pixels.shape))}\n".encode() + pixels.tobytes()
        assert hashlib.sha256(content).hexdigest() == record["frames_sha256"]


@pytest.mark.promise(
    "Nothing is lost, and nothing is done twice",
    "Every distinct row ends up with exactly one record",
    "exit code 0",
)
def test_a_row_has_one_record_however_often_the_command_is_run(rendered: Path) -> None:
    command("render", rendered / "job.yaml", exits=0)
    positions = framefleet.read_records(str(rendered / "out"))["row_indices"].to_pylist()
    assert sorted(positions) == [[number] for number in range(len(ROWS))]


@pytest.mark.promise("Nothing is lost, and nothing is done twice")
def test_a_job_with_more_rows_renders_only_these(rendered: Path) -> None:
    more = [*reversed(ROWS), {**ROWS[0], "seed": 99}]
    write_table(rendered / "prompts.parquet", more)
    summary = framefleet.render(rendered / "job.yaml")
    assert (summary.done, summary.failed) == (1, 0)
    assert len(framefleet.read_records(str(rendered / "out"))) == len(more)


@pytest.mark.promise("Nothing is lost, and nothing is done twice", "exit code 1")
def test_a_lost_clip_is_found_and_rendered_again_with_the_same_bytes(
    rendered: Path, ray_cluster: str
) -> None:
    record = framefleet.read_records(str(rendered / "out")).to_pylist()[0]
    clip = rendered / "out" / record["path"]
    content = clip.read_bytes()
    clip.unlink()
    assert command("verify", rendered / "out").exit_code == 1
    command("repair", rendered / "job.yaml", "--set", f"fleet.address={ray_cluster}", exits=0)
    assert clip.read_bytes() == content
    assert command("verify", rendered / "out").exit_code == 0


@pytest.mark.promise("Bad input is refused before a model is loaded", "The job then stops", "exit code 2")
def test_a_row_that_the_model_cannot_render_is_refused_before_anything_starts(tmp_path: Path) -> None:
    rows = [{**row, "num_frames": 5} for row in ROWS]
    table = write_table(tmp_path / "t.parquet", [*rows, {**ROWS[0], "num_frames": 6}])
    ended = command("render", write_job(tmp_path / "job.yaml", job_values(table, tmp_path / "out")), exits=2)
    assert "row 5: num_frames is 6" in ended.stderr
    assert "hint: " in ended.stderr
    assert not (tmp_path / "out").exists()
