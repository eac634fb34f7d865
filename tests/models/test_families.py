"""What families hold. A new one needs a line in TINIES, no more."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import diffusers
import pytest
from PIL import Image

from framefleet import Request
from framefleet.jobs.keep.replay.replay import replay
from framefleet.jobs.keep.replay.script import replay_script
from framefleet.pipeline.errors import Refused, TableError
from framefleet.pipeline.model.families.family import Family, Preset
from framefleet.pipeline.model.families.registry import FAMILIES, PRESETS, family_of
from framefleet.pipeline.model.registry import PIPELINES, class_named, object_at, own_class
from framefleet.pipeline.model.specs.check import check_argument
from framefleet.pipeline.model.specs.signature import FRAME_PARAMETERS
from framefleet.pipeline.model.specs.spec import PipelineSpec, inspect_model, spec_of
from framefleet.pipeline.outputs.frames.frames import Frames, to_frames
from framefleet.pipeline.recipes.recipe import BUILT_IN
from framefleet.pipeline.request import MAX_FPS, MIN_FPS
from framefleet.pipeline.rows.tables.request_checks import checked
from tests import crafter
from tests.here import render_here
from tests.jobs import job_values, write_table
from tests.long import long_but
from tests.mixed import SIZES
from tests.pictures import write_starts
from tests.tiny import tiny
from tests.unit.test_written_request import Anything

PROMPTS = ("a red ball", "一只绿色的猫在雨中奔跑", *3 * ("a red ball",))


@dataclass(frozen=True, kw_only=True)
class Tiny:
    """A tiny model of a family. call: its smallest. max_rows: in a forward."""

    build: Callable[[], Path]
    call: Mapping[str, Any]
    guidance: str = "guidance_scale"
    max_rows: int = 4
    options: Mapping[str, Any] = field(default_factory=dict)  # of the model


def _tiny(name: str, **more: Any) -> Tiny:
    return Tiny(build=partial(tiny, name), call=SIZES[name], **more)


def _crafter(variant: str) -> Tiny:
    return Tiny(build=partial(crafter.crafter, variant), call=crafter.SMALLEST)


# By the family's prefix.
TINIES = {
    "Wan": _tiny("wan"),
    "CogVideoX": _tiny("cogvideox"),
    "LTX": _tiny("ltx"),
    "HunyuanVideo": _tiny("hunyuan"),
    "HunyuanVideo15": _tiny("hunyuan_1_5", guidance=""),  # its guider has it
    "SkyReelsV2": _tiny("skyreels"),
    "Kandinsky5": _tiny("kandinsky"),
    "Kandinsky6": _tiny("kandinsky_6"),
    "Cosmos3": _tiny("cosmos3"),
    "SanaVideo": _tiny("sana_video"),
    "SanaImageToVideo": _tiny("sana_video_i2v"),
    "Helios": _tiny("helios"),
    "Mochi": _tiny("mochi"),
    "LTX2": _tiny("ltx2"),
    "Allegro": _tiny("allegro", options={"vae_tiling": True}),
    "AnyFlow": _tiny("anyflow"),
    "OpenSora": _tiny("opensora"),
    "AnimateDiff": _tiny("animatediff", max_rows=1),  # prompts come once for each frame, and join no others
    "StableVideoDiffusion": _tiny("svd", guidance="max_guidance_scale"),
    "VideoCrafter": _crafter(crafter.TEXT),
    "DynamiCrafter": _crafter(crafter.MOTION),
    "StableDiffusion3": _tiny("sd3"),
    "Flux": _tiny("flux"),
    "StableDiffusion": _tiny("sd"),
    "Flux2": _tiny("flux2"),
    "Flux2Klein": _tiny("flux2_klein"),
    "QwenImage": _tiny("qwen_image"),
    "QwenImage21": _tiny("qwen_2_1"),
    "HunyuanImage": _tiny("hunyuan_image"),
    "HiDream": _tiny("hidream"),
    "GlmImage": _tiny("glm_image"),
    "ErnieImage": _tiny("ernie"),
    "ZImage": _tiny("z_image"),
    "Krea2": _tiny("krea2"),
    "Chroma": _tiny("chroma"),
    "SanaPipeline": _tiny("sana"),
    "SanaSprint": _tiny("sana_sprint"),
    "Lumina2": _tiny("lumina2"),
    "PixArt": _tiny("pixart_sigma"),
    "AuraFlow": _tiny("aura_flow"),
    "LatentConsistencyModel": _tiny("lcm"),
}
# Of rules for frames, images and sizes one of each kind; a new family is rendered by `make test-long`.
SHORT = ("Wan", "CogVideoX", "LTX", "StableVideoDiffusion", "VideoCrafter", "StableDiffusion", "Flux")


@dataclass(frozen=True, kw_only=True)
class Rendered:
    """Rows of a family that were rendered in company. row_ids: in the order in which they were done."""

    spec: PipelineSpec
    model: Path
    folder: Path
    rows: list[dict[str, Any]]
    output: str
    row_ids: list[str]

    @property
    def from_image(self) -> bool:
        return "image" in self.rows[0]


RENDERED = [family for family in FAMILIES if family.prefix in TINIES]
assert len(RENDERED) == len(TINIES)


@pytest.fixture(
    scope="module",
    params=long_but(RENDERED, *(family for family in RENDERED if family.prefix in SHORT)),
    ids=lambda family: family.prefix,
)
def rendered(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Rendered:
    family: Family = request.param
    tiny, folder = TINIES[family.prefix], tmp_path_factory.mktemp("family")
    model = tiny.build()
    spec = inspect_model(model)
    assert spec.family is family
    rows = list(rows_of(tiny, spec, write_starts(folder, num_frames=1)))
    values = job_values(write_table(folder / "t.parquet", rows), folder / "out")
    values |= {"model": {"path": str(model), "dtype": "fp32", **tiny.options}, "defaults": {}}
    values["batching"]["max_rows"] = tiny.max_rows
    values["media"] = {"format": "mkv"}  # which holds sound of any rate
    output, row_ids = render_here(values, least=max)
    return Rendered(spec=spec, model=model, folder=folder, rows=rows, output=output, row_ids=row_ids)


def rows_of(tiny: Tiny, spec: PipelineSpec, pictures: list[str]) -> Iterator[dict[str, Any]]:
    """Yield rows that differ in all but their size."""
    required = {name for name, parameter in spec.parameters.items() if parameter.required}
    for seed, prompt in enumerate(PROMPTS):
        row = {**tiny.call, "seed": seed} | ({tiny.guidance: 3.0 + seed} if tiny.guidance else {})
        row |= {"num_inference_steps": 4} if "num_inference_steps" in row else {}  # trials take the first two
        row |= {"prompt": prompt} if "prompt" in spec.parameters else {}
        yield row | ({"image": pictures[seed % len(pictures)]} if "image" in required else {})


def plain_call(pipe: Any, row: Mapping[str, Any], folder: Path) -> Frames:
    """Return what a script without framefleet renders."""
    given = {name: value for name, value in row.items() if name != "seed"}
    if "image" in given:
        given["image"] = Image.open(folder / given["image"]).convert("RGB")
    request = Request(arguments={}, seed=row["seed"])
    return to_frames(pipe(**given, generator=request.generator(), output_type="np"))


def plain_pipe(rendered: Rendered) -> Any:
    pipe = class_named(rendered.spec.class_name).from_pretrained(rendered.model)
    pipe.set_progress_bar_config(disable=True)
    if "vae_tiling" in TINIES[rendered.spec.family.prefix].options:
        pipe.vae.enable_tiling()
    return pipe


@pytest.mark.daily(2)
def test_a_row_is_rendered_again_by_a_script_or_where_it_starts_from_a_file_by_replay(
    rendered: Rendered, capsys: pytest.CaptureFixture[str]
) -> None:
    if rendered.from_image:
        assert replay(rendered.output, rendered.row_ids[0]).is_equal
        return
    exec(compile(replay_script(rendered.output, rendered.row_ids[0]), "again.py", "exec"), {})
    assert capsys.readouterr().out.startswith("the same frames: ")


def other_values(spec: PipelineSpec, call: Mapping[str, Any]) -> Iterator[tuple[str, int]]:
    """Yield other values of one argument each; the pipeline refuses some, and rounds some without a word."""
    for name in ("height", "width"):
        yield from ((name, call[name] + more) for more in (1, spec.size_multiple // 2, spec.size_multiple))
    for name in FRAME_PARAMETERS:
        if name in call:
            yield from ((name, call[name] + more) for more in (1, 2, spec.frame_step or 3))
    yield from ((name, 0) for name in ("height", "num_inference_steps"))
    if spec.max_text:
        yield from (("max_sequence_length", spec.max_text + more) for more in (0, 1))


def is_refused(spec: PipelineSpec, row: Mapping[str, Any], name: str) -> bool:
    request = Request(arguments={key: cell for key, cell in row.items() if key != "seed"})
    try:
        checked(request, spec, BUILT_IN["generate"], finder=Anything())
    except TableError as error:
        assert f"{name} is {row[name]}, but " in error.problem
        return True
    return False


@pytest.mark.daily(4)
def test_what_is_not_refused_before_the_pipeline_renders_as_it_was_asked(rendered: Rendered) -> None:
    spec, pipe, row = rendered.spec, plain_pipe(rendered), rendered.rows[0]
    refused = set()
    for name, value in other_values(spec, row):
        if is_refused(spec, row | {name: value}, name):
            refused.add((name, value))
            continue
        frames = plain_call(pipe, row | {name: value}, rendered.folder)
        sizes = dict(zip(("num_frames", "height", "width"), frames.shape, strict=False))
        assert sizes.get(name, value) == value
    assert {("height", 0), ("height", row["height"] + 1), ("num_inference_steps", 0)} <= refused


@pytest.mark.parametrize(
    ("preset", "class_name"),
    [pytest.param(p, name, id=f"{p.name}-{name}") for p in PRESETS for name in p.pipelines],
)
def test_a_preset_is_recognised_and_its_pipelines_render_what_it_says(
    preset: Preset, class_name: str
) -> None:
    configs = inspect_model(TINIES[family_of(class_name).prefix].build()).configs
    own = {name: {**configs.get(name, {}), **values} for name, values in preset.match.items()}
    spec = spec_of(class_name, {**configs, **own})
    assert spec.preset == preset
    assert spec.kind == ("video" if preset.fps else "image")
    assert spec.native_fps == preset.fps
    assert preset.fps is None or MIN_FPS <= preset.fps <= MAX_FPS
    settable = spec.settable()
    for name, value in preset.arguments.items():
        if name not in ("num_frames", "guidance_scale_2"):  # which not every sibling takes
            assert name in settable
        if name in settable and not (name == "num_frames" and spec.only_frames):  # the tiny model's own
            kind = settable[name].kind
            assert kind
            found = check_argument(name, value, kind, spec)  # type: ignore[arg-type]
            assert not isinstance(found, Refused), found
            assert (found, type(found)) == (value, type(value))
            assert spec.defaults()[name] == value


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.prefix)
def test_a_family_says_only_what_its_pipelines_know(family: Family) -> None:
    classes = {*family.training, *family.whole_when, *family.pipelines}
    classes |= {name for sibling in family.siblings for name in (sibling.source, sibling.target)}
    for class_name in classes:
        assert family_of(class_name) is family
        assert class_named(class_name)
    assert any(name.startswith(family.prefix) for name in (*PIPELINES, *dir(diffusers)))
    assert all(own_class(name) for name in family.components)
    places = (family.row_rules, family.converter, *(how.inputs for how in family.training.values()))
    assert all(callable(object_at(place)) for place in places if place)
