"""Cells that hold several images: in each format of tables, checked one by one, and in a row's identity."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet
import pytest

from framefleet import Inputs, Request
from framefleet.pipeline.errors import TableError
from framefleet.pipeline.model.specs.pipeline_call import call_of
from framefleet.pipeline.model.specs.spec import PipelineSpec, inspect_model
from framefleet.pipeline.outputs.parts.records import public_arguments
from framefleet.pipeline.recipes.recipe import BUILT_IN
from framefleet.pipeline.rows.inputs.survey import InputIndex
from framefleet.pipeline.rows.tables.request_checks import check_again
from framefleet.pipeline.rows.tables.row_plan import argument_columns, plan_rows
from framefleet.pipeline.rows.tables.rows import CheckedRow, InvalidRow
from framefleet.pipeline.rows.tables.table import open_table
from tests.configs import SD, WAN, write_model
from tests.pictures import write_starts
from tests.rows import row_id
from tests.unit.test_row_inputs import SHELF, Shelf

A, B = ({"uri": f"/shelf/{name}.png", "sha256": 2 * name} for name in "ab")


@pytest.fixture(scope="module")
def two_nets(tmp_path_factory: pytest.TempPathFactory) -> PipelineSpec:
    """A model with two ControlNets."""
    folder = write_model(tmp_path_factory.mktemp("nets"), "StableDiffusionControlNetPipeline", SD)
    index = json.loads((folder / "model_index.json").read_text())
    index["controlnet"] = ["diffusers", "MultiControlNetModel"]
    (folder / "model_index.json").write_text(json.dumps(index))
    for name in ("controlnet", "controlnet_1", "controlnet_3"):  # the last is none of them
        (folder / name).mkdir()
    return inspect_model(folder)


@pytest.fixture(scope="module")
def vace(tmp_path_factory: pytest.TempPathFactory) -> PipelineSpec:
    return inspect_model(write_model(tmp_path_factory.mktemp("vace"), "WanVACEPipeline", WAN))


def read(spec: PipelineSpec, cells: dict[str, Any]) -> CheckedRow | InvalidRow:
    batch = pa.RecordBatch.from_pydict({name: [cell] for name, cell in {"prompt": "a", **cells}.items()})
    (row,) = plan_rows(batch.schema, spec, finder=Shelf(*SHELF)).rows(17, batch)
    return row


def arguments_of(row: CheckedRow | InvalidRow) -> dict[str, Any]:
    assert isinstance(row, CheckedRow), row
    return dict(row.request.arguments)


def refused(row: CheckedRow | InvalidRow) -> str:
    assert isinstance(row, InvalidRow)
    ((problem, _),) = row.messages()
    return problem


def test_a_list_of_images_is_read_from_every_format(two_nets: PipelineSpec, tmp_path: Path) -> None:
    images, scales = ["a.png", "b.png"], [1, 0.5]
    rows = [{"prompt": "a", "image": images, "controlnet_conditioning_scale": scales} for _ in range(2)]
    pa.parquet.write_table(pa.Table.from_pylist(rows), tmp_path / "t.parquet")
    lines = [json.dumps(row) for row in rows]
    lines[1] = json.dumps(rows[1] | {"image": json.dumps(images)})
    (tmp_path / "t.jsonl").write_text("\n".join(lines))
    quoted = json.dumps(images).replace('"', '""')
    (tmp_path / "t.csv").write_text(
        f'prompt,image,controlnet_conditioning_scale\na,"{quoted}","[1, 0.5]"\na,"{quoted}","[1, 0.5]"\n'
    )
    for name in ("t.parquet", "t.jsonl", "t.csv"):
        table = open_table(str(tmp_path / name), arguments=argument_columns(two_nets, {}))
        plan = plan_rows(table.schema, two_nets, finder=Shelf(*SHELF))
        found = [row for first, batch in table.batches() for row in plan.rows(first, batch)]
        for row in found:
            given = arguments_of(row)
            assert given["image"] == [A, B], name
            assert given["controlnet_conditioning_scale"] == [1.0, 0.5]
        assert len(found) == 2


def test_all_images_of_lists_are_opened_before_rows_are_read(vace: PipelineSpec) -> None:
    shelf = Shelf(*SHELF)
    batch = pa.RecordBatch.from_pydict(
        {"prompt": ["p"] * 3, "reference_images": [["a.png", "b.png"], None, ["b.png"]]}
    )
    next(plan_rows(batch.schema, vace, finder=shelf).rows(0, batch))
    assert shelf.prefetched == [("a.png", "image"), ("b.png", "image"), ("b.png", "image")]


def test_one_image_is_a_list_where_only_lists_are_taken(vace: PipelineSpec) -> None:
    assert arguments_of(read(vace, {"reference_images": "a.png"}))["reference_images"] == [A]


@pytest.mark.parametrize(
    ("cell", "reason"),
    [
        (["a.png", "none.png"], "its entry 1, 'none.png': it does not exist"),
        (["a.png", ""], "its entry 1, '': it must be the path or URL of an image"),
        (["a.png", None], "its entry 1, None: it must be the path or URL of an image"),
        ('["a.png", ["b.png"]]', "must be the path or URL of an image"),
        ('["a.png"', "it must be a list of 1 to 64 paths or URLs of images"),
        ("[]", "it must be a list of 1 to 64"),
        (["a.png"] * 65, "it must be a list of 1 to 64"),
        (["http://me:secret@host/a.png?sig=secret"], "its entry 0, 'http://host/a.png"),
    ],
)
def test_a_list_is_refused_by_the_first_of_its_entries_that_is(
    vace: PipelineSpec, cell: Any, reason: str
) -> None:
    problem = refused(read(vace, {"reference_images": cell}))
    assert reason in problem
    assert "secret" not in problem


def test_entries_of_a_list_are_read_from_roots_alone(vace: PipelineSpec, tmp_path: Path) -> None:
    inside, outside = tmp_path / "in", tmp_path / "out"
    for folder in (inside, outside):
        folder.mkdir()
        write_starts(folder, num_frames=1)
    finder = InputIndex(Inputs([], base=str(inside)))
    cells = [["picture-0.png", "picture-1.png"], ["picture-0.png", str(outside / "picture-0.png")]]
    batch = pa.RecordBatch.from_pydict({"prompt": ["a", "b"], "reference_images": cells})
    first, second = plan_rows(batch.schema, vace, finder=finder).rows(0, batch)
    finder.close()
    places = [named["uri"] for named in arguments_of(first)["reference_images"]]
    assert places == [str(inside / name) for name in cells[0]]
    assert "its entry 1" in refused(second) and "outside of inputs.roots" in refused(second)


def test_each_controlnet_has_an_image(two_nets: PipelineSpec) -> None:
    both = {"image": ["a.png", "b.png"]}
    assert arguments_of(read(two_nets, both | {"control_guidance_end": 0.5}))["control_guidance_end"] == 0.5
    wrong = {"image": "a.png"}, {"image": ["a.png"]}, both | {"controlnet_conditioning_scale": [1.0]}
    reasons = "each of which takes an image", "it has 1", "it has 1"
    for cells, reason in zip(wrong, reasons, strict=True):
        assert f"the model has 2 ControlNets, and {reason}".replace("and each", "each") in refused(
            read(two_nets, cells)
        )


def test_a_list_where_a_pipeline_takes_one_image_is_refused(tmp_path: Path) -> None:
    single = inspect_model(write_model(tmp_path, "StableDiffusionImg2ImgPipeline", SD))
    with pytest.raises(TableError, match="image takes paths or URLs of images"):
        read(single, {"image": ["a.png", "b.png"]})
    assert "it does not exist" in refused(read(single, {"image": '["a.png"]'}))


def test_images_of_an_ip_adapter_are_refused_without_one(tmp_path: Path) -> None:
    spec = inspect_model(write_model(tmp_path, "StableDiffusionPipeline", SD))
    with pytest.raises(TableError, match="ip_adapter_image") as caught:
        read(spec, {"ip_adapter_image": ["a.png"]})
    assert "`model: {ip_adapter: {path:" in caught.value.fix


def identity(arguments: dict[str, Any]) -> str:
    return row_id(Request(arguments=arguments), model_digest="m", numerics={}, recipe_digest=None)


def test_a_list_is_identified_by_what_its_images_hold_in_their_order() -> None:
    elsewhere = [image | {"uri": "s3://bucket/x.png"} for image in (A, B)]
    assert identity({"image": [A, B]}) == identity({"image": elsewhere})
    assert len({identity({"image": image}) for image in ([A, B], [B, A], [A], A, [])}) == 5


def test_row_ids_of_other_cells_are_what_they_were() -> None:
    """Those of before lists of images were read."""
    given = {"prompt": "a", "image": A, "sigmas": [1.0, 0.5], "lora": {"s": {"sha256": "x", "weight": 1.0}}}
    assert identity(given | {"keyframe_model": {"name": "n", "digest": "d"}}) == (
        "0bf7b9f083e725607c291387dab11b65"
    )


def test_a_record_shows_no_secret_of_a_list_and_is_checked_again(vace: PipelineSpec) -> None:
    images = [{"uri": "https://me:pw@host/a.png?sig=1", "sha256": "aa"}, B]
    told = json.loads(public_arguments({"reference_images": images}))
    assert told["reference_images"][0] == {"uri": "https://host/a.png", "sha256": "aa"}
    arguments = {**arguments_of(read(vace, {})), "reference_images": told["reference_images"]}
    request = Request(arguments=arguments)
    assert check_again(request, vace, BUILT_IN["generate"]).arguments["reference_images"][1] == B
    for wrong in ([], [B, "a.png"], B, "a.png", [[B]]):
        with pytest.raises(TableError, match="the record's reference_images"):
            check_again(
                Request(arguments=arguments | {"reference_images": wrong}), vace, BUILT_IN["generate"]
            )


def test_a_call_is_kept_by_whether_its_model_has_several_controlnets() -> None:
    one = {"index": {"_class_name": "StableDiffusionControlNetPipeline"}, "scheduler": {"_class_name": "X"}}
    several = one | {"index": one["index"] | {"controlnet": ["diffusers", "MultiControlNetModel"]}}
    kinds = [
        {p.name: p.kind for p in call_of("StableDiffusionControlNetPipeline", configs).parameters}["image"]
        for configs in (one, several, one)
    ]
    assert kinds == ["image", "images", "image"]
