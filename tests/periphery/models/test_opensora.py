"""Open-Sora's pipeline through the renderer: rows of all kinds share forwards and keep their bits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from framefleet import Clip, Request, TableError, load_model
from framefleet.pipeline.outputs.frames.frames import frames_sha256, to_frames
from framefleet.pipeline.rows.inputs.pictures import open_image, open_video
from framefleet.plugins.ports.opensora.pipeline_opensora import OpenSoraPipeline
from tests.media_files import image_file, video_file
from tests.mixed import DTYPES
from tests.tiny import SMALLEST, tiny
from tests.unaudited import unaudited

UNGUIDED = {"oscillate_text_guidance": False, "ramp_image_guidance": False}


@pytest.fixture(scope="module")
def media(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("media")
    (folder / "a.png").write_bytes(image_file())
    (folder / "b.png").write_bytes(image_file("png", "L"))
    (folder / "long.mp4").write_bytes(video_file(num_frames=33))
    (folder / "short.mp4").write_bytes(video_file(num_frames=6))
    return folder


def rows(name: str, media: Path) -> list[Request]:
    first, last, video = (str(media / file) for file in ("a.png", "b.png", "long.mp4"))
    frames = 37 if name == "opensora" else 36
    kinds: list[dict[str, Any]] = [
        {"guidance_scale": 1.0},
        {"num_inference_steps": 12, "guidance_scale": 5.0},
        {"negative_prompt": "rain", **UNGUIDED},
        {"flow_shift": 3.0, "frame_rate": 12, "motion_score": 7},
        {"image": first},
        {"image": first, "image_guidance_scale": 1.0},
        {"last_image": last, "num_inference_steps": 3},
        {"image": first, "last_image": last, "num_inference_steps": 12},
        {"image": first, "condition_type": "i2v_loop", **UNGUIDED},
        {"image": last, "condition_type": "i2v_tail"},
        {"video": video, "num_frames": frames},
        {"video": video, "num_frames": frames, "condition_type": "v2v_tail", "guidance_scale": 2.0},
    ]
    prompts = ("a red ball", "海. 30 FPS.")
    if name == "opensora_dc":  # an image at each end leaves three frames less
        left = {1: 5, 2: 2}
        for kind in kinds:
            ends = (
                2 if kind.get("condition_type") == "i2v_loop" else ("image" in kind) + ("last_image" in kind)
            )
            kind |= {"num_frames": left[ends]} if ends else {}
        kinds = [*kinds[1::3], kinds[8], *kinds[-2:]]
    return [
        Request(arguments={**SMALLEST[name], "prompt": prompts[seed % 2], **kind}, seed=seed)
        for seed, kind in enumerate(kinds)
    ]


def opened(arguments: dict[str, Any]) -> dict[str, Any]:
    """Return what a plain script hands to the pipeline."""
    found = dict(arguments)
    for name in ("image", "last_image"):
        if name in found:
            found[name] = open_image(Path(found[name]).read_bytes())
    if "video" in found:
        found["video"] = open_video(Path(found["video"]).read_bytes(), max_frames=33)
    return found


@pytest.mark.parametrize(
    ("name", "dtype"),
    [
        ("opensora", "bf16"),
        ("opensora_dc", "fp32"),
        *(
            pytest.param(*case, marks=pytest.mark.long)
            for case in (("opensora", "fp32"), ("opensora_dc", "bf16"))
        ),
    ],
)
def test_mixed_rows_share_forwards_and_keep_the_bits_of_plain_calls(
    name: str, dtype: str, media: Path
) -> None:
    requests = rows(name, media)
    clips = list(unaudited(load_model(tiny(name), dtype=dtype)).render(requests))
    assert all(isinstance(clip, Clip) for clip in clips), clips
    assert max(clip.batch_size for clip in clips) > 2  # type: ignore[union-attr]
    found = {clip.request.seed: clip.frames_sha256 for clip in clips}  # type: ignore[union-attr]
    assert len(set(found.values())) == len(requests)
    pipe = OpenSoraPipeline.from_pretrained(tiny(name), dtype=DTYPES[dtype])
    for request in requests:
        arguments = opened(dict(request.arguments))
        output = pipe(**arguments, generator=request.generator(), output_type="np")
        frames = to_frames(output)
        assert len(frames) == request.arguments["num_frames"]
        assert frames_sha256(frames) == found[request.seed], request.arguments


def test_each_row_of_a_batch_is_the_clip_of_its_own_call(media: Path) -> None:
    pipe = OpenSoraPipeline.from_pretrained(tiny("opensora"))
    images = [Image.open(media / file).convert("RGB") for file in ("a.png", "b.png")]
    common = {**SMALLEST["opensora"], "output_type": "pt"}
    together = pipe(
        prompt=["a ball", "海"],
        image=images,
        generator=[torch.Generator().manual_seed(seed) for seed in (1, 2)],
        **common,
    ).frames
    for row, prompt in enumerate(("a ball", "海")):
        generator = torch.Generator().manual_seed(row + 1)
        alone = pipe(prompt=prompt, image=images[row], generator=generator, **common).frames
        torch.testing.assert_close(together[row], alone[0], rtol=1e-4, atol=1e-5)


def test_given_frames_come_back_at_their_ends(media: Path) -> None:
    pipe = OpenSoraPipeline.from_pretrained(tiny("opensora"))
    image = Image.open(media / "a.png")
    latents = pipe(
        prompt="a ball",
        image=image,
        condition_type="i2v_loop",
        generator=torch.Generator().manual_seed(0),
        **SMALLEST["opensora"] | {"num_frames": 9, "output_type": "latent"},
    ).frames
    generator = torch.Generator().manual_seed(0)
    torch.randn(latents.shape, generator=generator)  # the noise is drawn first
    ends = [pipe.encode_frames([image], 32, 32, generator) for _ in range(2)]
    assert torch.equal(latents[:, :, :1], ends[0]) and torch.equal(latents[:, :, -1:], ends[1])


@pytest.mark.parametrize(
    ("given", "num_frames", "kept"),
    [
        ({"image": "a.png"}, 5, slice(3, None)),
        ({"last_image": "b.png"}, 5, slice(None, -3)),
        ({"image": "a.png", "condition_type": "i2v_loop"}, 2, slice(3, -3)),
        ({}, 8, slice(None)),
    ],
)
def test_frames_that_an_image_is_decoded_to_again_are_dropped(
    given: dict[str, str], num_frames: int, kept: slice, media: Path
) -> None:
    """The video DC-AE makes four equal frames of an image; the authors leave all but one out."""
    pipe = OpenSoraPipeline.from_pretrained(tiny("opensora_dc"))
    given = {name: Image.open(media / v) if name.endswith("image") else v for name, v in given.items()}  # type: ignore[misc]
    arguments = {**SMALLEST["opensora_dc"], "prompt": "a ball", "num_frames": num_frames, **given}
    latents, frames = (
        pipe(**arguments, generator=torch.Generator().manual_seed(0), output_type=kind).frames
        for kind in ("latent", "pt")
    )
    with torch.no_grad():
        whole = pipe.vae.decode(latents).sample
    assert whole.shape[2] == 8 and frames.shape[1] == num_frames
    assert torch.equal(frames, pipe.video_processor.postprocess_video(whole[:, :, kept], output_type="pt"))


def test_frames_of_a_video_are_not_put_back(media: Path) -> None:
    """As by the authors, who put images back only."""
    pipe = OpenSoraPipeline.from_pretrained(tiny("opensora"))
    last: list[torch.Tensor] = []

    def keep(pipe: Any, step: int, t: Any, tensors: dict[str, Any]) -> dict[str, Any]:
        last.append(tensors["latents"])
        return {}

    for condition, put_back in (("v2v_head", False), ("v2v_tail", False), ("i2v_head", True)):
        latents = pipe(
            prompt="a ball",
            image=Image.open(media / "a.png") if put_back else None,
            video=None if put_back else open_video((media / "long.mp4").read_bytes(), max_frames=33),
            condition_type=condition,
            callback_on_step_end=keep,
            **SMALLEST["opensora"] | {"num_frames": 37, "output_type": "latent"},
        ).frames
        assert torch.equal(latents, last[-1]) != put_back


def test_recipes_that_add_images_render_with_the_frames_that_are_left(media: Path) -> None:
    model = load_model(tiny("opensora_dc"), dtype="fp32")
    given = {**SMALLEST["opensora_dc"], "prompt": "a ball", "duration_s": 1.0}
    requests = [
        Request(arguments=given, recipe="extend", fps=10),
        Request(
            arguments={**given, "image": str(media / "a.png"), "num_frames": 9}, recipe="keyframes", fps=10
        ),
    ]
    clips = list(unaudited(model).render(requests))
    assert all(isinstance(clip, Clip) and len(clip.frames) == 10 for clip in clips), clips


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ({"height": 40}, "multiples of 16 but are 40 and 32"),
        ({"num_frames": 8}, "has to be 4k \\+ 1 but is 8"),
        ({"num_frames": 133}, "at most 129"),
        ({"video": [], "num_frames": 37}, "takes 33 of the frames of `video`, which has 0"),
        ({"image": [], "prompt": ["a", "b"]}, "`image` holds 0, the prompts are 2"),
        ({"prompt": None}, "give `prompt`, or both"),
        ({"width": None}, "give both `height` and `width`"),
        ({"num_inference_steps": 0}, "`num_inference_steps` is 0: it must be from 1 to 10,000"),
        ({"motion_score": -3}, "`motion_score` is -3: it must be from 1 to 15"),
        ({"frame_rate": 0}, "`frame_rate` is 0: it must be from 1 to 1000"),
        ({"flow_shift": 1e-9}, "`flow_shift` is 1e-09"),
        ({"latents": torch.zeros(1)}, "`latents` have to be of shape"),
        ({"callback_on_step_end_tensor_inputs": ["noise"]}, "has no noise"),
    ],
)
def test_a_plain_call_refuses_what_cannot_be_rendered(arguments: dict[str, Any], problem: str) -> None:
    pipe = OpenSoraPipeline.from_pretrained(tiny("opensora"))
    with pytest.raises(ValueError, match=problem):
        pipe(**{**SMALLEST["opensora"], "prompt": "a ball", **arguments})


def test_the_callback_may_change_the_latents_and_stop_the_run() -> None:
    pipe = OpenSoraPipeline.from_pretrained(tiny("opensora"))
    steps: list[int] = []

    def stop(pipe: Any, step: int, t: Any, tensors: dict[str, Any]) -> dict[str, Any]:
        steps.append(step)
        pipe._interrupt = True
        return {"latents": torch.ones_like(tensors["latents"])}

    arguments = {**SMALLEST["opensora"], "num_inference_steps": 5, "output_type": "latent"}
    latents = pipe("a ball", callback_on_step_end=stop, **arguments).frames
    assert steps == [0] and torch.equal(latents, torch.ones_like(latents))


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ({"condition_type": "i2v"}, "has to be one of t2v, i2v_head"),
        ({"condition_type": "v2v_head", "image": "a.png"}, "needs `video`"),
        ({"video": "short.mp4", "num_frames": 37}, "v2v_head takes 33 of its frames, and it has 6"),
        ({"video": "long.mp4"}, "num_frames is 5, but with v2v_head it must be at least 33"),
        ({"aspect_ratio": "5:1", "height": None, "width": None}, "has to be one of 16:9"),
        ({"resolution": "256px"}, "the row gives height or width too"),
        (
            {"image": "a.png", "video": "long.mp4", "num_frames": 37},
            "condition_type is empty, but .* which counts",
        ),
        ({"condition_type": "i2v_head", "last_image": "a.png"}, "'i2v_head' needs `image`"),
        ({"flow_shift": 0.0}, "flow_shift is 0.0, but it must be from 0.001 to 1000"),
        ({"motion_score": -3}, "motion_score is -3, but it must be from 1 to 15"),
        ({"frame_rate": 100_000}, "frame_rate is 100000, but it must be from 1 to 1000"),
        ({"num_frames": 133}, "OpenSora renders at most 129 frames"),
        ({"num_frames": 8}, "OpenSora renders 4k \\+ 1 frames"),
        ({"height": 40}, "OpenSora renders multiples of 16"),
    ],
)
def test_rows_that_cannot_be_rendered_are_refused_before(
    arguments: dict[str, Any], problem: str, media: Path
) -> None:
    for name in ("image", "last_image", "video"):
        if name in arguments:
            arguments[name] = str(media / arguments[name])
    model = load_model(tiny("opensora"))
    request = Request(arguments={**SMALLEST["opensora"], "prompt": "a ball", **arguments})
    with pytest.raises(TableError, match=problem):
        list(unaudited(model).render([request]))


def test_video_to_video_renders_as_many_frames_as_the_row_asks_for(media: Path) -> None:
    arguments = {
        **SMALLEST["opensora"],
        "prompt": "a ball",
        "video": str(media / "long.mp4"),
        "num_frames": 37,
    }
    rows = [Request(arguments=arguments, seed=1, recipe=name) for name in ("video_to_video", "generate")]
    clips = list(unaudited(load_model(tiny("opensora"), dtype="fp32")).render(rows))
    assert all(isinstance(clip, Clip) and len(clip.frames) == 37 for clip in clips), clips
    assert len({clip.frames_sha256 for clip in clips}) == 1  # type: ignore[union-attr]


def test_options_are_checked_against_our_autoencoder() -> None:
    assert load_model(tiny("opensora_dc"), vae_tiling=True).pipe.vae.use_tiling
