"""Numbers that a pipeline would take, and fail on late or render noise from, are refused where they enter."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest

from framefleet.pipeline.errors import JobError
from framefleet.pipeline.model.specs.check import check_ranges, out_of_range
from framefleet.pipeline.model.specs.spec import PipelineSpec, inspect_model
from framefleet.pipeline.rows.tables.row_plan import plan_rows
from framefleet.pipeline.rows.tables.rows import InvalidRow
from tests.configs import FLOW, write_model


@pytest.fixture
def spec(tmp_path: Path) -> PipelineSpec:
    vae = {"spatial_compression_ratio": 8, "temporal_compression_ratio": 4}
    configs = {"vae": vae, "transformer": {"patch_size": 2}, "scheduler": FLOW}
    return inspect_model(write_model(tmp_path, "OpenSoraPipeline", configs))


@pytest.mark.parametrize(
    ("name", "inside", "outside"),
    [
        ("fps", [1, 24, 1000], [0, -1, 0.5, 1e12]),
        ("frame_rate", [1, 29.97], [0, 1e5]),
        ("motion_score", [1, 15], [-3, 0, 16]),
        ("flow_shift", [0.001, 3, 1000], [0, 1e-9, 1001]),
        ("guidance_rescale", [0, 0.7, 1], [-0.1, 1.1]),
        ("image_guidance_scale", [0, 0.5, 30], [-1]),
        ("image_steps", [1], [0]),
        ("keyframe_frames", [5], [-5]),
        ("keyframe_guidance", [0], [-1]),
        ("clip_skip", [-5, 0, 10**9], []),
    ],
)
def test_a_number_is_in_its_range_or_told_of(name: str, inside: list[float], outside: list[float]) -> None:
    assert [value for value in inside if out_of_range(name, value)] == []
    assert [value for value in outside if not out_of_range(name, value)] == []


def test_a_call_is_told_its_argument_and_value() -> None:
    check_ranges({"fps": None, "eta": 1})
    with pytest.raises(ValueError, match="`fps` is 0: it must be from 1 to 1000"):
        check_ranges({"eta": 0.5, "fps": 0})


def test_a_row_is_told_its_column_value_and_fix(spec: PipelineSpec) -> None:
    table = pa.RecordBatch.from_pydict({"prompt": ["a"], "motion": [-3], "frame_rate": [100_000]})
    plan = plan_rows(table.schema, spec, columns={"motion_score": "motion"})
    (row,) = plan.rows(0, table)
    assert isinstance(row, InvalidRow)
    assert sorted(row.messages()) == [
        ("row 0: frame_rate is 100000, but it must be from 1 to 1000", "use 1 to 1000"),
        ("row 0: motion is -3, but it must be from 1 to 15", "use 1 to 15"),
    ]


def test_a_job_s_default_is_told_of_once(spec: PipelineSpec) -> None:
    with pytest.raises(JobError, match="flow_shift is 1e-09, but it must be") as refused:
        plan_rows(pa.schema({"prompt": pa.string()}), spec, defaults={"flow_shift": 1e-9})
    assert refused.value.exit_code == 2
