"""Open-Sora's sampling by numbers: sizes, prompts, noise levels, guidance, given frames, tiles, rows."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given, settings, strategies as st

from framefleet.plugins.latent_tokens import pack_latents, positions, unpack_latents
from framefleet.plugins.ports.opensora.autoencoder_dc_video import Axis, tiled
from framefleet.plugins.ports.opensora.conditions import (
    ASPECT_RATIOS,
    CONDITIONS,
    RESOLUTIONS,
    Packing,
    condition_of,
    named_size,
    place,
    row_rules,
)
from framefleet.plugins.ports.opensora.denoise import TwoScales

SPEC: Any = SimpleNamespace(size_multiple=16, frame_rest=1, frame_step=4)
DC_SPEC: Any = SimpleNamespace(size_multiple=32, frame_rest=0, frame_step=4)
CAUSAL, ALIKE = Packing(ratio=4, is_causal=True), Packing(ratio=4, is_causal=False)


@pytest.mark.parametrize("aspect_ratio", ASPECT_RATIOS)
@pytest.mark.parametrize("resolution", RESOLUTIONS)
def test_a_named_size_keeps_about_the_pixels_and_the_shape(resolution: str, aspect_ratio: str) -> None:
    wide, high = (float(side) for side in aspect_ratio.split(":"))
    height, width = named_size(resolution, aspect_ratio, multiple=16)
    assert height % 16 == width % 16 == 0
    assert 0.9 < height * width / RESOLUTIONS[resolution] <= 1
    assert width / height == pytest.approx(wide / high, rel=0.13)
    assert named_size(resolution, ":".join(aspect_ratio.split(":")[::-1]), multiple=16) == (width, height)


def guidance(**changed: Any) -> TwoScales:
    values: dict[str, Any] = dict.fromkeys(("text_oscillates", "image_oscillates", "image_ramps"), True)
    return TwoScales(**{**values, "text": 7.5, "image": 3.0, "num_steps": 50, **changed})


def test_image_guidance_rises_over_the_frames_and_falls_over_the_steps() -> None:
    latents = torch.zeros(1, 4, 5, 2, 2)
    first, later = (guidance().image_scales(step, latents) for step in (0, 40))
    assert torch.equal(torch.as_tensor(first).flatten(), torch.linspace(1, 3, 5))
    assert float(torch.as_tensor(later)[-1]) == pytest.approx(3 - 2 * 40 / 50)
    assert guidance().image_scales(11, latents) == 1.0
    assert guidance(image_ramps=False).image_scales(0, latents) == 3.0


@pytest.mark.parametrize(
    ("names", "found"),
    [
        ((), "t2v"),
        (("image",), "i2v_head"),
        (("last_image",), "i2v_tail"),
        (("image", "last_image"), "i2v_loop"),
        (("video",), "v2v_head"),
    ],
)
def test_what_is_given_says_the_condition(names: tuple[str, ...], found: str) -> None:
    given = [name if name in names else None for name in ("image", "last_image", "video")]
    assert condition_of(None, *given, packing=CAUSAL).name == found


def numbers(name: str, packing: Packing) -> list[int]:
    """Return the numbers of frames that can be rendered."""
    condition = condition_of(name, "a.png", None, "a.mp4", packing=packing)
    return [n for n in range(-5, 140) if condition.broken_rule(n) is None]


def test_frames_are_those_that_come_out() -> None:
    assert numbers("t2v", CAUSAL) == numbers("i2v_head", CAUSAL) == list(range(1, 130, 4))
    assert numbers("i2v_loop", CAUSAL) == list(range(5, 130, 4))
    assert numbers("v2v_head", CAUSAL) == list(range(33, 130, 4))
    assert numbers("t2v", ALIKE) == [1, *range(8, 129, 4)]  # one latent frame is decoded as an image
    assert numbers("i2v_head", ALIKE) == numbers("i2v_tail", ALIKE) == list(range(5, 126, 4))
    assert numbers("i2v_loop", ALIKE) == list(range(2, 123, 4))
    assert numbers("v2v_tail", ALIKE) == list(range(32, 129, 4))


@given(name=st.sampled_from(list(CONDITIONS)), is_causal=st.booleans(), frames=st.integers(-9, 200))
def test_a_fix_names_numbers_that_can_be_rendered(name: str, is_causal: bool, frames: int) -> None:
    packing = CAUSAL if is_causal else ALIKE
    broken = condition_of(name, "a.png", None, "a.mp4", packing=packing).broken_rule(frames)
    if broken:
        fixes = {int(word) for word in broken[1].split() if word.isdecimal()}
        assert fixes and fixes <= set(numbers(name, packing))


@pytest.mark.parametrize(
    ("name", "asked", "left"),
    [
        *(("i2v_head", 8, 5), ("i2v_tail", 128, 125), ("i2v_loop", 8, 2), ("i2v_loop", 125, 122)),
        *(("i2v_head", 5, 5), ("t2v", 8, 8), ("t2v", 5, 5), ("i2v_loop", 6, 6), ("v2v_head", 36, 36)),
    ],
)
def test_what_counts_dropped_frames_too_is_lowered(name: str, asked: int, left: int) -> None:
    condition = condition_of(name, "a.png", None, "a.mp4", packing=ALIKE)
    assert condition.fitted(asked) == left


def test_a_row_that_says_no_number_of_frames_gets_those_left_with_its_images() -> None:
    image = {"uri": "a.png", "sha256": "0"}
    defaults = {"num_frames": 128, "condition_type": None}
    assert row_rules(defaults, set(), DC_SPEC) == (defaults, [])
    assert row_rules(defaults | {"image": image}, {"image"}, DC_SPEC)[0]["num_frames"] == 125
    both = defaults | {"image": image, "last_image": image}
    assert row_rules(both, {"image", "last_image"}, DC_SPEC)[0]["num_frames"] == 122
    assert row_rules(defaults | {"image_model": "flux"}, set(), DC_SPEC)[0]["num_frames"] == 125
    ((column, refused),) = row_rules(defaults | {"image": image}, {"image", "num_frames"}, DC_SPEC)[1]
    assert (column, refused.fix) == ("num_frames", "use 125 or less")


def test_given_frames_stand_at_their_ends_and_the_mask_says_so() -> None:
    latents = torch.zeros(1, 2, 5, 1, 1)
    mask, reference = place(torch.full((1, 2, 1, 1, 1), 3.0), torch.full((1, 2, 2, 1, 1), 4.0), latents)
    assert mask.flatten().tolist() == [1, 0, 0, 1, 1]
    assert reference[0, 1].flatten().tolist() == [3, 0, 0, 4, 4]


@given(
    patch=st.sampled_from([1, 2]), frames=st.integers(1, 3), high=st.integers(1, 3), wide=st.integers(1, 3)
)
def test_tokens_unpack_to_the_latents(patch: int, frames: int, high: int, wide: int) -> None:
    shape = torch.Size((2, 3, frames, high * patch, wide * patch))
    latents = torch.arange(math.prod(shape)).reshape(shape)
    tokens = pack_latents(latents, patch)
    assert tokens.shape == (2, frames * high * wide, 3 * patch**2)
    assert torch.equal(unpack_latents(tokens, patch, shape), latents)
    assert positions(shape, patch, latents.device)[-1].tolist() == [frames - 1, high - 1, wide - 1]


@settings(deadline=None)
@given(length=st.integers(1, 60), stride=st.integers(1, 12), overlap=st.integers(0, 6))
def test_tiles_put_together_are_the_whole(length: int, stride: int, overlap: int) -> None:
    sample = torch.arange(2.0 * length).reshape(1, 1, length, 2)
    axis = Axis(dim=2, size=stride + overlap, stride=stride)
    torch.testing.assert_close(tiled(lambda tile: 2 * tile, sample, [axis]), 2 * sample)


def test_tiles_of_another_length_fit_together_too() -> None:
    sample = torch.rand(1, 1, 25, 20)
    axes = [Axis(dim=2, size=8, stride=6, num=4), Axis(dim=3, size=8, stride=6, num=2)]
    grown = tiled(lambda tile: tile.repeat_interleave(4, 2).repeat_interleave(2, 3), sample, axes)
    torch.testing.assert_close(grown[:, :, ::4, ::2], sample)


def test_a_row_s_own_size_goes_before_the_job_s() -> None:
    job = {"height": 192, "width": 336, "resolution": "768px"}
    named, _ = row_rules(job, set(), SPEC)
    assert named == {"height": 576, "width": 1024}
    named, _ = row_rules(job | {"aspect_ratio": "9:16"}, {"aspect_ratio"}, SPEC)
    assert named == {"height": 1024, "width": 576}
    measured, _ = row_rules(job | {"height": 256}, {"height"}, SPEC)
    assert measured == {"height": 256, "width": 336}
    _, refused = row_rules(job, {"height", "resolution"}, SPEC)
    assert [name for name, _ in refused] == ["resolution"]


@pytest.mark.parametrize("name", [name for name in CONDITIONS if name.startswith("v2v")])
def test_a_video_may_be_longer_than_the_frames_taken_and_the_clip_too(name: str) -> None:
    frames = 65 if name.endswith("easy") else 33
    arguments = {"condition_type": name, "num_frames": 129, "video": {"uri": "v", "num_frames": frames}}
    assert row_rules(arguments, set(), SPEC)[1] == []
    arguments["video"] = {"uri": "v", "num_frames": frames - 1}
    assert [column for column, _ in row_rules(arguments, set(), SPEC)[1]] == ["video"]
