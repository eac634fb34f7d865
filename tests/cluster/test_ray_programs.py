"""Programs that use Ray themselves: their Datasets are tables, and their own cluster renders."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import ray

import framefleet
from framefleet.cluster.fleet.ray_start import end_ray
from framefleet.pipeline.errors import FleetError
from tests.jobs import job_values, prompt_rows, records_of, write_table
from tests.unit.test_export_folder import SNIPPETS

NUM_ROWS = 6
RECIPE = """
def mine(pipe, request):
    return pipe(**request.arguments, generator=request.generator(), output_type="np").frames[0]
"""


def test_a_dataset_is_rendered_on_the_cluster_of_its_program_and_its_records_are_one(
    tmp_path: Path, ray_cluster: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "modules").mkdir()
    (tmp_path / "modules/of_this_program.py").write_text(RECIPE)
    monkeypatch.syspath_prepend(tmp_path / "modules")
    rows = prompt_rows(NUM_ROWS, num_inference_steps=1)
    ray.init(address=ray_cluster, log_to_driver=False)
    try:
        table = ray.data.from_items(rows).repartition(3)
        # Its module is nowhere on the workers' path: it travels with them, not with the program's connection.
        values = job_values(tmp_path, tmp_path / "out", recipe="of_this_program:mine")
        del values["table"]
        summary = framefleet.render(values, table=table)
        assert (summary.done, summary.failed) == (NUM_ROWS, 0)
        assert ray.is_initialized(), "the program goes on with its cluster"
        assert framefleet.render(values, table=table).done == 0, "the same rows are the same table"
        known = records_of(tmp_path / "out")
        documented: dict[str, Any] = {}  # in docs/export.md
        exec(SNIPPETS["ray"].replace("OUTPUT", str(tmp_path / "out")), documented)
        found = sorted(row["row_id"] for row in documented["dataset"].take_all())
        assert found == sorted(record["row_id"] for record in known)
        job = job_values(write_table(tmp_path / "t.parquet", rows), tmp_path / "o", address="192.0.2.7:6379")
        with pytest.raises(FleetError, match=r"uses the Ray cluster at .*, and the job names 192.0.2.7:6379"):
            framefleet.render(job)
    finally:
        end_ray()
