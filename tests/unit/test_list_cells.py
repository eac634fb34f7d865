"""Lists in cells: how each format holds them, what they may be, and the steps of few-step models."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet
import pytest

from framefleet import Request
from framefleet.pipeline.errors import JobError, TableError
from framefleet.pipeline.guards.json_text import canonical_json
from framefleet.pipeline.model.specs.signature import parameters_of
from framefleet.pipeline.model.specs.spec import PipelineSpec, inspect_model
from framefleet.pipeline.recipes.recipe import BUILT_IN
from framefleet.pipeline.rows.tables.request_checks import check_again
from framefleet.pipeline.rows.tables.row_plan import argument_columns, plan_rows
from framefleet.pipeline.rows.tables.rows import CheckedRow, InvalidRow
from framefleet.pipeline.rows.tables.table import open_table
from tests.configs import DDIM, FLOW, SD, WAN_FLOW, write_model

FLUX = {"vae": {"block_out_channels": [1, 2, 3, 4]}, "transformer": {"patch_size": 1}, "scheduler": FLOW}
SIGMAS = [1.0, 0.75, 0.5, 0.25]
TIMESTEPS = [999, 749, 499, 249]


@pytest.fixture(scope="module")
def flux(tmp_path_factory: pytest.TempPathFactory) -> PipelineSpec:
    return inspect_model(write_model(tmp_path_factory.mktemp("flux"), "FluxPipeline", FLUX))


@pytest.fixture(scope="module")
def sd(tmp_path_factory: pytest.TempPathFactory) -> PipelineSpec:
    return inspect_model(write_model(tmp_path_factory.mktemp("sd"), "StableDiffusionPipeline", SD))


@pytest.fixture(scope="module")
def sdxl(tmp_path_factory: pytest.TempPathFactory) -> PipelineSpec:
    return inspect_model(write_model(tmp_path_factory.mktemp("sdxl"), "StableDiffusionXLPipeline", SD))


def read(spec: PipelineSpec, cells: dict[str, Any], **job: Any) -> CheckedRow | InvalidRow:
    batch = pa.RecordBatch.from_pydict({name: [cell] for name, cell in {"prompt": "a", **cells}.items()})
    (row,) = plan_rows(batch.schema, spec, **job).rows(17, batch)
    return row


def arguments(spec: PipelineSpec, cells: dict[str, Any], **job: Any) -> dict[str, Any]:
    row = read(spec, cells, **job)
    assert isinstance(row, CheckedRow), row
    return dict(row.request.arguments)


def told(spec: PipelineSpec, cells: dict[str, Any]) -> str:
    row = read(spec, cells)
    assert isinstance(row, InvalidRow), row
    return "; ".join(f"{problem}; {fix}" for problem, fix in row.messages())


@pytest.mark.parametrize("name", ["t.parquet", "t.jsonl", "t.csv"])
def test_every_format_holds_lists_and_they_come_to_the_same_row(
    flux: PipelineSpec, tmp_path: Path, name: str
) -> None:
    rows: list[dict[str, Any]] = [{"prompt": "a", "sigmas": SIGMAS}, {"prompt": "b", "sigmas": None}]
    if name == "t.parquet":
        pa.parquet.write_table(pa.Table.from_pylist(rows), tmp_path / name)
    elif name == "t.jsonl":
        (tmp_path / name).write_text(
            "\n".join(map(json.dumps, [rows[1], rows[0] | {"sigmas": [1, 0.75, 0.5, 0.25]}]))
        )
    else:
        (tmp_path / name).write_text(f'prompt,sigmas\na,"{SIGMAS}"\nb,\n')
    table = open_table(str(tmp_path / name), arguments=argument_columns(flux, {}))
    plan = plan_rows(table.schema, flux)
    found = [row for first, batch in table.batches() for row in plan.rows(first, batch)]
    requests = {row.request.arguments["prompt"]: row.request for row in found if isinstance(row, CheckedRow)}
    row = read(flux, {"sigmas": SIGMAS})
    assert isinstance(row, CheckedRow)
    assert requests["a"] == row.request
    assert requests["a"].arguments["sigmas"] == SIGMAS
    assert "sigmas" not in requests["b"].arguments


def test_a_list_says_how_many_steps_there_are(flux: PipelineSpec) -> None:
    assert arguments(flux, {"sigmas": SIGMAS})["num_inference_steps"] == 4
    assert (
        arguments(flux, {}, defaults={"sigmas": SIGMAS, "num_inference_steps": 9})["num_inference_steps"] == 4
    )
    assert arguments(flux, {"num_inference_steps": 4, "sigmas": SIGMAS})["num_inference_steps"] == 4
    assert told(flux, {"num_inference_steps": 9, "sigmas": SIGMAS}) == (
        "row 17: num_inference_steps is 9, but `sigmas` lists 4 steps; leave it out, or use 4"
    )


def test_numbers_take_the_kind_of_their_parameter(flux: PipelineSpec, sd: PipelineSpec) -> None:
    assert repr(arguments(flux, {"sigmas": [1, 0]})["sigmas"]) == "[1.0, 0.0]"
    assert repr(arguments(sd, {"timesteps": [999.0, 499.0], "scheduler": "lcm"})["timesteps"]) == "[999, 499]"


@pytest.mark.parametrize(
    ("cell", "reason"),
    [
        ("0.5", "it must be a list of numbers"),
        ("[1.0, 0.5", "it must be a list of numbers"),
        ('{"a": 1}', "it must be a list of numbers"),
        ("[]", "it must be a list of numbers"),
        ("[1.0, [0.5]]", "its entry 1 is [0.5]: it must be a finite number"),
        ("[1.0, null]", "its entry 1 is None: it must be a finite number"),
        ("[1.0, 1e999]", "its entry 1 is inf: it must be a finite number"),
        ("[" * 100 + "]" * 100, "it must be a list of numbers"),
        (str([1] * 10_001), "no list has more than 10,000 entries"),
    ],
)
def test_a_wrong_list_is_a_refused_row(flux: PipelineSpec, cell: str, reason: str) -> None:
    problem = told(flux, {"sigmas": cell})
    assert problem.startswith("row 17: sigmas is ") and f", but {reason}" in problem
    assert len(problem) < 500


def test_a_column_that_holds_no_lists_is_an_error_of_the_table(flux: PipelineSpec) -> None:
    with pytest.raises(TableError, match="column 'sigmas' holds double, but sigmas takes lists of numbers"):
        read(flux, {"sigmas": 0.5})
    with pytest.raises(JobError, match=r"defaults.sigmas is \[1.0, 'a'\], but its entry 1 is"):
        read(flux, {}, defaults={"sigmas": [1.0, "a"]})


def test_a_scheduler_that_takes_no_such_list_is_refused(sd: PipelineSpec) -> None:
    assert "DDIMScheduler takes no `sigmas`" in told(sd, {"sigmas": SIGMAS})
    assert "DDIMScheduler takes no `timesteps`" in told(sd, {"timesteps": TIMESTEPS})
    assert arguments(sd, {"timesteps": TIMESTEPS, "scheduler": "lcm"})["timesteps"] == TIMESTEPS
    assert arguments(sd, {"sigmas": SIGMAS, "scheduler": "euler"})["sigmas"] == SIGMAS


def test_a_scheduler_is_asked_whether_it_takes_the_values(sd: PipelineSpec) -> None:
    problem = told(sd, {"timesteps": [249, 999], "scheduler": "lcm"})
    assert "LCMScheduler does not take it" in problem and "descending" in problem
    both = told(sd, {"timesteps": TIMESTEPS, "sigmas": SIGMAS, "scheduler": "euler"})
    assert "a row lists its steps once" in both


def test_a_pipeline_that_would_drop_them_without_a_word_is_refused(tmp_path: Path) -> None:
    spec = inspect_model(write_model(tmp_path, "FluxPipeline", FLUX | {"scheduler": WAN_FLOW}))
    assert "the pipeline leaves it out for UniPCMultistepScheduler" in told(spec, {"sigmas": SIGMAS})


def test_equal_lists_are_equal_rows_and_rows_share_none(flux: PipelineSpec) -> None:
    batch = pa.RecordBatch.from_pydict(
        {"prompt": ["a", "a", "a"], "sigmas": [[1.0, 0.5], [1.0, 0.5], [1.0, 0.25]]}
    )
    one, other, third = (
        row for row in plan_rows(batch.schema, flux).rows(0, batch) if isinstance(row, CheckedRow)
    )
    assert one.request == other.request != third.request
    assert one.request.arguments["sigmas"] is not other.request.arguments["sigmas"]


def test_a_pair_is_a_list_in_cells_and_records_and_a_tuple_to_the_pipeline(
    sdxl: PipelineSpec,
) -> None:
    cells = {"original_size": [512.0, 768], "crops_coords_top_left": "[0, 16]"}
    row = read(sdxl, cells)
    assert isinstance(row, CheckedRow), row
    found = row.request.arguments
    assert (found["original_size"], found["crops_coords_top_left"]) == ((512, 768), (0, 16))
    recorded = json.loads(canonical_json(found))
    assert recorded["original_size"] == [512, 768]
    assert check_again(replace(row.request, arguments=recorded), sdxl, BUILT_IN["generate"]) == row.request
    assert sdxl.from_json(recorded) == found
    with pytest.raises(TableError, match=r"original_size is .*, but it must be a list of 2 whole numbers"):
        wrong = replace(row.request, arguments=recorded | {"original_size": [512]})
        check_again(wrong, sdxl, BUILT_IN["generate"])


@pytest.mark.parametrize("cell", [[512], [512, 512, 512], "512", "(512, 512)", "[[512, 512]]"])
def test_what_is_no_pair_is_a_refused_row(sdxl: PipelineSpec, cell: Any) -> None:
    assert "it must be a list of 2 whole numbers; use one, as [480, 832]" in told(
        sdxl, {"original_size": cell}
    )


def test_tuples_of_any_length_are_lists_of_any_length() -> None:
    def call(
        layers: tuple[int, ...],
        blocks: tuple[int] = (1, 2),  # type: ignore[assignment]  # as Flux.2's call has it
        either: int | tuple[int, int] | list[int] = 1,
        mixed: tuple[int, str] | None = None,
        nested: list[list[int]] | None = None,
    ) -> None: ...

    found = {parameter.name: (parameter.kind, parameter.entries) for parameter in parameters_of(call)}
    assert found == {
        "layers": ("list[int]", 0),
        "blocks": ("list[int]", 0),
        "either": ("int", None),
        "mixed": (None, None),
        "nested": (None, None),
    }


def test_a_record_with_such_a_list_is_checked_again(sd: PipelineSpec) -> None:
    known = arguments(sd, {"timesteps": TIMESTEPS, "scheduler": "lcm"})
    check_again(Request(arguments=known, scheduler="LCMScheduler"), sd, BUILT_IN["generate"])
    for wrong in ([999, "a"], [1, 2], {"a": 1}, 5):
        with pytest.raises(TableError, match="timesteps"):
            request = Request(arguments=known | {"timesteps": wrong}, scheduler="LCMScheduler")
            check_again(request, sd, BUILT_IN["generate"])
    assert DDIM["_class_name"] == sd.scheduler_class
