"""VideoCrafter and DynamiCrafter as pipelines: what their calls promise, and rows in company."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from framefleet import Batching, Inputs, Model, Request, TableError, load_model
from framefleet.pipeline.outputs.frames.frames import frames_sha256, to_frames
from framefleet.plugins.recipes.keyframes import keyframes, refined
from tests.crafter import (
    GATE,
    IMAGE,
    MOTION,
    NO_FPS,
    POSITIONS,
    SMALLEST,
    TEXT,
    crafter,
    mixed_rows,
    picture,
    plain_digest,
)
from tests.unaudited import clips_in_order, unaudited


@cache
def model(variant: str, dtype: Any = "fp32") -> Model:
    return load_model(crafter(variant), dtype=dtype)


def latents(variant: str, seed: int | list[int] = 0, **arguments: Any) -> torch.Tensor:
    pipe = model(variant).pipe
    if variant in (IMAGE, MOTION, GATE):
        arguments.setdefault("image", picture(0))
    seeds = seed if isinstance(seed, list) else [seed]
    generators = [torch.Generator().manual_seed(s) for s in seeds]
    return pipe(
        **{"prompt": "a cat", **SMALLEST, **arguments},
        generator=generators if isinstance(seed, list) else generators[0],
        output_type="latent",
    ).frames


@pytest.mark.parametrize(
    ("variant", "dtype"),
    [
        (POSITIONS, "fp32"),
        (MOTION, "fp32"),
        pytest.param(GATE, "bf16", marks=pytest.mark.long),
        pytest.param(TEXT, "fp32", marks=pytest.mark.long),
        pytest.param(IMAGE, "fp32", marks=pytest.mark.long),
    ],
)
def test_rows_in_company_have_the_frames_of_plain_calls(variant: str, dtype: str, tmp_path: Path) -> None:
    loaded, rows = model(variant, dtype), mixed_rows(variant, tmp_path)
    renderer = unaudited(loaded, Batching(max_rows=4, min_gain=0), inputs=Inputs([str(tmp_path)]))
    clips = clips_in_order(renderer, rows)
    assert mean(clip.batch_size for clip in clips) > 1.3
    for row, clip in zip(rows, clips, strict=True):
        assert clip.frames_sha256 == plain_digest(loaded.pipe, row, tmp_path)


def test_key_frames_and_what_lies_between_come_in_company_as_alone(tmp_path: Path) -> None:
    loaded = model(MOTION)
    picture(1).save(tmp_path / "1.png")
    own = {"duration_s": 1.0, "keyframe_times": "0.4"}
    rows = [
        Request(
            arguments={**SMALLEST, "prompt": "a cat", "image": str(tmp_path / "1.png"), **own},
            seed=seed,
            recipe="keyframes",
        )
        for seed in (1, 2)
    ]
    renderer = unaudited(loaded, inputs=Inputs([str(tmp_path)]))
    for row, clip in zip(rows, clips_in_order(renderer, rows), strict=True):
        arguments = {k: v for k, v in row.arguments.items() if k not in own} | {"image": picture(1)}
        alone = Request(arguments=arguments, seed=row.seed, fps=8)
        frames = keyframes(loaded.pipe, alone, duration_s=1.0, keyframe_times="0.4")
        assert frames.shape == (8, 64, 64, 3)
        assert clip.frames_sha256 == frames_sha256(frames)


def test_key_frames_may_come_from_another_model() -> None:
    loaded, first = model(MOTION), load_model(crafter(TEXT))
    small = {"height": 64, "width": 64, "num_inference_steps": 2}
    own = {"duration_s": 1.0, "num_keyframes": 3, "keyframe_model": "first", "keyframe_frames": 5}
    own |= {"keyframe_height": 64, "keyframe_width": 64, "keyframe_steps": 2}
    given = {**SMALLEST, "prompt": "a cat"}
    rows = [Request(arguments=given | own, seed=seed, recipe="text_to_keyframes_to_video") for seed in (1, 2)]
    renderer = unaudited(loaded, second_models={"first": crafter(TEXT)})
    for row, clip in zip(rows, clips_in_order(renderer, rows), strict=True):
        generator = row.generator()
        arguments = first.spec.defaults() | small | {"num_frames": 5, "prompt": "a cat"}
        coarse = to_frames(first.pipe(**arguments, generator=generator, output_type="np"))
        alone = Request(arguments=given, fps=8)
        film = refined(coarse, loaded.pipe, alone, generator, 1.0, 3, None)
        assert np.array_equal(film[0], coarse[0])
        assert clip.frames_sha256 == frames_sha256(film)


def test_key_frames_come_from_a_model_that_starts_from_text() -> None:
    row = Request(
        arguments={**SMALLEST, "prompt": "a cat", "duration_s": 1.0, "keyframe_model": "image"},
        recipe="text_to_keyframes_to_video",
    )
    with pytest.raises(TableError, match="does not make videos from text alone"):
        list(unaudited(model(MOTION), second_models={"image": crafter(IMAGE)}).render([row]))


# Made by this file: python -m tests.periphery.models.test_crafter
REFERENCES = Path(__file__).parents[2] / "references" / "crafter.safetensors"
# What each stored trajectory was made with; all from seed 3.
CALLS: dict[str, tuple[str, dict[str, Any]]] = {
    "text": (TEXT, {"fps": 28, "num_inference_steps": 3}),
    "text_no_guidance": (TEXT, {"fps": 16, "guidance_scale": 1.0, "eta": 0.0, "num_inference_steps": 3}),
    "positions": (POSITIONS, {"fps": 8, "negative_prompt": "blurry", "num_inference_steps": 3}),
    "image": (IMAGE, {"fps": 8, "num_inference_steps": 3}),
    "motion": (MOTION, {"fps": 15, "num_inference_steps": 3}),
    "motion_between": (MOTION, {"last_image": picture(1), "image_guidance_scale": 3.0}),
    "gate": (GATE, {"fps": 2, "num_inference_steps": 3}),
}


@pytest.mark.parametrize("name", list(CALLS))
def test_a_call_gives_the_latents_it_always_gave(name: str) -> None:
    variant, arguments = CALLS[name]
    found, stored = latents(variant, 3, **arguments), load_file(REFERENCES)[name]
    assert float((found - stored).abs().max() / stored.abs().max()) < 1e-4


@pytest.mark.parametrize("variant", [TEXT, IMAGE, MOTION])
def test_a_clip_does_not_depend_on_the_others_of_its_call(variant: str) -> None:
    together = latents(variant, [1, 2], prompt=["a cat", "rain"], negative_prompt="blurry", fps=[8, 24])
    for row, (seed, prompt, fps) in enumerate([(1, "a cat", 8), (2, "rain", 24)]):
        alone = latents(variant, seed, prompt=prompt, negative_prompt="blurry", fps=fps)
        torch.testing.assert_close(together[row : row + 1], alone, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    "arguments",
    [{"fps": 15}, {"image_guidance_scale": 3.0}, {"guidance_rescale": 0.0}, {"eta": 0.0}],
    ids=lambda arguments: next(iter(arguments)),
)
def test_an_argument_changes_the_clip(arguments: dict[str, Any]) -> None:
    assert not torch.allclose(latents(MOTION), latents(MOTION, **arguments))


def test_guidance_of_one_or_less_is_off() -> None:
    assert torch.equal(latents(TEXT, guidance_scale=1.0), latents(TEXT, guidance_scale=0.5))


def test_a_callback_sees_and_changes_every_step() -> None:
    seen = []

    def halve(pipe: Any, step: int, t: torch.Tensor, tensors: dict[str, Any]) -> dict[str, Any]:
        seen.append((step, int(t), pipe.num_timesteps))
        return {"latents": tensors["latents"] * 0}

    found = latents(TEXT, eta=0.0, callback_on_step_end=halve)
    assert seen == [(0, 501, 2), (1, 1, 2)]
    assert not found.any()


@pytest.mark.parametrize(
    ("variant", "arguments", "problem"),
    [
        (TEXT, {"height": 72}, "give a multiple of 16"),
        (TEXT, {"eta": 2.0}, "from 0 to 1"),
        (TEXT, {"fps": [8, 24]}, "is a list of 2"),
        (TEXT, {"fps": [0]}, "`fps` is 0"),
        (TEXT, {"num_inference_steps": 0}, "use 1 to 1000"),
        (TEXT, {"prompt": None}, "either `prompt` or `prompt_embeds`"),
        (TEXT, {"latents": torch.zeros(1, 4, 1, 8, 8)}, "has shape"),
        (TEXT, {"callback_on_step_end_tensor_inputs": ("x",)}, "callback_on_step_end_tensor_inputs"),
        (MOTION, {"num_frames": 4}, "this model renders 3"),
        (MOTION, {"num_frames": 0}, "1 frame or more"),
        (MOTION, {"guidance_rescale": 1.5}, "`guidance_rescale` is 1.5: it must be from 0 to 1"),
        (MOTION, {"image": [picture(0), picture(1)]}, "has a batch of 2"),
        (NO_FPS, {"fps": 8}, "not conditioned on it"),
    ],
)
def test_what_cannot_be_rendered_is_refused(variant: str, arguments: dict[str, Any], problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        latents(variant, **arguments)


@pytest.mark.parametrize(
    ("variant", "cells", "problem"),
    [
        (MOTION, {"num_frames": 16}, "DynamiCrafter only renders 3 frames"),
        (TEXT, {"height": 80}, "VideoCrafter renders multiples of 64"),
        (TEXT, {"scheduler": "ddim"}, "its denoising loop only works with its own scheduler"),
        (TEXT, {"num_inference_steps": 1001}, "takes 1 to 1000 steps"),
        (NO_FPS, {"fps": 8}, "this model takes no frame rate"),
        (TEXT, {"fps": 10**12}, "fps is 1000000000000, but it must be from 1 to 1000"),
        (MOTION, {"guidance_rescale": -0.5}, "guidance_rescale is -0.5, but it must be from 0 to 1"),
    ],
)
def test_a_row_that_cannot_be_rendered_is_refused_before(
    variant: str, cells: dict[str, Any], problem: str, tmp_path: Path
) -> None:
    if variant == MOTION:
        picture(1).save(tmp_path / "1.png")
        cells["image"] = str(tmp_path / "1.png")
    scheduler = cells.pop("scheduler", None)
    row = Request(arguments={"prompt": "a cat", **SMALLEST, **cells}, scheduler=scheduler)
    with pytest.raises(TableError, match=problem):
        list(unaudited(model(variant)).render([row]))


def test_tiles_are_as_large_as_the_autoencoder_was_trained_with() -> None:
    vae = model(TEXT).pipe.vae
    assert vae.tile_sample_min_size == 256


if __name__ == "__main__":
    save_file({name: latents(variant, 3, **given) for name, (variant, given) in CALLS.items()}, REFERENCES)
