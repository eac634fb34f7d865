"""Jobs of Cosmos, with the guardrail and without."""

from __future__ import annotations

import importlib.metadata
import json
from pathlib import Path

import pytest

from tests import jobs
from tests.pictures import write_starts
from tests.tiny import SMALLEST
from tests.warm.process import ROOT, start


def test_a_refused_prompt_is_given_up_at_once_and_records_have_the_version(
    ray_cluster: str, tmp_path: Path
) -> None:
    edges = str(tmp_path / write_starts(tmp_path, num_frames=9)[0])
    rows = [{"prompt": prompt, "controls": edges} for prompt in ("a red ball", "a forbidden ball")]
    values = jobs.job_values(
        jobs.write_table(tmp_path / "t.parquet", rows),
        tmp_path / "out",
        model="cosmos25_transfer",
        address=ray_cluster,
        inputs={"roots": [str(tmp_path)]},
    )
    values["defaults"] = SMALLEST["cosmos25_transfer"]
    process = jobs.start_render(jobs.write_job(tmp_path / "job.yaml", values))
    jobs.finish(process, exits=1)
    [failed] = jobs.records_of(tmp_path / "out", "failures")
    assert failed["attempts"] == 1 and "NVIDIA's guardrail refuses the prompt" in failed["message"]
    [record] = jobs.records_of(tmp_path / "out")
    assert json.loads(record["environment"])["cosmos-guardrail"] == "0.3.2" and record["num_frames"] == 9


@pytest.mark.skipif(
    len(list(importlib.metadata.distributions(name="cosmos-guardrail"))) > 1, reason="it is installed"
)
def test_without_the_guardrail_nothing_is_rendered(tmp_path: Path) -> None:
    values = jobs.job_values(
        jobs.write_table(tmp_path / "t.parquet", [{"prompt": "a red ball"}]),
        tmp_path / "out",
        model="cosmos_t2w",
    )
    job = jobs.write_job(tmp_path / "job.yaml", values | {"defaults": SMALLEST["cosmos_t2w"]})
    process = start("-m", "framefleet", "render", job, is_cold=True, env={"PYTHONPATH": str(ROOT)})
    output = jobs.finish(process, exits=2)
    assert "pip install 'framefleet[cosmos]'" in output and "renders only with NVIDIA's guardrail" in output
