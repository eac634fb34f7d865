"""How large what a row asks for may be, and how deep or wide what a file holds; beyond it is a refusal."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from framefleet import Request
from framefleet.pipeline.errors import JobError, RecipeError, Refused, TableError, shown
from framefleet.pipeline.model.lora import Lora, check_loras
from framefleet.pipeline.model.specs.check import check_argument, check_ranges, check_seed, out_of_range
from framefleet.pipeline.model.specs.spec import PipelineSpec, inspect_model
from framefleet.pipeline.recipes.catalog import BUILT_IN
from framefleet.pipeline.recipes.recipe import spec_for
from framefleet.pipeline.rows.tables.limits import limits
from framefleet.pipeline.rows.tables.request_checks import checked
from framefleet.pipeline.rows.tables.row_plan import plan_rows
from framefleet.pipeline.rows.tables.rows import CheckedRow, Finder, InvalidRow
from framefleet.plugins.recipes.extend import num_frames_of
from tests.configs import FLOW, SD, WAN, write_model

DIGITS = "1" * 1_000_000
HUGE = 10**5000  # more digits than Python spells


def row(spec: PipelineSpec, recipe: str = "generate", **cells: Any) -> CheckedRow | InvalidRow:
    table = pa.RecordBatch.from_pydict({name: [cell] for name, cell in ({"prompt": "a"} | cells).items()})
    found = BUILT_IN[recipe]
    (read,) = plan_rows(table.schema, spec_for(found, spec), recipe=found).rows(0, table)
    return read


def problem(spec: PipelineSpec, recipe: str = "generate", **cells: Any) -> str:
    read = row(spec, recipe, **cells)
    assert isinstance(read, InvalidRow), read
    return read.messages()[0][0]


@pytest.mark.parametrize(
    "name", ["height", "width", "num_frames", "num_inference_steps", "max_sequence_length"]
)
def test_what_no_model_renders_is_refused(wan: PipelineSpec, name: str) -> None:
    for value in (32_784, 2**40, 2**62, 2**63 - 16, DIGITS, "1e308", "9" * 4000):
        said = problem(wan, **{name: value})
        assert said.startswith(f"row 0: {name} is ") and len(said) < 300


def test_sides_and_frames_that_are_too_much_together_are_refused(wan: PipelineSpec) -> None:
    said = problem(wan, height=8192, width=8208)
    assert "a picture of 8,192 x 8,208 has more than 67,108,864 pixels" in said
    said = problem(wan, height=4096, width=4096, num_frames=257)
    assert "257 frames of 4,096 x 4,096 have more than" in said
    for fits in ((2160, 3840, 241), (8192, 8192, 1)):
        assert isinstance(
            row(wan, **dict(zip(("height", "width", "num_frames"), fits, strict=True))), CheckedRow
        )


def test_seconds_at_a_rate_are_bounded_before_anything_is_rendered(wan: PipelineSpec) -> None:
    said = problem(wan, "extend", duration_s=60.0, fps=1000.0)
    assert "duration_s is 60.0, but that is 60,000 frames at 1000 fps, more than 3,600" in said
    large = {"height": 2048, "width": 2048}
    assert "3,600 frames of 2,048 x 2,048" in problem(wan, "extend", duration_s=60.0, fps=60.0, **large)
    with pytest.raises(RecipeError, match="more than 3,600"):
        num_frames_of(Request(fps=1000.0), 60)


def test_key_frames_are_bounded(tmp_path: Path) -> None:
    recipe = BUILT_IN["keyframes"]
    spec = inspect_model(write_model(tmp_path, "OpenSoraPipeline", WAN))
    for name in ("num_keyframes", "keyframe_frames", "keyframe_height", "image_steps"):
        assert isinstance(check_argument(name, 2**62, "int", spec), Refused)
    times = {"duration_s": 2.0, "keyframe_times": "1," * 4000 + "1"}
    assert [name for name, _ in recipe.problems(times)] == ["keyframe_times"]


def test_what_a_models_own_defaults_come_to_is_bounded_too(tmp_path: Path) -> None:
    configs = {**SD, "unet": {"sample_size": 10**5}}
    spec = inspect_model(write_model(tmp_path, "StableDiffusionPipeline", configs))
    assert "pixels" in problem(spec)


@pytest.mark.parametrize("value", [float("inf"), float("-inf"), float("nan"), 1e308, -1e308, DIGITS, "1e999"])
def test_numbers_are_finite_and_fp32_holds_them(wan: PipelineSpec, value: Any) -> None:
    for name in ("guidance_scale", "guidance_scale_2", "strength", "frame_rate", "sharpness"):
        assert isinstance(check_argument(name, value, "float", wan), Refused)
        assert check_argument(name, "1.0", "float", wan) == 1.0


def test_whole_numbers_have_64_bits_and_loras_weights_are_those_that_fp16_holds(wan: PipelineSpec) -> None:
    for value in (2**63, -(2**63) - 1, 2**64, DIGITS, "1" * 4000):
        assert isinstance(check_argument("clip_skip", value, "int", wan), Refused)
        assert isinstance(check_seed(value), Refused)
    for weight in ("1e308", "1001", "-1001", DIGITS, "inf"):
        assert isinstance(check_loras(f"style:{weight}", {"style": Lora(path="a")}), Refused)
    assert check_argument("guidance_scale", 5e-324, "float", wan) == 5e-324
    assert check_argument("sharpness", "-3e38", "float", wan) == -3e38


@pytest.mark.parametrize("name", ["height", "num_frames", "num_inference_steps", "seed"])
def test_a_default_is_bounded_as_cells_are(wan: PipelineSpec, name: str) -> None:
    schema = pa.schema({"prompt": pa.string()})
    for value in (2**63 - 16, 2**64, HUGE):
        if (name, value) != ("seed", 2**63 - 16):
            with pytest.raises(JobError, match=rf"defaults\.{name} is "):
                plan_rows(schema, wan, defaults={name: value})


@pytest.mark.parametrize(
    "request_",
    [
        Request(arguments={"prompt": "a", "height": 2**62}),
        Request(arguments={"prompt": "a", "height": HUGE}),
        Request(arguments={"prompt": "a"}, seed=2**64),
        Request(arguments={"prompt": "\ud800"}),
        Request(arguments={"prompt": "a", "guidance_scale": [1.0]}),
        Request(arguments={"prompt": "a", "guidance_scale": {"a": 1}}),
    ],
    ids=range(6),
)
def test_a_request_by_hand_is_bounded_as_rows_are(wan: PipelineSpec, request_: Request) -> None:
    with pytest.raises(TableError):
        checked(request_, wan, BUILT_IN["generate"], finder=Finder())


def test_values_are_shown_on_one_line() -> None:
    assert shown("a" * 100) == "'" + "a" * 79 + "..."
    assert shown(HUGE) == "a whole number of 16,610 bits"


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


LEVELS = {"block_out_channels": [1, 2, 3, 4], "temporal_compression_ratio": 4}
LEARNED = {
    "use_learned_positional_embeddings": True,
    "sample_height": 60,
    "sample_width": 90,
    "patch_size": 2,
}
PICTURE: dict[str, Any] = {"uri": "last.png", "sha256": "0"}


def spec_of(folder: Path, class_name: str, configs: dict[str, Any], **settings: Any) -> PipelineSpec:
    return inspect_model(write_model(folder, class_name, configs, **settings))


def wan(
    folder: Path, *, task: str = "ImageToVideo", index: dict[str, Any] | None = None, **transformer: Any
) -> PipelineSpec:
    configs = WAN | {"transformer": WAN["transformer"] | transformer}
    return spec_of(folder, f"Wan{task}Pipeline", configs, **(index or {}))


def told(spec: PipelineSpec, **arguments: Any) -> list[tuple[str, str, str]]:
    return [(name, refused.reason, refused.fix) for name, refused in limits(spec, arguments)]


def test_text_and_picture_have_the_sizes_that_the_model_learned(tmp_path: Path) -> None:
    learned = {"vae": LEVELS, "transformer": LEARNED, "scheduler": FLOW}
    spec = spec_of(tmp_path / "learned", "CogVideoXImageToVideoPipeline", learned)
    assert told(spec) == told(spec, height=480, width=720) == []
    size = ("width", "the model only learned 480 x 720 pixels", "use 720")
    assert told(spec, height=480, width=1360) == [size]
    flux = spec_of(tmp_path / "flux", "FluxPipeline", {"vae": LEVELS, "transformer": {}, "scheduler": FLOW})
    assert told(flux, max_sequence_length=512) == []
    text = ("max_sequence_length", "the pipeline takes at most 512 tokens", "use 512 or less")
    assert told(flux, max_sequence_length=513) == [text]
    for rotary, expected in ((False, ["use 226"]), (True, [])):
        configs = {"vae": LEVELS, "transformer": {"use_rotary_positional_embeddings": rotary}}
        spec = spec_of(tmp_path / str(rotary), "CogVideoXPipeline", configs | {"scheduler": FLOW})
        assert told(spec, max_sequence_length=226) == []
        assert [fix for _, _, fix in told(spec, max_sequence_length=100)] == expected


def test_beside_an_embedded_picture_the_text_has_one_length(tmp_path: Path) -> None:
    spec = wan(tmp_path / "2.1", image_dim=1280)
    assert told(spec, max_sequence_length=512) == []
    assert told(wan(tmp_path / "2.2"), max_sequence_length=226) == []
    table = pa.RecordBatch.from_pydict({"prompt": ["a"], "tokens": [226]})
    spec = wan(tmp_path / "text", task="", image_dim=1280)
    (row,) = plan_rows(table.schema, spec, columns={"max_sequence_length": "tokens"}).rows(0, table)
    assert isinstance(row, InvalidRow)
    ((problem, fix),) = row.messages()
    assert problem.startswith("row 0: tokens is 226, but with a picture") and "512 tokens as text" in problem
    assert fix == "use 512"


def test_a_last_image_needs_a_model_that_looks_at_it(tmp_path: Path) -> None:
    assert told(wan(tmp_path / "2.2"), last_image=PICTURE) == []
    assert told(wan(tmp_path / "flf", image_dim=1280, pos_embed_seq_len=514), last_image=PICTURE) == []
    for spec in (
        wan(tmp_path / "2.1", image_dim=1280),
        wan(tmp_path / "5b", index={"expand_timesteps": True}),
    ):
        ((name, reason, fix),) = told(spec, last_image=PICTURE)
        assert (name, reason) == ("last_image", "the model starts from a first image only")
        assert "FLF2V" in fix


@pytest.mark.parametrize(("low", "high", "fine"), [(1, 1, True), (1, 3, True), (3, 2, True), (1.5, 1, False)])
def test_guidance_that_is_on_is_on_at_the_maximum(
    tmp_path: Path, low: float, high: float, fine: bool
) -> None:
    spec = spec_of(tmp_path, "StableVideoDiffusionPipeline", SD)
    problems = told(spec, min_guidance_scale=low, max_guidance_scale=high)
    assert [name for name, _, _ in problems] == ([] if fine else ["min_guidance_scale"])


def test_a_strength_that_leaves_no_step_is_refused(tmp_path: Path) -> None:
    spec = wan(tmp_path, task="VideoToVideo")
    assert told(spec, num_inference_steps=2) == []  # with the 0.8 of the signature
    for given in ({"num_inference_steps": 1}, {"num_inference_steps": 4, "strength": 0.2}):
        ((name, reason, _),) = told(spec, **given)
        assert name == "strength"
        assert "leaves none" in reason


def test_a_second_guidance_scale_needs_a_second_transformer(tmp_path: Path) -> None:
    one, two = wan(tmp_path / "2.1", task=""), wan(tmp_path / "2.2", task="", index={"boundary_ratio": 0.9})
    ((name, reason, fix),) = told(one, guidance_scale_2=3.0)
    assert (name, fix) == ("guidance_scale_2", "leave it out")
    assert "one transformer" in reason
    assert told(one) == told(two, guidance_scale_2=3.0) == []
