"""The commands on one real job: render, plan and replay; what is done again, what is refused."""

from __future__ import annotations

import hashlib
import json
import os
import re
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import framefleet
from framefleet.pipeline.outputs.media.media import read_metadata
from tests import jobs
from tests.commands import command

ROWS = [
    *jobs.prompt_rows(8),
    {**jobs.prompt_rows(1)[0], "tag": "the first again"},
    {**jobs.prompt_rows(8)[7], "seed": None, "tag": "derived"},
    {**jobs.prompt_rows(8)[7], "seed": None, "tag": "derived again"},
]
NUM_DISTINCT = 9


@pytest.fixture(scope="module")
def rendered(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with job.yaml, its table, and its output `out`, rendered by two workers."""
    folder = tmp_path_factory.mktemp("rendered")
    values = jobs.job_values(jobs.write_table(folder / "prompts.parquet", ROWS), folder / "out")
    printed = jobs.finish(jobs.start_render(jobs.write_job(folder / "job.yaml", values)))
    (folder / "printed.txt").write_text(printed)
    return folder


@pytest.mark.promise("A run prints how long the models were idle", "exit code 0")
def test_a_run_prints_its_rows_and_how_long_its_models_worked(rendered: Path) -> None:
    printed = (rendered / "printed.txt").read_text()
    assert "11 rows, 2 duplicates, 0 done, 9 to render" in printed
    assert "9 rows rendered in" in printed
    assert re.search(r"once loaded, the models worked \d+\.\d% of the time, and waited for ", printed)
    assert f"records: {rendered / 'out' / 'records'}" in printed


@pytest.mark.promise("Every distinct row ends up with exactly one record")
def test_every_distinct_row_has_one_record_that_lists_its_positions(rendered: Path) -> None:
    records = jobs.records_of(rendered / "out")
    assert len(records) == len({record["row_id"] for record in records}) == NUM_DISTINCT
    positions = sorted(index for record in records for index in record["row_indices"])
    assert positions == list(range(len(ROWS)))
    assert {tuple(record["row_indices"]) for record in records} >= {(0, 8), (9, 10)}
    jobs.check_whole(rendered / "out")


def test_a_summary_has_the_records_of_all_runs(rendered: Path) -> None:
    summary = framefleet.render(rendered / "job.yaml")
    assert summary.done == 0
    table = summary.records(["seed", "row_id"])
    assert table.column_names == ["seed", "row_id"] and len(table) == NUM_DISTINCT
    assert set(summary.records()["row_id"].to_pylist()) == set(table["row_id"].to_pylist())


def test_records_hold_what_was_carried_and_what_was_rendered(rendered: Path) -> None:
    first = next(record for record in jobs.records_of(rendered / "out") if 3 in record["row_indices"])
    assert first["tag"] == "row 3"
    assert first["prompt"] == json.loads(first["arguments"])["prompt"] == ROWS[3]["prompt"]
    shown = (first["num_inference_steps"], first["guidance_scale"], first["max_sequence_length"])
    assert shown == (ROWS[3]["num_inference_steps"], ROWS[3]["guidance_scale"], 32)
    assert first["compute_s"] > 0 and first["num_prompt_tokens"] > 0 and first["is_prompt_cut"] is not None
    assert (first["seed"], first["height"], first["num_frames"], first["fps"]) == (3, 16, 5, 16.0)
    assert first["worker"].startswith("worker-")
    tags = read_metadata(Path(first["uri"]).read_bytes())
    assert (tags["row_id"], tags["prompt"], tags["seed"]) == (first["row_id"], ROWS[3]["prompt"], "3")


def test_job_json_says_what_made_the_output(rendered: Path) -> None:
    claim = json.loads((rendered / "out" / "job.json").read_text())
    assert claim["framefleet"] == framefleet.__version__
    media = {"format": "mp4", "crf": 18, "fps": None, "audio": True, "encoder": "libx264"}
    media |= {"previews": True, "embed": "full"}
    assert claim["job"]["media"] == media
    assert claim["model_digest"] == jobs.records_of(rendered / "out")[0]["model_digest"]
    assert len(claim["model_files"]["vae/config.json"]) == 64


def test_a_row_id_that_the_disk_altered_is_found_and_the_next_run_mends_it(rendered: Path) -> None:
    (part,) = (rendered / "out" / "rows").glob("*.parquet")
    table, written = pq.read_table(part), part.stat()
    row_ids = table["row_id"].to_pylist()
    row_ids[0] = row_ids[0][::-1]
    pq.write_table(table.set_column(1, "row_id", pa.array(row_ids)), part)
    os.utime(part, ns=(written.st_atime_ns, written.st_mtime_ns))
    process = jobs.start_render(rendered / "job.yaml")
    printed, _ = process.communicate(timeout=240)
    assert process.returncode == 2 and "row 0 has changed" in printed, printed
    ended = command("render", rendered / "job.yaml")
    assert ended.exit_code == 0 and "nothing to do" in ended.stderr
    assert pq.read_table(part).equals(table)


def test_plan_counts_what_is_done_and_what_a_longer_table_adds(rendered: Path, tmp_path: Path) -> None:
    ended = command("plan", rendered / "job.yaml", exits=0)
    assert counts_in(ended.stdout) >= {"rows": 11, "duplicates": 2, "distinct": 9, "done": 9}.items()
    longer = jobs.write_table(tmp_path / "longer.parquet", [*jobs.prompt_rows(12, height=32), *ROWS])
    ended = command("plan", rendered / "job.yaml", "--table", longer, "--output", tmp_path / "new")
    shapes = {"5 x 32 x 16, 32 tokens of prompt": 12, "5 x 16 x 16, 32 tokens of prompt": 11}
    assert counts_in(ended.stdout) >= ({"done": 0, "to render": 21} | shapes).items()
    assert not (tmp_path / "new").exists()


def counts_in(printed: str) -> set[tuple[str, int]]:
    cells = [line.strip().rpartition("  ") for line in printed.splitlines()]
    return {(name.strip(), int(number)) for name, _, number in cells if number.strip().isdigit()}


def test_another_job_is_refused_saying_what_differs(rendered: Path) -> None:
    sets = ["--set", "defaults.num_frames=9", "--set", "model.dtype=bf16", "--set", "media.crf=20"]
    for name in ("render", "plan"):
        ended = command(name, rendered / "job.yaml", *sets, exits=2)
        assert "holds clips of another job" in ended.stderr
        assert "defaults.num_frames: 5 there, 9 here" in ended.stderr
        assert "numerics.dtype: auto there, bf16 here" in ended.stderr
        assert "media.crf: 18 there, 20 here" in ended.stderr


def test_what_decides_no_clip_may_change(rendered: Path) -> None:
    sets = ["--set", "fleet.workers=1", "--set", "batching.max_rows=2", "--set", "retries.attempts=1"]
    sets += ["--set", "on_invalid=skip", "--set", "keep_embeddings=true"]
    ended = command("render", rendered / "job.yaml", *sets, "--limit", "2", exits=0)
    assert "nothing to do: each of the first 2 rows has a record" in ended.stderr


@pytest.mark.promise("A row is a plain diffusers call")
def test_a_replay_is_equal_and_saves_the_clip(rendered: Path, tmp_path: Path) -> None:
    record = jobs.records_of(rendered / "out")[0]
    ended = command("replay", rendered / "out", record["row_id"], "--save", tmp_path / "again.mp4", exits=0)
    assert f"frames_sha256: equal  {record['frames_sha256']}" in ended.stdout
    assert f"media_sha256: equal  {record['media_sha256']}" in ended.stdout
    saved = (tmp_path / "again.mp4").read_bytes()
    assert hashlib.sha256(saved).hexdigest() == record["media_sha256"]
