"""From a table's columns to requests: what is taken, filled in and refused, and how it is told."""

from __future__ import annotations

from collections.abc import Iterable
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from framefleet import JobError, RecipeError, Request, TableError
from framefleet.api.models import PipelineSpec, Recipe, inspect_model
from framefleet.pipeline.recipes.catalog import BUILT_IN
from framefleet.pipeline.rows.identity import derive_seed
from framefleet.pipeline.rows.tables.request_checks import checked
from framefleet.pipeline.rows.tables.row_plan import argument_columns, plan_rows
from framefleet.pipeline.rows.tables.rows import CheckedRow, InvalidRow
from tests.configs import SD, WAN, write_model


def read(spec: PipelineSpec, table: dict[str, Any], **job: Any) -> list[CheckedRow | InvalidRow]:
    batch = pa.RecordBatch.from_pydict(table)
    return list(plan_rows(batch.schema, spec, **job).rows(17, batch))


def valid(spec: PipelineSpec, table: dict[str, Any], **job: Any) -> CheckedRow:
    (row,) = read(spec, table, **job)
    assert isinstance(row, CheckedRow), row
    return row


def told(spec: PipelineSpec, table: dict[str, Any], **job: Any) -> list[tuple[str, str]]:
    (row,) = read(spec, table, **job)
    assert isinstance(row, InvalidRow), row
    return row.messages()


def test_a_row_is_resolved_from_the_signature_then_the_job_then_its_cells(wan: PipelineSpec) -> None:
    row = valid(wan, {"prompt": ["a"], "height": [64]}, defaults={"height": 32, "width": 32})
    assert row.request.arguments == {
        **{"prompt": "a", "height": 64, "width": 32, "num_frames": 81},
        **{"num_inference_steps": 50, "guidance_scale": 5.0, "max_sequence_length": 512},
    }
    assert (row.index, row.shape) == (17, "81 x 64 x 32, 512 tokens")


def test_an_override_holds_for_every_row_and_its_column_is_not_read(wan: PipelineSpec) -> None:
    table = pa.RecordBatch.from_pydict({"prompt": ["a"], "height": ["no number"], "width": [64], "tag": [1]})
    plan = plan_rows(table.schema, wan, defaults={"height": 16, "width": 16}, overrides={"height": 32})
    (row,) = plan.rows(0, table)
    assert isinstance(row, CheckedRow)
    assert (row.request.arguments["height"], row.request.arguments["width"]) == (32, 64)
    assert list(plan.carried.names) == ["tag"]
    with pytest.raises(JobError, match=r"overrides\.heigth: rows have no such argument"):
        plan_rows(table.schema, wan, overrides={"heigth": 32})


def test_an_empty_text_is_no_scheduler_where_the_job_has_one(wan: PipelineSpec) -> None:
    table = {"prompt": ["a"], "scheduler": [""]}
    assert valid(wan, table).request.scheduler == valid(wan, {"prompt": ["a"]}).request.scheduler
    ((problem, fix),) = told(wan, table, defaults={"scheduler": "flow_euler"})
    assert "the job sets a scheduler" in problem and "leave the cell empty (null)" in fix


def test_an_override_of_the_steps_is_refused_where_rows_list_theirs(tmp_path: Path) -> None:
    sdxl = inspect_model(write_model(tmp_path, "StableDiffusionXLPipeline", SD))
    table = {"prompt": ["a"], "timesteps": [[999, 500]], "scheduler": ["lcm"]}
    row = valid(sdxl, table, defaults={"num_inference_steps": 9})
    assert row.request.arguments["num_inference_steps"] == 2
    ((problem, fix),) = told(sdxl, table, overrides={"num_inference_steps": 9})
    assert "num_inference_steps is 9, but `timesteps` lists 2 steps" in problem
    assert fix == "leave it out, or use 2"


def test_names_of_other_programs_are_told_with_ours_and_all_at_once(wan: PipelineSpec) -> None:
    schema = pa.schema([("caption", pa.string())])
    with pytest.raises(JobError, match=r"defaults\.steps: rows have no such argument") as caught:
        plan_rows(
            schema,
            wan,
            columns={"seed": "sead"},
            defaults={"prompt": "a", "steps": 4, "cfg_scale": 3, "height": 33},
        )
    for said in ("the column 'sead'", "'num_inference_steps'?", "'guidance_scale'?", "defaults.height is 33"):
        assert said in caught.value.problem
    with pytest.raises(JobError) as caught:
        plan_rows(schema, wan, columns={"caption": "prompt"})
    assert caught.value.fix == "swap them: `columns: {prompt: caption}`"


@pytest.mark.parametrize("value", [[], [1, 2], [[1]], {"a": 1}, ["a:", "b"]])
def test_a_default_of_a_wrong_type_is_refused(wan: PipelineSpec, value: Any) -> None:
    for name in ("height", "num_frames", "guidance_scale", "seed", "scheduler", "prompt", "fps"):
        with pytest.raises(JobError):
            plan_rows(pa.schema({"tag": pa.string()}), wan, defaults={"prompt": "a", name: value})


def softly(pipe: Any, request: Any, *, strength: float = 0.5) -> None: ...


SOFTLY = Recipe(name="m:softly", function=softly)


@pytest.mark.parametrize(
    ("cells", "job", "arguments"),
    [
        ({"guidance_scale": [5]}, {}, {"guidance_scale": 5.0}),
        ({"guidance_scale": [Decimal("5.5")]}, {}, {"guidance_scale": 5.5}),
        ({"guidance_scale": ["5.5"]}, {}, {"guidance_scale": 5.5}),
        ({"guidance_scale": [-0.0]}, {}, {"guidance_scale": 0.0}),
        *(({"num_frames": [cell]}, {}, {"num_frames": 9}) for cell in (9.0, "9", "9.0")),
        ({"guidance_scale": [None]}, {"defaults": {"guidance_scale": 3}}, {"guidance_scale": 3.0}),
        ({}, {"defaults": {"guidance_scale": None}}, {"guidance_scale": "absent"}),
        ({"side": [64]}, {"columns": {"height": "side", "width": "side"}}, {"height": 64, "width": 64}),
        ({"strength": [1]}, {"recipe": SOFTLY}, {"strength": 1.0}),
        ({"strength": [1]}, {}, {"strength": "absent"}),
        ({"caption": ["b"]}, {"columns": {"prompt": "caption"}}, {"prompt": "b"}),
    ],
)
def test_arguments_are_of_the_kind_of_their_parameters_wherever_they_come_from(
    wan: PipelineSpec, cells: dict[str, Any], job: dict[str, Any], arguments: dict[str, Any]
) -> None:
    found = valid(wan, {"prompt": ["a"]} | cells, **job).request.arguments
    assert repr({name: found.get(name, "absent") for name in arguments}) == repr(arguments)


EULER, SEED = "FlowMatchEulerDiscreteScheduler", 2**60 + 1


@pytest.mark.parametrize(
    ("cells", "job", "scheduler", "recipe"),
    [
        (
            {"seed": [SEED], "scheduler": ["flow_euler"], "recipe": ["refine"], "fps": [24]},
            {},
            EULER,
            "refine",
        ),
        ({"seed": [SEED]}, {"recipe": SOFTLY}, "UniPCMultistepScheduler", "m:softly"),
        ({}, {"defaults": {"seed": SEED, "scheduler": "flow_euler"}}, EULER, "generate"),
        ({"seed": [SEED], "scheduler": pa.array(["flow_euler"]).dictionary_encode()}, {}, EULER, "generate"),
        *(
            ({"seed": cells}, {"defaults": {"scheduler": "flow_euler"}}, EULER, "generate")
            for cells in (
                pa.array([Decimal(SEED)], pa.decimal128(38, 0)),
                pa.array([Decimal(SEED)], pa.decimal256(60, 2)),
                pa.array([f"{SEED}.0"]),
                pa.array([SEED], pa.uint64()),
            )
        ),
    ],
)
def test_seed_scheduler_recipe_and_rate_are_no_arguments(
    wan: PipelineSpec, cells: dict[str, Any], job: dict[str, Any], scheduler: str, recipe: str
) -> None:
    request = valid(wan, {"prompt": ["a"]} | cells, **job).request
    assert (request.seed, request.scheduler, request.recipe) == (SEED, scheduler, recipe)
    assert request.fps == (24.0 if "fps" in cells else None)
    assert not {"seed", "scheduler", "recipe", "fps"} & set(request.arguments)


def test_a_missing_seed_is_derived_from_the_row_and_not_its_place(wan: PipelineSpec) -> None:
    first, second = read(wan, {"prompt": ["a", "a"], "seed": pa.array([None, None], pa.int64())})
    assert isinstance(first, CheckedRow) and isinstance(second, CheckedRow)
    request = first.request
    assert request.scheduler
    assert request.seed == second.request.seed
    assert request.seed == derive_seed(
        arguments=request.arguments, scheduler=request.scheduler, recipe=request.recipe
    )


@pytest.mark.parametrize(
    ("cells", "problem", "fix"),
    [
        ({"num_frames": [80]}, "row 17: num_frames is 80, but Wan renders 4k + 1 frames", "use 77 or 81"),
        ({"num_frames": [0]}, "row 17: num_frames is 0, but Wan renders 4k + 1 frames", "use 5"),
        ({"height": [481]}, "row 17: height is 481, but Wan renders multiples of 16", "use 480 or 496"),
        ({"width": [8]}, "row 17: width is 8, but Wan renders multiples of 16", "use 16"),
        ({"height": [480.5]}, "row 17: height is 480.5, but it must be a whole number", "use a whole number"),
        ({"height": ["tall"]}, "height is 'tall', but it must be a whole number", "use a whole number"),
        ({"num_inference_steps": [0]}, "is 0, but it must be from 1 to 10,000", "use 1 to 10,000"),
        (
            {"num_inference_steps": [1001]},
            "UniPCMultistepScheduler of this model takes 1 to 1000",
            "1 to 1000",
        ),
        ({"guidance_scale": [-1.0]}, "is -1.0, but it must be from 0 to 1000", "use 0 to 1000"),
        ({"guidance_scale": [float("nan")]}, "is nan, but it must be a finite number", "a number in digits"),
        ({"seed": [-1]}, "row 17: seed is -1, but seeds go from 0 to 2**63 - 1", "use a seed in that range"),
        ({"seed": [1.5]}, "row 17: seed is 1.5, but it must be a whole number", "use a whole number"),
        ({"seed": [2.0**60]}, "a float column cannot store it exactly", "int64"),
        ({"seed": pa.array([2983456121.0], pa.float32())}, "a float32 column cannot store it", "int64"),
        ({"height": pa.array([2049.0]).cast(pa.float16())}, "a float16 column cannot store it", "int64"),
        ({"seed": ["1.5668E+14"]}, "spreadsheets round numbers", "without decimals"),
        ({"seed": ["1_000"]}, "row 17: seed is '1_000', but it must be a whole number", "in digits"),
        ({"guidance_scale": ["5,5"]}, "row 17: guidance_scale is '5,5', but it has a comma", "e.g. 5.5"),
        ({"seed": ["1,234,567"]}, "row 17: seed is '1,234,567', but it has a comma", "e.g. 1234567"),
        ({"seed": pa.array([2**63], pa.uint64())}, "seeds go from 0", "use a seed in that range"),
        ({"fps": [0]}, "row 17: fps is 0, but it must be from 0.1 to 1000", "use e.g. 16"),
        ({"scheduler": ["eulr"]}, "is 'eulr', but no scheduler is named 'eulr'", "did you mean"),
        ({"scheduler": ["ddim"]}, "flow matching", "flow_euler"),
        ({"prompt": ["  "]}, "row 17: prompt is '  ', but it is blank", "write a prompt"),
        ({"prompt": pa.array([None], pa.string())}, "prompt is empty, but every row needs a prompt", "fill"),
    ],
)
def test_a_bad_cell_is_refused_with_row_column_value_reason_and_fix(
    wan: PipelineSpec, cells: dict[str, Any], problem: str, fix: str
) -> None:
    ((said, hint),) = told(wan, {"prompt": ["a"]} | cells)
    assert problem in said and fix in hint


def test_bounds_and_sizes_are_those_of_the_model(tmp_path: Path) -> None:
    sd = inspect_model(write_model(tmp_path / "sd", "StableDiffusionPipeline", SD))
    configs = SD | {"motion_adapter": {"motion_max_seq_length": 32}}
    animated = inspect_model(write_model(tmp_path / "animated", "AnimateDiffPipeline", configs))
    assert valid(sd, {"prompt": ["a"]}).request.arguments["height"] == 512
    for spec, cells, good, bad, reason in (
        (sd, {}, {"eta": [1]}, {"eta": [1.5]}, "from 0 to 1"),
        (sd, {"scheduler": ["lcm"]}, {}, {"num_inference_steps": [60]}, "1 to 50 steps"),
        (animated, {}, {"num_frames": [32]}, {"num_frames": [33]}, "at most 32 frames"),
    ):
        assert valid(spec, {"prompt": ["a"], **cells, **good})
        assert reason in told(spec, {"prompt": ["a"], **cells, **bad})[0][0]


def test_a_recipe_that_cannot_be_used_is_refused_per_row(wan: PipelineSpec) -> None:
    asked: list[str] = []

    def find(name: str) -> Recipe:
        asked.append(name)
        if name != "generate":
            raise RecipeError(f"there is no recipe {name!r}", "use generate")
        return BUILT_IN[name]

    table = {"prompt": ["a", "b", "c"], "recipe": ["generate", "x", "generate"]}
    first, second, third = read(wan, table, find_recipe=find)
    assert isinstance(first, CheckedRow) and isinstance(third, CheckedRow) and isinstance(second, InvalidRow)
    assert second.messages() == [("row 18: recipe is 'x', but there is no recipe 'x'", "use generate")]
    assert asked == ["generate", "x"]


def test_all_that_is_wrong_with_a_row_is_told_at_once_by_the_names_of_the_table(wan: PipelineSpec) -> None:
    cells = {"prompt": pa.array([None], pa.string()), "frames": [80], "seed": [-1]}
    problems = {problem for problem, _ in told(wan, cells, columns={"num_frames": "frames"})}
    assert len(problems) == 3 and any(problem.startswith("row 17: frames is 80") for problem in problems)


@pytest.mark.parametrize(
    ("columns", "defaults", "problem", "fix"),
    [
        ({"promt": "caption"}, {}, "columns.promt: there is no argument", "'prompt'"),
        ({"prompt": "captoin"}, {}, "the column 'captoin'", "'caption'"),
        ({"prompt": "caption"}, {"num_frame": 5}, "defaults.num_frame", "'num_frames'"),
        ({"prompt": "caption"}, {"num_frames": 80}, "defaults.num_frames is 80, but", "use 77 or 81"),
        ({"prompt": "caption"}, {"height": "tall"}, "defaults.height is 'tall', but", "whole number"),
        ({"prompt": "caption"}, {"seed": -1}, "defaults.seed is -1, but", "range"),
        ({"prompt": "caption"}, {"fps": 8}, "defaults.fps", "`media.fps:`"),
        ({"prompt": "caption"}, {"recipe": "m:f"}, "defaults.recipe", "`recipe:`"),
        ({"prompt": "caption"}, {"output_type": "pil"}, "defaults.output_type", "framefleet sets it"),
    ],
)
def test_a_job_that_no_row_can_mend_is_refused(
    wan: PipelineSpec, columns: dict[str, str], defaults: dict[str, Any], problem: str, fix: str
) -> None:
    with pytest.raises(JobError) as caught:
        plan_rows(pa.schema({"caption": pa.string()}), wan, columns=columns, defaults=defaults)
    assert problem in caught.value.problem and fix in caught.value.fix


@pytest.mark.parametrize(
    ("name", "kind", "problem", "fix"),
    [
        ("height", pa.list_(pa.int64()), "column 'height' holds list", "whole numbers"),
        ("guidance_scale", pa.bool_(), "column 'guidance_scale' holds bool", "numbers"),
        ("negative_prompt", pa.int64(), "column 'negative_prompt' holds int64", "text"),
        ("generator", pa.int64(), "cannot come from a table", "`seed` column"),
        ("num_videos_per_prompt", pa.int64(), "cannot come from a table", "repeat the row"),
        ("output_type", pa.string(), "cannot come from a table", "framefleet sets it"),
        ("prompt_embeds", pa.list_(pa.float32()), "cannot come from a table", "tensors"),
    ],
)
def test_a_column_that_no_cell_can_mend_is_refused(
    wan: PipelineSpec, name: str, kind: pa.DataType, problem: str, fix: str
) -> None:
    schema = pa.schema({"prompt": pa.string(), name: kind})
    with pytest.raises(TableError) as caught:
        plan_rows(schema, wan)
    assert problem in caught.value.problem and fix in caught.value.fix


def test_the_columns_that_a_plan_reads_are_known_before_the_table_is_open(wan: PipelineSpec) -> None:
    kinds = argument_columns(wan, {"prompt": "caption"})
    assert (kinds["caption"], kinds["seed"], kinds["guidance_scale"]) == ("str", "int", "float")
    assert "prompt" not in kinds


def test_names_that_differ_in_case_alone_are_told_apart(wan: PipelineSpec) -> None:
    columns = ("prompt", "Prompt", "Seed", "style", "STYLE", "Path")
    schema = pa.schema([(name, pa.string()) for name in columns])
    names = plan_rows(schema, wan, reserved=["seed", "path"]).carried.names
    renamed = {name: f"source_{name}" for name in ("Prompt", "Seed", "STYLE", "Path")}
    assert names == renamed | {"style": "style"}
    plan = plan_rows(pa.schema([("Prompt", pa.string())]), wan, columns={"prompt": "Prompt"})
    assert plan.carried.names == {"Prompt": "source_Prompt"}


class Anything:
    """A finder of whatever it is asked for."""

    uri, sha256, num_frames, first_frame, height, width = "a.png", "aa", 1, None, 8, 8

    def prefetch(self, wanted: Iterable[Any]) -> None:
        pass

    def locate(self, uri: str) -> str:
        return uri

    def find(self, uri: str, kind: str) -> Anything:
        return self


@pytest.mark.parametrize(
    ("class_name", "configs", "arguments", "fps"),
    [
        ("WanPipeline", WAN, {"prompt": "a"}, "none"),
        ("StableVideoDiffusionPipeline", SD, {"image": "a.png", "fps": 6}, 6),  # which it has for itself
    ],
)
def test_the_rate_of_a_request_is_that_of_its_clip(
    tmp_path: Path, class_name: str, configs: Any, arguments: dict[str, Any], fps: object
) -> None:
    spec = inspect_model(write_model(tmp_path, class_name, configs))
    found = checked(Request(arguments=arguments, fps=12), spec, BUILT_IN["generate"], finder=Anything())
    assert (found.arguments.get("fps", "none"), found.fps) == (fps, 12)


def test_a_path_object_is_a_path_and_other_objects_are_refused(tmp_path: Path) -> None:
    spec = inspect_model(write_model(tmp_path, "WanImageToVideoPipeline", WAN))
    arguments = {"prompt": "a", "image": Path("a.png")}
    found = checked(Request(arguments=arguments), spec, BUILT_IN["generate"], finder=Anything())
    assert found.arguments["image"]["uri"] == "a.png"
    with pytest.raises(TableError, match="request 3: image is of type object") as caught:
        opened = Request(arguments=arguments | {"image": object()})
        checked(opened, spec, BUILT_IN["generate"], finder=Anything(), index=3)
    assert "path or URL" in caught.value.fix
