"""Faults stay with the model, the recipe or the row whose they are: the other rows are done, the job ends."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

import framefleet
from framefleet.pipeline.errors import FleetError
from framefleet.pipeline.outputs.stores.store import Store
from tests.jobs import all_columns, job_values, prompt_rows, records_of, write_table
from tests.tiny import tiny
from tests.two_models import MODELS, two_model_rows, two_models

KILLERS = (0, 1, 2, 5, 7, 11)
RECIPE = "tests.faults:kills"


def fleet_of(address: str, workers: int) -> dict[str, Any]:
    return {"workers": workers, "gpus_per_worker": 0, "address": address}


def unloadable(folder: Path, model: str) -> str:
    """Return a copy of a model whose weights are fewer than its network has."""
    path = Path(shutil.copytree(tiny(model), folder / f"bad-{model}"))
    config = path / "transformer" / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"num_layers": 3}))
    return str(path)


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("bad", MODELS)
def test_a_model_that_cannot_be_loaded_ends_the_job_after_the_rows_of_the_other(
    bad: str, workers: int, tmp_path: Path, ray_cluster: str
) -> None:
    values = two_models(tmp_path, two_model_rows(8), fleet=fleet_of(ray_cluster, workers))
    values["models"] |= {bad: unloadable(tmp_path, bad)}
    with pytest.raises(FleetError, match=f"{bad}.*: 4 rows are left") as raised:
        framefleet.render(values)
    assert "transformer" in raised.value.problem
    done = [record["model_name"] for record in records_of(tmp_path / "out")]
    assert done == [name for name in MODELS if name != bad] * 4


@pytest.mark.parametrize("num_models", [1, 2])
def test_half_of_the_rows_kill_their_workers_and_all_others_are_done(
    num_models: int, tmp_path: Path, ray_cluster: str
) -> None:
    rows = [
        row | ({"prompt": "killer"} if number in KILLERS else {})
        for number, row in enumerate(prompt_rows(12))
    ]
    fleet = fleet_of(ray_cluster, 1)
    if num_models == 1:
        values = job_values(
            write_table(tmp_path / "t.parquet", rows), tmp_path / "out", recipe=RECIPE, fleet=fleet
        )
    else:
        given = zip(two_model_rows(12), rows, strict=True)
        both = [own | {"prompt": row["prompt"], "seed": number} for number, (own, row) in enumerate(given)]
        values = two_models(tmp_path, both, recipe=RECIPE, fleet=fleet)
    summary = framefleet.render(values)
    assert (summary.done, summary.failed) == (12 - len(KILLERS), len(KILLERS))
    failures = all_columns(Store(str(tmp_path / "out")), "failures").to_pylist()
    assert {failure["row_indices"][0] for failure in failures} == set(KILLERS)
    assert {failure["error_type"] for failure in failures} == {"WorkerDied"}
