"""A row's identity: the same for every spelling of the same row, another for each part that decides it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings, strategies as st

from framefleet import Request
from framefleet.pipeline.model.specs.spec import PipelineSpec, inspect_model
from framefleet.pipeline.rows.tables.row_plan import plan_rows
from framefleet.pipeline.rows.tables.rows import CheckedRow
from tests.configs import WAN, write_model
from tests.rows import row_id

REST: dict[str, Any] = {"model_digest": "ab", "numerics": {"dtype": "fp32"}, "recipe_digest": None}
CELLS = st.fixed_dictionaries(
    {"prompt": st.text(st.characters(codec="utf-8"), min_size=1).filter(str.strip)},
    optional={
        "negative_prompt": st.text(st.characters(codec="utf-8")),
        "num_frames": st.integers(0, 30).map(lambda k: 4 * k + 1),
        "num_inference_steps": st.integers(1, 1000),
        "guidance_scale": st.integers(0, 20),
        "seed": st.integers(0, 2**53 - 1),
        "scheduler": st.sampled_from(["unipc", "flow_euler"]),
    },
)


@pytest.fixture(scope="module")
def spec(tmp_path_factory: pytest.TempPathFactory) -> PipelineSpec:
    folder: Path = tmp_path_factory.mktemp("model")
    return inspect_model(write_model(folder, "WanPipeline", WAN))


def identity(cells: dict[str, Any], spec: PipelineSpec) -> str:
    table = pa.RecordBatch.from_pylist([cells])
    (row,) = plan_rows(table.schema, spec).rows(0, table)
    assert isinstance(row, CheckedRow)
    return row_id(row.request, **REST)


def spelled_otherwise(cells: dict[str, Any]) -> dict[str, Any]:
    """Return the cells in another order, whole numbers as floats, and columns that mean nothing beside."""
    numbers = {name: float(cell) if isinstance(cell, int) else cell for name, cell in cells.items()}
    return {"tag": "x", **dict(reversed(numbers.items())), "score": 0.5}


@settings(deadline=None)
@given(cells=CELLS)
def test_order_spelling_and_carried_columns_do_not_matter(spec: PipelineSpec, cells: dict[str, Any]) -> None:
    assert identity(cells, spec) == identity(spelled_otherwise(cells), spec)


@settings(deadline=None)
@given(cells=CELLS)
def test_defaults_written_out_do_not_matter(spec: PipelineSpec, cells: dict[str, Any]) -> None:
    assert identity(cells, spec) == identity({**spec.defaults(), **cells}, spec)


@given(text=st.text(), seed=st.integers(0, 2**63 - 1), scale=st.floats(0, 20))
def test_every_part_matters(text: str, seed: int, scale: float) -> None:
    request = Request(arguments={"prompt": text, "guidance_scale": scale}, seed=seed, scheduler="A")
    changed = [
        row_id(replace(request, arguments={**request.arguments, "prompt": text + "!"}), **REST),
        row_id(replace(request, arguments={**request.arguments, "guidance_scale": scale + 1}), **REST),
        row_id(replace(request, arguments={**request.arguments, "eta": 0.0}), **REST),
        row_id(replace(request, seed=seed ^ 1), **REST),
        row_id(replace(request, scheduler="B"), **REST),
        row_id(replace(request, recipe="m:f"), **REST),
        row_id(replace(request, fps=8.0), **REST),
        row_id(request, **(REST | {"model_digest": "cd"})),
        row_id(request, **(REST | {"numerics": {"dtype": "bf16"}})),
        row_id(request, **(REST | {"recipe_digest": "ef"})),
    ]
    assert len({row_id(request, **REST), *changed}) == len(changed) + 1
