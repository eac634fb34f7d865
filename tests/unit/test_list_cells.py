"""Cells of numbers, images and odd kinds: how each format holds them, what they may be, which are equal."""

from __future__ import annotations

import io
import json
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet
import pyarrow.parquet as pq
import pytest
from hypothesis import given, strategies as st

from framefleet import Inputs, JobError, Request, TableError
from framefleet.jobs.render.survey import Survey
from framefleet.pipeline.guards.json_text import canonical_json
from framefleet.pipeline.model.specs.pipeline_call import call_of
from framefleet.pipeline.model.specs.signature import parameters_of
from framefleet.pipeline.model.specs.spec import PipelineSpec, inspect_model
from framefleet.pipeline.outputs.parts.records import public_arguments
from framefleet.pipeline.recipes.catalog import BUILT_IN
from framefleet.pipeline.rows.inputs.survey import InputIndex
from framefleet.pipeline.rows.sweeps.settings import Sweep
from framefleet.pipeline.rows.sweeps.sweep import open_sweep
from framefleet.pipeline.rows.tables.json_lines import JsonLines
from framefleet.pipeline.rows.tables.request_checks import check_again
from framefleet.pipeline.rows.tables.row_cells import ODD_CELLS, repaired_row
from framefleet.pipeline.rows.tables.row_plan import argument_columns, plan_rows
from framefleet.pipeline.rows.tables.rows import CheckedRow, InvalidRow, files_in
from framefleet.pipeline.rows.tables.table import open_table
from tests.configs import FLOW, SD, WAN, WAN_FLOW, write_model
from tests.pictures import write_starts
from tests.rows import row_id
from tests.unit.test_inputs import SHELF, Shelf

FLUX = {"vae": {"block_out_channels": [1, 2, 3, 4]}, "transformer": {"patch_size": 1}, "scheduler": FLOW}
SIGMAS = [1.0, 0.75, 0.5, 0.25]
TIMESTEPS = [999, 749, 499, 249]
A, B = ({"uri": f"/shelf/{name}.png", "sha256": 2 * name} for name in "ab")


def _spec(factory: pytest.TempPathFactory, class_name: str, configs: dict[str, Any]) -> PipelineSpec:
    return inspect_model(write_model(factory.mktemp(class_name), class_name, configs))


@pytest.fixture(scope="module")
def flux(tmp_path_factory: pytest.TempPathFactory) -> PipelineSpec:
    return _spec(tmp_path_factory, "FluxPipeline", FLUX)


@pytest.fixture(scope="module")
def sd(tmp_path_factory: pytest.TempPathFactory) -> PipelineSpec:
    return _spec(tmp_path_factory, "StableDiffusionPipeline", SD)


@pytest.fixture(scope="module")
def sdxl(tmp_path_factory: pytest.TempPathFactory) -> PipelineSpec:
    return _spec(tmp_path_factory, "StableDiffusionXLPipeline", SD)


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
    return _spec(tmp_path_factory, "WanVACEPipeline", WAN)


def read(spec: PipelineSpec, cells: dict[str, Any], **job: Any) -> CheckedRow | InvalidRow:
    batch = pa.RecordBatch.from_pydict({name: [cell] for name, cell in {"prompt": "a", **cells}.items()})
    (row,) = plan_rows(batch.schema, spec, finder=Shelf(*SHELF), **job).rows(17, batch)
    return row


def arguments_of(row: CheckedRow | InvalidRow) -> dict[str, Any]:
    assert isinstance(row, CheckedRow), row
    return dict(row.request.arguments)


def arguments(spec: PipelineSpec, cells: dict[str, Any], **job: Any) -> dict[str, Any]:
    return arguments_of(read(spec, cells, **job))


def told_of(row: CheckedRow | InvalidRow) -> str:
    assert isinstance(row, InvalidRow), row
    return "; ".join(f"{problem}; {fix}" for problem, fix in row.messages())


def told(spec: PipelineSpec, cells: dict[str, Any]) -> str:
    return told_of(read(spec, cells))


def test_a_list_says_how_many_steps_there_are(flux: PipelineSpec) -> None:
    assert arguments(flux, {"sigmas": SIGMAS})["num_inference_steps"] == 4
    defaults = {"sigmas": SIGMAS, "num_inference_steps": 9}
    assert arguments(flux, {}, defaults=defaults)["num_inference_steps"] == 4
    assert arguments(flux, {"num_inference_steps": 4, "sigmas": SIGMAS})["num_inference_steps"] == 4
    assert told(flux, {"num_inference_steps": 9, "sigmas": SIGMAS}) == (
        "row 17: num_inference_steps is 9, but `sigmas` lists 4 steps; leave it out, or use 4"
    )


def test_equal_lists_are_equal_rows_and_rows_share_none(flux: PipelineSpec) -> None:
    lists = [[1.0, 0.5], [1.0, 0.5], [1.0, 0.25]]
    batch = pa.RecordBatch.from_pydict({"prompt": ["a"] * 3, "sigmas": lists})
    rows = plan_rows(batch.schema, flux).rows(0, batch)
    one, other, third = (row.request for row in rows if isinstance(row, CheckedRow))
    assert one == other != third and one.arguments["sigmas"] is not other.arguments["sigmas"]


def test_numbers_take_the_kind_of_their_parameter(flux: PipelineSpec, sd: PipelineSpec) -> None:
    assert repr(arguments(flux, {"sigmas": [1, 0]})["sigmas"]) == "[1.0, 0.0]"
    assert repr(arguments(sd, {"timesteps": [999.0, 499.0], "scheduler": "lcm"})["timesteps"]) == "[999, 499]"


@pytest.mark.parametrize(
    ("cell", "reason"),
    [
        *((cell, "it must be a list of numbers") for cell in ("0.5", "[1.0, 0.5", '{"a": 1}', "[]")),
        ("[1.0, [0.5]]", "its entry 1 is [0.5]: it must be a finite number"),
        ("[1.0, null]", "its entry 1 is None: it must be a finite number"),
        ("[1.0, 1e999]", "its entry 1 is inf: it must be a finite number"),
        ("[" * 100 + "]" * 100, "it must be a list of numbers"),
        (str([1] * 10_001), "a list may have at most 10,000 entries"),
    ],
)
def test_a_wrong_list_is_a_refused_row(flux: PipelineSpec, cell: str, reason: str) -> None:
    problem = told(flux, {"sigmas": cell})
    assert problem.startswith("row 17: sigmas is ") and f", but {reason}" in problem
    assert len(problem) < 500
    with pytest.raises(TableError, match="column 'sigmas' holds double, but sigmas takes lists of numbers"):
        read(flux, {"sigmas": 0.5})
    with pytest.raises(JobError, match=r"defaults.sigmas is \[1.0, 'a'\], but its entry 1 is"):
        read(flux, {}, defaults={"sigmas": [1.0, "a"]})


def test_a_scheduler_that_takes_no_such_list_is_refused(sd: PipelineSpec) -> None:
    assert "DDIMScheduler takes no `sigmas`" in told(sd, {"sigmas": SIGMAS})
    assert "DDIMScheduler takes no `timesteps`" in told(sd, {"timesteps": TIMESTEPS})
    assert arguments(sd, {"timesteps": TIMESTEPS, "scheduler": "lcm"})["timesteps"] == TIMESTEPS
    assert arguments(sd, {"sigmas": SIGMAS, "scheduler": "euler"})["sigmas"] == SIGMAS
    problem = told(sd, {"timesteps": [249, 999], "scheduler": "lcm"})
    assert "LCMScheduler does not take it" in problem and "descending" in problem
    both = told(sd, {"timesteps": TIMESTEPS, "sigmas": SIGMAS, "scheduler": "euler"})
    assert "a row lists its steps once" in both
    known = arguments(sd, {"timesteps": TIMESTEPS, "scheduler": "lcm"})  # and so is a record
    check_again(Request(arguments=known, scheduler="LCMScheduler"), sd, BUILT_IN["generate"])
    for wrong in ([999, "a"], [1, 2], {"a": 1}, 5):
        with pytest.raises(TableError, match="timesteps"):
            request = Request(arguments=known | {"timesteps": wrong}, scheduler="LCMScheduler")
            check_again(request, sd, BUILT_IN["generate"])


def test_a_pipeline_that_would_drop_them_without_a_word_is_refused(tmp_path: Path) -> None:
    spec = inspect_model(write_model(tmp_path, "FluxPipeline", FLUX | {"scheduler": WAN_FLOW}))
    assert "the pipeline ignores it for UniPCMultistepScheduler" in told(spec, {"sigmas": SIGMAS})


def test_a_pair_is_a_list_in_cells_and_a_tuple_to_the_pipeline(sdxl: PipelineSpec) -> None:
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
    for cell in ([512], [512, 512, 512], "512", "(512, 512)", "[[512, 512]]"):
        refused = told(sdxl, {"original_size": cell})
        assert "it must be a list of 2 whole numbers; use one, e.g. [480, 832]" in refused


def test_tuples_of_any_length_are_lists_of_any_length() -> None:
    def call(
        layers: tuple[int, ...],
        blocks: tuple[int] = (1, 2),  # type: ignore[assignment]  # as Flux.2's call has it
        either: int | tuple[int, int] | list[int] = 1,
        mixed: tuple[int, str] | None = None,
        nested: list[list[int]] | None = None,
    ) -> None: ...

    found = [(parameter.kind, parameter.entries) for parameter in parameters_of(call)]
    assert found == [("list[int]", 0), ("list[int]", 0), ("int", None), (None, None), (None, None)]


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


class ListingShelf(Shelf):
    """A finder that lists what it is to open."""

    def __init__(self, *known: Any) -> None:
        super().__init__(*known)
        self.prefetched: list[tuple[str, Any]] = []

    def prefetch(self, wanted: Iterable[tuple[str, Any]]) -> None:
        self.prefetched += wanted


def test_all_images_of_lists_are_opened_before_rows_are_read(vace: PipelineSpec) -> None:
    shelf = ListingShelf(*SHELF)
    batch = pa.RecordBatch.from_pydict(
        {"prompt": ["p"] * 3, "reference_images": [["a.png", "b.png"], None, ["b.png"]]}
    )
    next(plan_rows(batch.schema, vace, finder=shelf).rows(0, batch))
    assert arguments(vace, {"reference_images": "a.png"})["reference_images"] == [A]
    assert shelf.prefetched == [("a.png", "image"), ("b.png", "image"), ("b.png", "image")]


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
def test_a_list_is_refused_by_its_first_bad_entry(vace: PipelineSpec, cell: Any, reason: str) -> None:
    problem = told(vace, {"reference_images": cell})
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
    assert "its entry 1" in told_of(second) and "outside of inputs.roots" in told_of(second)


def test_each_controlnet_has_an_image(two_nets: PipelineSpec) -> None:
    both = {"image": ["a.png", "b.png"]}
    assert arguments(two_nets, both | {"control_guidance_end": 0.5})["control_guidance_end"] == 0.5
    for cells, reason in (
        ({"image": "a.png"}, "and each takes an image"),
        ({"image": ["a.png"]}, "and this lists 1"),
        (both | {"controlnet_conditioning_scale": [1.0]}, "and this lists 1"),
    ):
        assert f"the model has 2 ControlNets, {reason}" in told(two_nets, cells)


def test_a_list_where_a_pipeline_takes_one_image_is_refused(tmp_path: Path) -> None:
    single = inspect_model(write_model(tmp_path, "StableDiffusionImg2ImgPipeline", SD))
    with pytest.raises(TableError, match="image takes paths or URLs of images"):
        read(single, {"image": ["a.png", "b.png"]})
    assert "it does not exist" in told(single, {"image": '["a.png"]'})
    with pytest.raises(TableError, match=r"ip_adapter_image(.|\n)*`model: {ip_adapter: {path:"):
        read(single, {"ip_adapter_image": ["a.png"]})


def identity(arguments: dict[str, Any]) -> str:
    return row_id(Request(arguments=arguments), model_digest="m", numerics={}, recipe_digest=None)


def test_a_list_is_identified_by_what_its_images_hold_in_their_order() -> None:
    elsewhere = [image | {"uri": "s3://bucket/x.png"} for image in (A, B)]
    assert identity({"image": [A, B]}) == identity({"image": elsewhere})
    assert len({identity({"image": image}) for image in ([A, B], [B, A], [A], A, [])}) == 5
    # Of before lists of images were read.
    given = {"prompt": "a", "image": A, "sigmas": [1.0, 0.5], "lora": {"s": {"sha256": "x", "weight": 1.0}}}
    given |= {"keyframe_model": {"name": "n", "digest": "d"}}
    assert identity(given) == "0bf7b9f083e725607c291387dab11b65"


def test_a_record_shows_no_secret_of_a_list_and_is_checked_again(vace: PipelineSpec) -> None:
    images = [{"uri": "https://me:pw@host/a.png?sig=1", "sha256": "aa"}, B]
    recorded = json.loads(public_arguments({"reference_images": images}))
    assert recorded["reference_images"][0] == {"uri": "https://host/a.png", "sha256": "aa"}
    given = {**arguments(vace, {}), "reference_images": recorded["reference_images"]}
    request = Request(arguments=given)
    assert check_again(request, vace, BUILT_IN["generate"]).arguments["reference_images"][1] == B
    for wrong in ([], [B, "a.png"], B, "a.png", [[B]]):
        with pytest.raises(TableError, match="the record's reference_images"):
            check_again(Request(arguments=given | {"reference_images": wrong}), vace, BUILT_IN["generate"])


def test_a_call_is_kept_by_whether_its_model_has_several_controlnets() -> None:
    one = {"index": {"_class_name": "StableDiffusionControlNetPipeline"}, "scheduler": {"_class_name": "X"}}
    several = one | {"index": one["index"] | {"controlnet": ["diffusers", "MultiControlNetModel"]}}
    kinds = [
        {p.name: p.kind for p in call_of("StableDiffusionControlNetPipeline", configs).parameters}["image"]
        for configs in (one, several, one)
    ]
    assert kinds == ["image", "images", "image"]


BEYOND = 400
LONG = "p" * 3000  # so many of such prompts are more than the megabyte from which types are taken


def cell_told(path: Path, spec: PipelineSpec) -> list[str]:
    """Return what is said of refused rows; what is kept of each can be written."""
    table = open_table(str(path), arguments=argument_columns(spec, {}))
    plan = plan_rows(table.schema, spec)
    survey = Survey()
    for first, batch in table.batches():
        rows = [*plan.rows(first, batch)]
        assert [row.index for row in rows] == [*range(first, first + batch.num_rows)]
        refused = [row for row in rows if isinstance(row, InvalidRow)]
        repaired = [repaired_row(batch.slice(row.index - first, 1)) for row in refused]
        assert all(row.schema.equals(table.schema) for row in repaired)
        survey.add(refused)
    survey.find_places(table)
    return survey.invalid_lines()


def lines(*rows: dict[str, Any], before: int = 0) -> str:
    usual = json.dumps({"prompt": LONG, "k": 1})
    return "\n".join([*[usual] * before, *map(json.dumps, rows)])


def test_a_number_among_texts_is_told_with_line_value_and_fix(tmp_path: Path, wan: PipelineSpec) -> None:
    rows = '{"prompt": "a", "note": "x"}\n\n{"prompt": "b", "note": 5}\n{"prompt": "c", "note": "y"}'
    (tmp_path / "t.jsonl").write_text(rows)
    (line,) = cell_told(tmp_path / "t.jsonl", wan)
    assert line == "row 1 (line 3): note is 5, but it is not a text; put it in quotes"


@pytest.mark.parametrize(
    ("cell", "said"),
    [
        ("odd", "k is 'odd', but the column holds whole numbers"),
        (1.5, "k is 1.5, but the column holds whole numbers"),
        (2**70, f"k is {2**70}, but records cannot store it"),
        ([1], "k is [1], but the column holds whole numbers"),
    ],
)
def test_so_is_what_comes_after_the_types(cell: Any, said: str, tmp_path: Path, wan: PipelineSpec) -> None:
    (tmp_path / "t.jsonl").write_text(lines({"prompt": "b", "k": cell}, {"prompt": "c"}, before=BEYOND))
    (line,) = cell_told(tmp_path / "t.jsonl", wan)
    assert line.startswith(f"row {BEYOND} (line {BEYOND + 1}): {said}")


def test_a_key_that_comes_late_is_one_refused_row(tmp_path: Path, wan: PipelineSpec) -> None:
    (tmp_path / "t.jsonl").write_text(lines({"prompt": "b", "sed\ud800": 7}, {"prompt": "c"}, before=BEYOND))
    (line,) = cell_told(tmp_path / "t.jsonl", wan)
    assert "sed\\ud800 is 7, but the first 1 MB of the table have no such key" in line


def test_what_most_cells_are_is_the_type_wherever_the_odd_is(tmp_path: Path, wan: PipelineSpec) -> None:
    rows: list[dict[str, Any]] = [
        {"prompt": "a", "note": 5, "tags": ["x"], "o": {"b": 1}, "id": 2**60},
        {"prompt": "b", "note": "x", "tags": [1], "o": {"b": 2}, "id": 2**60 + 1},
        {"prompt": "c", "note": "y", "tags": ["y"], "o": {"b": "z"}, "id": 0.5},
    ]
    (tmp_path / "t.jsonl").write_text(lines(*rows))
    problems = [
        line.partition(", but")[0].partition(": ")[2] for line in cell_told(tmp_path / "t.jsonl", wan)
    ]
    assert problems == ["note is 5", "tags is [1]", "o is {'b': 'z'}", "id is 0.5"]


@pytest.mark.parametrize(
    ("usual", "odd", "held"),
    [
        ("1", "x", "whole numbers"),
        ("1.5", "x", "numbers"),
        ("true", "maybe", "true and false"),
        ("2026-01-01", "soon", "dates"),
        ("12:30:00", "25:00:00", "times"),
        ("2026-01-01 12:30:00", "soon", "times"),
        ("2026-01-01 12:30:00.500", "2026-01-01T12:30:00", "times"),
        ("1", "01", "whole numbers"),
        ("1.5", "1e5", "numbers"),
    ],
)
def test_so_it_is_in_csv(usual: str, odd: str, held: str, tmp_path: Path, wan: PipelineSpec) -> None:
    rows = ["prompt,k"] + [f"{LONG},{usual}"] * BEYOND * 2 + [f"b,{odd}", f"c, {usual} ", "d,"]
    (tmp_path / "t.csv").write_text("\n".join(rows))
    (line,) = cell_told(tmp_path / "t.csv", wan)
    where = f"row {BEYOND * 2} (line {BEYOND * 2 + 2})"
    assert line.startswith(f"{where}: k is {odd!r}, but the column holds {held}")


def test_every_row_that_a_sweep_makes_of_an_odd_one_is_refused(tmp_path: Path, wan: PipelineSpec) -> None:
    (tmp_path / "t.jsonl").write_text(lines({"prompt": "b", "k": "odd"}, {"prompt": "c", "k": 2}, before=1))
    table = open_table(str(tmp_path / "t.jsonl"), arguments=argument_columns(wan, {}))
    sweep = Sweep.model_validate({"seed": "0-1"})
    swept = open_sweep(sweep, table, kinds={"seed": "int"}, others=(), columns={}, storage_options={})
    plan = plan_rows(swept.schema, wan)
    rows = [row for first, batch in swept.batches() for row in plan.rows(first, batch)]
    assert [row.index for row in rows if isinstance(row, InvalidRow)] == [2, 3]


def test_a_row_of_many_odd_cells_is_told_by_some(tmp_path: Path, wan: PipelineSpec) -> None:
    sound = {"prompt": "a"} | {f"c{i}": 1 for i in range(100)}
    odd = {"prompt": "a"} | {f"c{i}": "x" for i in range(100)}
    (tmp_path / "t.jsonl").write_text(lines(sound, sound, odd))
    assert len(cell_told(tmp_path / "t.jsonl", wan)) == 8


CHANGED = ["x", "7", "{}", "[1]", '[["n"]]', "[" * 9999, 7]


@pytest.mark.parametrize("cell", [*CHANGED, '[["prompt", "x", "reason", "fix"]]', None])
def test_a_strangers_file_says_nothing_of_odd_cells(cell: Any, tmp_path: Path) -> None:
    pq.write_table(pa.table({"prompt": ["a"], ODD_CELLS: [cell]}), tmp_path / "t.parquet")
    with pytest.raises(TableError, match=r"has a column '.x00odd'"):
        open_table(str(tmp_path / "t.parquet"))


@pytest.mark.parametrize("cell", CHANGED)
def test_what_a_made_table_says_of_odd_cells_is_read_only_as_it_was_written(
    cell: Any, tmp_path: Path
) -> None:
    pq.write_table(pa.table({"prompt": ["a"], ODD_CELLS: [cell]}), tmp_path / "t.parquet")
    with pytest.raises(TableError) as caught:
        list(open_table(str(tmp_path / "t.parquet"), is_made=True).batches())
    assert "crashed" not in caught.value.problem


_CELLS = st.one_of(
    st.lists(st.none() | st.text(st.characters(exclude_categories=["Cs"])), min_size=1),
    st.lists(st.none() | st.integers(-(2**50), 2**50) | st.floats(allow_nan=False), min_size=1),
    st.lists(st.none() | st.lists(st.none() | st.booleans()), min_size=1),
    st.lists(st.fixed_dictionaries({"b": st.integers(0, 9)}, optional={"a": st.text("xy")}), min_size=1),
)


@given(_CELLS)
def test_columns_of_one_type_have_the_one_that_arrow_gives_them(cells: list[Any]) -> None:
    content = "\n".join(json.dumps({"n": 1, "a": cell}) for cell in cells).encode()
    table = JsonLines(io.BufferedReader(io.BytesIO(content)), None, {})
    assert table.schema.field("a").type == pa.array(cells).type


@pytest.mark.parametrize("entry", [{"video": " b.mp4"}, {"image": None, "video": "b.mp4", "audio": None}])
def test_the_files_of_references_are_read_as_what_they_are_and_a_video_for_its_sound_too(
    entry: dict[str, str | None],
) -> None:
    cell = json.dumps([{"image": "a.png"}, entry, {"audio": "c.wav"}, {"image": ""}, {"film": "d.mp4"}])
    files = [("a.png", "image"), ("b.mp4", "video"), ("b.mp4", "audio"), ("c.wav", "audio")]
    assert [*files_in(cell, "references")] == files
