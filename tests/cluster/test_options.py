"""Options of `model:` on a fleet: the same rows from every worker, and what became of auto."""

from __future__ import annotations

import json
from pathlib import Path

from framefleet.jobs.keep.replay.replay import replay
from tests.commands import command
from tests.jobs import job_values, prompt_rows, records_of, write_job, write_table
from tests.tiny import tiny


def test_a_fleet_renders_with_options_and_any_row_can_be_rendered_again(
    tmp_path: Path, ray_cluster: str
) -> None:
    model = {
        "path": str(tiny("wan")),
        "attention": "auto",
        "cache": {"type": "mag", "mag_ratios": [1.0]},
        "layerwise_casting": "fp8_e4m3",
        "offload": {"type": "group", "disk": str(tmp_path / "weights")},
    }
    table = write_table(tmp_path / "t.parquet", prompt_rows(6))
    values = job_values(table, tmp_path / "out", address=ray_cluster)
    job = write_job(tmp_path / "job.yaml", values | {"model": model})
    assert "6 rows rendered in" in command("render", job).stderr
    records = records_of(tmp_path / "out")
    assert {json.loads(record["environment"])["attention"] for record in records} == {"_native_flash"}
    assert {record["batch_size"] for record in records} == {1.0}
    assert replay(str(tmp_path / "out"), records[-1]["row_id"]).is_equal
    again = command("render", job, "--set", "model.layerwise_casting=fp8_e5m2")
    assert again.exit_code == 2
    assert "numerics.layerwise_casting: fp8_e4m3 there, fp8_e5m2 here" in again.stderr


def test_an_option_that_the_model_cannot_do_starts_no_worker(tmp_path: Path) -> None:
    values = job_values(write_table(tmp_path / "t.parquet", prompt_rows(1)), tmp_path / "out", model="sd")
    job = write_job(tmp_path / "job.yaml", values)
    for option, said in {
        "cache=first_block": "UNet2DConditionModel does not take the caches",
        "offload=model": "offload model needs a GPU",
        "vae_tilling=true": "did you mean `model.vae_tiling`?",
    }.items():
        ended = command("render", job, "--set", f"model.{option}")
        assert ended.exit_code == 2
        assert said in ended.stderr
    assert not (tmp_path / "out").exists()
