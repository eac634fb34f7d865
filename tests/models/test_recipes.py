"""Recipes of more than one call: rows in company equal rows alone, and both equal plain diffusers."""

from __future__ import annotations

import copy
import functools
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from PIL import Image

from framefleet import Clip, Model, Request
from framefleet.pipeline.outputs.frames.frames import Frames, to_frames
from framefleet.pipeline.outputs.media.media import encode
from framefleet.pipeline.outputs.media.media_settings import Media
from framefleet.pipeline.recipes.catalog import BUILT_IN
from tests.tiny import SMALLEST
from tests.unaudited import clips_in_order, loaded, unaudited

PROMPTS = ("a red ball", "一只绿色的猫在雨中奔跑")
FPS = 4.0
NUM_ROWS = 3
LARGER: dict[str, Any] = {"height": 32, "width": 32}
_folder = tempfile.TemporaryDirectory(prefix="framefleet-recipes-")


@functools.cache
def _noise(num_frames: int, seed: int) -> Frames:
    draw = np.random.default_rng(seed)
    return draw.integers(0, 256, (num_frames, 24, 40, 3), dtype=np.uint8)


def _picture(seed: int) -> str:
    path = Path(_folder.name, f"1-{seed}.png")
    Image.fromarray(_noise(1, seed)[0]).save(path)
    return str(path)


def _video(seed: int, num_frames: int) -> str:
    path = Path(_folder.name, f"{num_frames}-{seed}.mkv")
    path.write_bytes(encode(_noise(num_frames, seed), media=Media(format="mkv"), fps=FPS, metadata={}))
    return str(path)


def _opened(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments as a plain script gives them: with what was drawn in place of the files."""
    opened = dict(arguments)
    for name in {"image", "video"} & set(arguments):
        images = _images(_noise(*map(int, Path(arguments[name]).stem.split("-"))))
        opened[name] = images if name == "video" else images[0]
    return opened


# By recipe and tiny model: the arguments of row `seed` beside a prompt, steps, a size and a guidance scale.
CASES: dict[tuple[str, str], Any] = {
    ("image_to_video", "wan_i2v"): lambda seed: {"image": _picture(seed)},
    ("image_to_video", "wan_i2v_moe"): lambda seed: {"image": _picture(seed)},
    ("image_to_video", "wan_ti2v"): lambda seed: {"image": _picture(seed)},
    ("image_to_video", "cogvideox_i2v"): lambda seed: {"image": _picture(seed)},
    ("image_to_video", "ltx"): lambda seed: {"image": _picture(seed)},
    ("image_to_video", "svd"): lambda seed: {"image": _picture(seed)},
    ("video_to_video", "wan"): lambda seed: {"video": _video(seed, 9), "strength": (1.0, 0.8)[seed % 2]},
    ("video_to_video", "cogvideox"): lambda seed: {"video": _video(seed, 9), "strength": 0.8},
    ("video_to_video", "cogvideox_1_5"): lambda seed: {"video": _video(seed, 8), "strength": 0.8},
    ("video_to_video", "animatediff"): lambda seed: {"video": _video(seed, 4), "strength": 0.8},
    ("refine", "wan"): lambda seed: LARGER | {"strength": (0.5, 0.8)[seed % 2]},
    ("refine", "cogvideox"): lambda seed: LARGER,
    ("refine", "animatediff"): lambda seed: LARGER,
    ("refine", "sd"): lambda seed: LARGER | {"levels": 1 + (not seed)},
    ("refine", "sdxl"): lambda seed: LARGER,
    ("refine", "sd3"): lambda seed: LARGER,
    ("refine", "flux"): lambda seed: LARGER,
    ("extend", "wan"): lambda seed: {"duration_s": (2.0, 3.5)[seed % 2], "overlap": 1 + seed % 2},
    ("extend", "wan_ti2v"): lambda seed: {"duration_s": 2.5},
    ("extend", "wan_i2v"): lambda seed: {"duration_s": 2.5, "image": _picture(seed)},
    ("extend", "cogvideox"): lambda seed: {"duration_s": 3.0, "overlap": 3},
    ("extend", "animatediff"): lambda seed: {"duration_s": 2.0},
    ("extend", "ltx"): lambda seed: {"duration_s": 4.0},
    ("extend", "hunyuan"): lambda seed: {"duration_s": 2.0},
}
# A sibling of each kind: from an image, over a video, of images, from a frame, from several, from none.
SHORT = (
    *(("image_to_video", "ltx"), ("image_to_video", "svd"), ("video_to_video", "cogvideox")),
    *(("refine", "wan"), ("refine", "sd"), ("extend", "wan"), ("extend", "wan_ti2v"), ("extend", "hunyuan")),
)


def _request(recipe: str, name: str, seed: int, **more: Any) -> Request:
    arguments = SMALLEST[name] | {"prompt": PROMPTS[seed % 2], "guidance_scale": 4.0 if seed else 1.0}
    arguments |= {"num_inference_steps": 3} | CASES[recipe, name](seed) | more
    if recipe == "video_to_video" and name != "wan":
        arguments.pop("num_frames", None)
    if name == "svd":
        del arguments["prompt"], arguments["guidance_scale"]
    return Request(arguments=arguments, seed=seed, recipe=recipe, fps=FPS if recipe == "extend" else None)


def _rendered(model: Model, rows: list[Request]) -> list[Clip]:
    return clips_in_order(unaudited(model), rows)


def _alone(model: Model, row: Request) -> Frames:
    opened = replace(row, arguments=_opened(row.arguments))
    return to_frames(BUILT_IN[row.recipe].render(copy.copy(model.pipe), opened))


# Each recipe in both dtypes, of one model in one of them.
@pytest.mark.parametrize(
    ("recipe", "name", "dtype"),
    [
        pytest.param(*case, ("fp32", "bf16")[place % 2], marks=() if case in SHORT else pytest.mark.long)
        for place, case in enumerate(CASES)
    ],
)
def test_rows_that_share_forwards_equal_rows_rendered_alone(recipe: str, name: str, dtype: str) -> None:
    model = loaded(name, dtype)
    rows = [_request(recipe, name, seed) for seed in range(NUM_ROWS)]
    clips = _rendered(model, rows)
    for clip, row in zip(clips, rows, strict=True):
        assert np.array_equal(clip.frames, _alone(model, row))
    assert len({clip.frames_sha256 for clip in clips}) == NUM_ROWS
    if name != "animatediff":  # its calls carry the prompt once for each frame, so only equal prompts share
        assert max(clip.batch_size for clip in clips) > 1


def test_rows_of_several_recipes_share_one_model() -> None:
    model = loaded("wan", "fp32")
    recipes = ("refine", "extend", "video_to_video", "refine")
    rows = [_request(recipe, "wan", seed) for seed, recipe in enumerate(recipes)]
    rows.append(Request(arguments=SMALLEST["wan"] | {"prompt": "海"}, seed=9))
    for clip, row in zip(_rendered(model, rows), rows, strict=True):
        assert np.array_equal(clip.frames, _alone(model, row))


@pytest.mark.parametrize("name", ["wan", "sdxl"])
def test_a_sibling_leaves_nothing_on_the_components(name: str) -> None:
    model = loaded(name, "bf16")
    modules = [part for part in model.pipe.components.values() if isinstance(part, torch.nn.Module)]

    def state() -> list[Any]:
        tensors = [value for module in modules for value in module.state_dict().values()]
        return [(value.dtype, value.sum(dtype=torch.float64).item()) for value in tensors]

    _rendered(model, [_request("refine", name, 0)])  # diffusers' modules note things in their first call
    before, scheduler = state(), model.pipe.scheduler
    attributes = [sorted(vars(part)) for module in modules for part in module.modules()]
    _rendered(model, [_request("refine", name, seed) for seed in range(2)])
    assert state() == before
    assert [sorted(vars(part)) for module in modules for part in module.modules()] == attributes
    assert model.pipe.scheduler is scheduler


# --- what plain scripts render -----------------------------------------------------------------------------


def _plain(name: str, row: Request, *left_out: str) -> tuple[Any, dict[str, Any]]:
    """Return the pipeline, and what its calls in a script are given. left_out: of the recipe alone."""
    given = {key: value for key, value in _opened(row.arguments).items() if key not in left_out}
    generator = torch.Generator("cpu").manual_seed(row.seed)
    return loaded(name, "fp32").pipe, given | {"generator": generator, "output_type": "np"}


def _uint8(output: Any) -> Frames:
    frames = output.frames[0] if hasattr(output, "frames") else output.images
    return (frames * 255).round().astype(np.uint8)


def _images(frames: Frames, size: tuple[int, int] | None = None) -> list[Image.Image]:
    images = [Image.fromarray(frame) for frame in frames]
    return [image.resize(size, Image.Resampling.LANCZOS) for image in images] if size else images


def _is_rendered(name: str, row: Request, frames: Frames) -> bool:
    return np.array_equal(frames, _rendered(loaded(name, "fp32"), [row])[0].frames)


def _video_to_video(pipe: Any) -> Any:
    parts = {name: part for name, part in pipe.components.items() if name != "transformer_2"}
    return diffusers.WanVideoToVideoPipeline(**parts)


def test_refine_is_a_small_render_and_a_video_to_video_call_over_it() -> None:
    row = _request("refine", "wan", 3, strength=0.6)
    pipe, given = _plain("wan", row, "num_frames", "strength")
    small = pipe(**given | {"height": 16, "width": 16}, num_frames=5)
    again = _video_to_video(pipe)(**given, video=_images(_uint8(small), (32, 32)), strength=0.6)
    assert _is_rendered("wan", row, _uint8(again))


def test_refine_of_an_image_is_image_to_image_at_every_level() -> None:
    row = _request("refine", "sd", 3, levels=2, strength=0.7, height=64, width=32)
    pipe, given = _plain("sd", row, "levels", "strength", "height", "width")
    larger = diffusers.StableDiffusionImg2ImgPipeline(**pipe.components, requires_safety_checker=False)
    frames = _uint8(pipe(**given, height=16, width=8))
    for size in ((16, 32), (32, 64)):
        frames = _uint8(larger(**given, image=_images(frames, size)[0], strength=0.7))
    assert _is_rendered("sd", row, frames)


def test_image_to_video_is_one_call_of_the_image_sibling() -> None:
    row = _request("image_to_video", "ltx", 2)
    pipe, given = _plain("ltx", row)
    starting = diffusers.LTXImageToVideoPipeline(**pipe.components)
    assert _is_rendered("ltx", row, _uint8(starting(**given)))


def test_video_to_video_takes_the_first_frames_of_the_video() -> None:
    row = _request("video_to_video", "wan", 2)
    pipe, given = _plain("wan", row, "num_frames")
    frames = _uint8(_video_to_video(pipe)(**given | {"video": given["video"][:5]}))
    assert len(frames) == 5 and _is_rendered("wan", row, frames)


def test_extend_starts_every_segment_with_the_last_frame_where_the_model_takes_an_image() -> None:
    row = _request("extend", "wan_ti2v", 3)
    pipe, given = _plain("wan_ti2v", row, "duration_s")
    parts = dict(pipe.components, image_encoder=None, image_processor=None)
    starting = diffusers.WanImageToVideoPipeline(**parts, expand_timesteps=True)
    film = _uint8(pipe(**given))
    for _ in range(2):
        following = _uint8(starting(**given, image=Image.fromarray(film[-1])))
        film = np.concatenate([film, following[1:]])
    assert _is_rendered("wan_ti2v", row, film[:10])


def test_extend_renders_over_the_last_frames_and_fades_where_the_model_takes_a_video() -> None:
    row = _request("extend", "cogvideox", 2)
    pipe, given = _plain("cogvideox", row, "duration_s", "overlap")
    first = _uint8(pipe(**given))
    over = diffusers.CogVideoXVideoToVideoPipeline(**pipe.components)
    video = _images(np.concatenate([first[-3:], np.repeat(first[-1:], 6, axis=0)]))
    del given["num_frames"]
    second = _uint8(over(**given, video=video, strength=0.8))
    film = np.concatenate([first, second[3:]])
    film[6:9] = [np.round(first[6 + i] * (1 - w) + second[i] * w) for i, w in enumerate((0.25, 0.5, 0.75))]
    assert _is_rendered("cogvideox", row, film[:12])


def test_extend_renders_independent_segments_where_the_model_takes_neither() -> None:
    row = _request("extend", "hunyuan", 2, overlap=0)
    pipe, given = _plain("hunyuan", row, "duration_s", "overlap")
    assert _is_rendered("hunyuan", row, np.concatenate([_uint8(pipe(**given)) for _ in range(2)])[:8])
