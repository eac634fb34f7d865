"""Whatever a recipe returns is kept: frames, sound, and all else; or it is refused by its name."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from diffusers.pipelines.deprecated.stable_diffusion_ldm3d.pipeline_stable_diffusion_ldm3d import (
    LDM3DPipelineOutput,
)
from diffusers.pipelines.ltx2.pipeline_output import LTX2DFRPipelineOutput
from diffusers.pipelines.marigold.pipeline_marigold_depth import MarigoldDepthOutput
from diffusers.pipelines.marigold.pipeline_marigold_normals import MarigoldNormalsOutput
from diffusers.pipelines.stable_diffusion.pipeline_output import StableDiffusionPipelineOutput
from PIL import Image
from safetensors.torch import load

from framefleet.pipeline.errors import RenderError
from framefleet.pipeline.model.specs.pipeline_call import fields_returned
from framefleet.pipeline.outputs.frames.result import Extras, Rendered, to_extras, to_rendered

FRAMES = np.random.default_rng(0).random((1, 3, 8, 8, 3), dtype=np.float32)
SOUND = torch.zeros(1, 2, 400)
PIPE = SimpleNamespace(components={"vocoder": SimpleNamespace(config=SimpleNamespace(sampling_rate=8000))})


def rendered(output: Any) -> Rendered:
    return to_rendered(output, PIPE)


def test_all_fields_of_an_output_are_kept() -> None:
    keyframes = torch.ones(1, 2, dtype=torch.bfloat16)
    more: dict[str, Any] = {"keyframes": keyframes, "keyframe_positions": [0, 2]}
    found = rendered(LTX2DFRPipelineOutput(frames=FRAMES, audio=SOUND, **more))
    assert found.frames is not None and found.frames.shape == (3, 8, 8, 3)
    assert found.audio is not None and found.audio.sample_rate == 8000
    assert found.extras.json() == '{"keyframe_positions":[0,2]}'
    kept = load(found.extras.file() or b"")
    assert list(kept) == ["keyframes"]
    assert kept["keyframes"].dtype == torch.bfloat16


def test_small_values_are_told_in_json() -> None:
    found = rendered(StableDiffusionPipelineOutput(images=FRAMES[0, :1], nsfw_content_detected=[False]))
    assert found.extras.json() == '{"nsfw_content_detected":[false]}'
    nothing = rendered(StableDiffusionPipelineOutput(images=FRAMES[0, :1], nsfw_content_detected=None))
    assert (nothing.audio, nothing.extras.json(), nothing.extras.file()) == (None, None, None)


def test_colours_with_depth_are_frames_and_an_array() -> None:
    depth = np.linspace(0, 1, 64, dtype=np.float32).reshape(1, 8, 8, 1)
    found = rendered(LDM3DPipelineOutput(rgb=FRAMES[0, :1], depth=depth, nsfw_content_detected=[False]))
    assert found.frames is not None
    assert np.array_equal(found.frames, (FRAMES[0, :1] * 255).round().astype(np.uint8))
    kept = load(found.extras.file() or b"")
    assert list(kept) == ["depth"]
    assert np.array_equal(kept["depth"].numpy(), depth)


DEPTH = np.random.default_rng(1).random((2, 4, 8, 1), dtype=np.float32)
NORMALS = np.random.default_rng(1).random((1, 4, 8, 3), dtype=np.float32) * 2 - 1


@pytest.mark.parametrize(
    ("output", "shown"),
    [
        (MarigoldDepthOutput(prediction=DEPTH, uncertainty=None, latent=None), DEPTH[:1].repeat(3, axis=-1)),
        (MarigoldNormalsOutput(prediction=NORMALS, uncertainty=None, latent=None), (NORMALS + 1) / 2),
        ({"normals": torch.from_numpy(NORMALS).permute(0, 3, 1, 2)}, (NORMALS + 1) / 2),
        ({"depth": DEPTH[0, :, :, 0]}, DEPTH[:1].repeat(3, axis=-1)),
        ({"depth": [torch.from_numpy(DEPTH[:1, :, :, 0])]}, DEPTH[:1].repeat(3, axis=-1)),
        ({"depth": Image.fromarray(np.full((4, 8), 0x8080, np.uint16))}, np.full((1, 4, 8, 3), 128 / 255)),
    ],
)
def test_a_map_of_a_picture_is_shown_and_kept_as_it_is(output: Any, shown: Any) -> None:
    found = rendered(output)
    assert found.frames is not None
    assert np.array_equal(found.frames, (shown * 255).round().astype(np.uint8))
    kept = load(found.extras.file() or b"")
    ((name, value),) = dict(output).items()
    if isinstance(value, np.ndarray):
        assert np.array_equal(kept[name].numpy(), value)
    assert {key.partition(".")[0] for key in kept} == {name}


def test_a_map_whose_values_are_no_picture_is_kept_for_hdr_or_refused() -> None:
    found = rendered({"depth": DEPTH * 100})  # in metres
    assert found.frames is not None and found.frames.dtype == np.float32
    with pytest.raises(RenderError, match="NaN"):
        _ = rendered({"depth": DEPTH * np.nan}).frames
    with pytest.raises(RenderError, match="of shape"):
        _ = rendered({"prediction": np.zeros((1, 4, 8, 2), np.float32)}).frames


@pytest.mark.parametrize("name", ["video", "image", "images", "frames", "rgb"])
def test_pictures_go_by_several_names(name: str) -> None:
    found = rendered({name: FRAMES[:, :1]})
    assert found.frames is not None and found.frames.shape == (1, 8, 8, 3)


def test_a_recipe_may_say_the_rate_of_its_sound() -> None:
    found = rendered(SimpleNamespace(frames=FRAMES, audio=SOUND, sample_rate=16_000))
    assert found.audio is not None and found.audio.sample_rate == 16_000
    assert found.extras.json() is None


def test_layers_of_one_image_are_no_batch_of_images() -> None:
    layers = np.zeros((4, 8, 8, 4), np.float32)
    found = rendered({"images": [layers]})
    assert found.frames is not None and found.frames.shape == (4, 8, 8, 4)
    with pytest.raises(RenderError, match="batch of 4 clips"):
        rendered({"images": layers})


def test_frames_beyond_one_stay_as_they_are() -> None:
    found = rendered({"frames": FRAMES * 3 - 0.5})
    assert found.frames is not None and found.frames.dtype == np.float32
    assert np.array_equal(found.frames, (FRAMES * 3 - 0.5)[0])


def test_an_output_without_frames_and_sound_is_refused() -> None:
    with pytest.raises(RenderError, match="returned embeds, latent: neither frames nor sound"):
        rendered({"embeds": FRAMES, "latent": SOUND, "uncertainty": None})


def test_arrays_are_kept_as_they_are_whatever_they_lie_in() -> None:
    shared = torch.arange(6.0).reshape(2, 3)
    extras = to_extras(
        {
            "camera": np.eye(4, dtype=np.float64),
            "views": [shared, shared.T],
            "maps": {"depth": np.float32(2), "mask": Image.new("L", (4, 2), 7)},
            "said": "一只猫",
            "scores": {"a": [1, 2.5, True, None]},
            "odd": [float("nan"), 1.0],
            "nothing": None,
        }
    )
    kept = load(extras.file() or b"")
    assert sorted(kept) == ["camera", "maps.depth", "maps.mask", "odd.0", "odd.1", "views.0", "views.1"]
    assert torch.equal(kept["views.1"], shared.T)
    assert kept["maps.mask"].shape == (2, 4)
    assert json.loads(extras.json() or "") == {"said": "一只猫", "scores": {"a": [1, 2.5, True, None]}}


@pytest.mark.parametrize(
    "fields",
    [
        {"a": {"b": torch.ones(1)}, "a.b": torch.zeros(1)},
        {"a.0": torch.ones(1), "a": [torch.zeros(1)]},
        {"a": {1: torch.ones(1), "1": torch.zeros(1)}},
    ],
    ids=str,
)
def test_two_arrays_with_one_name_are_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(RenderError, match=r"two outputs .* the same name: 'a\.[b01]'"):
        to_extras(fields)


def test_half_a_character_in_a_text_or_a_name_is_kept() -> None:
    values = {"said": "half \ud83d", "\udfff": ["猫"]}
    extras = to_extras({**values, "map \ud800": torch.ones(1)})
    text = extras.json() or ""
    assert "猫" in text and json.loads(text.encode()) == values
    assert list(load(extras.file() or b"")) == [r"map \ud800"]


def test_equal_arrays_are_equal_files() -> None:
    files = [Extras(arrays={"b": torch.ones(2), "a": torch.zeros(3)[:2]}).file() for _ in range(2)]
    assert files[0] == files[1]


@pytest.mark.parametrize(
    "value", [object(), [object()], torch.zeros(2, dtype=torch.complex64), {1: "x"}, b"x"]
)
def test_what_cannot_be_kept_is_refused_by_its_name(value: Any) -> None:
    with pytest.raises(RenderError, match="the recipe returned extra") as caught:
        to_extras({"extra": value})
    assert caught.value.fix


def test_texts_are_bounded() -> None:
    with pytest.raises(RenderError, match="the other outputs of this row, text, have more than"):
        to_extras({"text": "x" * 300_000})


@pytest.mark.parametrize(
    ("name", "fields"),
    [
        ("LTX2Pipeline", {"frames", "audio"}),
        ("Cosmos3OmniPipeline", {"video", "sound", "action"}),
        ("StableAudioPipeline", {"audios"}),
        ("ErnieImagePipeline", {"images", "revised_prompts"}),
        ("Kandinsky5T2IPipeline", {"image"}),
        ("MarigoldDepthPipeline", {"prediction", "uncertainty", "latent"}),
        ("KandinskyCombinedPipeline", set()),  # it returns what another pipeline does
    ],
)
def test_what_a_class_returns_is_known_before_it_is_called(name: str, fields: set[str]) -> None:
    assert fields_returned(getattr(diffusers, name)) == fields
