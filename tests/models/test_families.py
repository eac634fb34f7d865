"""What families hold. A new one needs a word for TINIES, no more."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
from PIL import Image

from framefleet import Request
from framefleet.pipeline.errors import Refused, TableError
from framefleet.pipeline.model.families.family import Family, Preset
from framefleet.pipeline.model.families.registry import FAMILIES, PRESETS, family_of
from framefleet.pipeline.model.registry import PIPELINES, class_named, object_at, own_class
from framefleet.pipeline.model.specs.check import check_argument
from framefleet.pipeline.model.specs.signature import FRAME_PARAMETERS
from framefleet.pipeline.model.specs.spec import PipelineSpec, inspect_model, spec_of
from framefleet.pipeline.outputs.frames.frames import to_frames
from framefleet.pipeline.recipes.catalog import BUILT_IN
from framefleet.pipeline.request import MAX_FPS, MIN_FPS
from framefleet.pipeline.rows.tables.request_checks import checked
from tests import crafter
from tests.long import long_but
from tests.mixed import SIZES
from tests.pictures import write_starts
from tests.tiny import tiny
from tests.unit.test_rows import Anything

Tiny = tuple[Callable[[], Path], Mapping[str, Any]]  # builds it, and its smallest call


def _tiny(word: str) -> tuple[str, Tiny]:
    prefix, _, name = word.partition("=")
    return prefix, (partial(tiny, name), SIZES[name])


def _crafter(variant: str) -> Tiny:
    return partial(crafter.crafter, variant), crafter.SMALLEST


# A tiny model of each family, by the family's prefix.
WORDS = """
    Wan=wan CogVideoX=cogvideox LTX=ltx HunyuanVideo=hunyuan HunyuanVideo15=hunyuan_1_5
    SkyReelsV2=skyreels Kandinsky5=kandinsky Kandinsky6=kandinsky_6 Cosmos3=cosmos3 SanaVideo=sana_video
    SanaImageToVideo=sana_video_i2v Helios=helios Mochi=mochi LTX2=ltx2 Allegro=allegro AnyFlow=anyflow
    OpenSora=opensora AnimateDiff=animatediff StableVideoDiffusion=svd StableDiffusion3=sd3 Flux=flux
    StableDiffusion=sd Flux2=flux2 Flux2Klein=flux2_klein QwenImage=qwen_image QwenImage21=qwen_2_1
    HunyuanImage=hunyuan_image HiDream=hidream GlmImage=glm_image ErnieImage=ernie ZImage=z_image
    Krea2=krea2 Chroma=chroma SanaPipeline=sana SanaSprint=sana_sprint Lumina2=lumina2
    PixArt=pixart_sigma AuraFlow=aura_flow LatentConsistencyModel=lcm
    Cosmos=cosmos_t2w Cosmos2=cosmos2_v2w Cosmos2TextToImage=cosmos2_t2i Cosmos2_5=cosmos25_predict
    Cosmos2_5_Transfer=cosmos25_transfer
"""
TINIES = dict(map(_tiny, WORDS.split()))
TINIES |= {"VideoCrafter": _crafter(crafter.TEXT), "DynamiCrafter": _crafter(crafter.MOTION)}
# Of rules for frames, images and sizes one of each kind; a new family is rendered by `make test-long`.
SHORT = ("Wan", "CogVideoX", "LTX", "StableVideoDiffusion", "VideoCrafter", "StableDiffusion", "Flux")
RENDERED = [family for family in FAMILIES if family.prefix in TINIES]
assert len(RENDERED) == len(TINIES)


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
    try:
        checked(Request(arguments=row), spec, BUILT_IN["generate"], finder=Anything())
    except TableError as error:
        assert f"{name} is {row[name]}, but " in error.problem
        return True
    return False


@pytest.mark.parametrize(
    "family",
    long_but(RENDERED, *(family for family in RENDERED if family.prefix in SHORT)),
    ids=lambda family: family.prefix,
)
def test_what_is_not_refused_before_the_pipeline_renders_as_it_was_asked(
    family: Family, tmp_path: Path
) -> None:
    build, call = TINIES[family.prefix]
    spec = inspect_model(build())
    assert spec.family is family
    pipe = class_named(spec.class_name).from_pretrained(build())
    if family.prefix == "Allegro":  # whose autoencoder decodes tiles alone
        pipe.vae.enable_tiling()
    picture = Image.open(tmp_path / write_starts(tmp_path, num_frames=1)[0]).convert("RGB")
    own = {"prompt": "a red ball", "image": picture}
    needed = {name for name, parameter in spec.parameters.items() if parameter.required} | {"prompt"}
    row = {name: value for name, value in own.items() if name in needed & spec.parameters.keys()}
    row |= call
    refused = set()
    for name, value in other_values(spec, row):
        changed = row | {name: value}
        if is_refused(spec, changed | ({"image": "a.png"} if "image" in row else {}), name):
            refused.add((name, value))
            continue
        output = pipe(**changed, generator=torch.Generator().manual_seed(0), output_type="np")
        sizes = dict(zip(("num_frames", "height", "width"), to_frames(output).shape, strict=False))
        assert sizes.get(name, value) == value
    assert {("height", 0), ("height", row["height"] + 1), ("num_inference_steps", 0)} <= refused


@pytest.mark.parametrize(
    ("preset", "class_name"),
    [pytest.param(p, name, id=f"{p.name}-{name}") for p in PRESETS for name in p.pipelines],
)
def test_a_preset_is_recognised_and_its_pipelines_render_what_it_says(
    preset: Preset, class_name: str
) -> None:
    configs = inspect_model(TINIES[family_of(class_name).prefix][0]()).configs
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
