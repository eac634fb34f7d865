"""A clip's file says how it was made, as much as its job wants, in a text that other tools read and keep."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import av
import numpy as np
import pytest
from PIL import Image

import framefleet
from framefleet.api.clips import Request, decode, encode, read_metadata
from framefleet.pipeline.outputs.encode_clip import encode_clip
from framefleet.pipeline.outputs.frames.frames import to_pixels
from framefleet.pipeline.outputs.media.media_settings import COMMENT, SOUNDS, Embed, Media, MediaFormat
from framefleet.plugins.metadata.a1111 import split_text
from framefleet.plugins.metadata.reading import told_by
from tests.gallery_output import clip_of, write_output
from tests.unit.test_encode_clip import SOUND
from tests.unit.test_metadata import PROMPTS

ARGUMENTS: Mapping[str, Any] = {
    "prompt": "a red ball, on a hill:\n“low” 🐈",
    "negative_prompt": "blurry",
    "prompt_2": "a ball",
    "num_inference_steps": 30,
    "guidance_scale": 6.5,
    "eta": 0.5,
    "image": {"uri": "/home/me/private.png", "sha256": "0" * 64},
    "lora": {"ink": {"sha256": "0a1b" * 16, "weight": 0.8}},
}
REQUEST = Request(arguments=ARGUMENTS, seed=7, scheduler="dpmpp_2m_sde_karras(lower_order_final=False)")
CLIP = replace(clip_of(5, {}, seed=7), request=REQUEST, model="https://a:b@hub/org/Wan2.1/?token=secret")
FIELDS = {
    "Steps": "30",
    "Sampler": "DPM++ 2M SDE",
    "Schedule type": "Karras",
    "CFG scale": "6.5",
    "Seed": "7",
    "Size": "64x48",
    "Model hash": "0" * 10,
    "Model": "Wan2.1",
    "Lora hashes": "ink: 0a1b0a1b0a1b",
    "Version": f"framefleet {framefleet.__version__}",
}


def encoded(format: MediaFormat, embed: Embed = "full") -> bytes:
    clip = CLIP
    if format == "png":
        clip = replace(CLIP, pixels=to_pixels(np.asarray(CLIP.frames)[:1]))
    if format in SOUNDS:
        clip = replace(CLIP, pixels=None, audio=SOUND)
    return encode_clip(clip, Media(format=format, embed=embed)).content


@pytest.mark.parametrize("format", get_args(MediaFormat))
def test_each_format_has_the_text_and_files_without_it_say_nothing_of_the_prompt(format: MediaFormat) -> None:
    full = encoded(format)
    assert full == encoded(format)
    prompt, negative, fields = split_text(read_metadata(full)[COMMENT])
    assert (prompt, negative) == (ARGUMENTS["prompt"], "blurry")
    row = json.loads(fields.pop("framefleet"))
    if format in SOUNDS:
        fields |= {"Size": "64x48"}
    assert fields == FIELDS
    assert row["row_id"] == CLIP.row_id and row["inputs"] == ["image"]
    assert row["arguments"] == {"prompt_2": "a ball", "eta": 0.5, "lora": {"ink": 0.8}} | {
        name: ARGUMENTS[name] for name in ("num_inference_steps", "guidance_scale")
    }
    assert b"private.png" not in full and b"secret" not in full
    tags = read_metadata(encoded(format, "tags"))
    assert tags.keys() == {"row_id", "prompt", "seed", "model_digest", "framefleet"}  # as version 0.1.0 wrote
    assert read_metadata(encoded(format, "id")) == {
        "row_id": CLIP.row_id,
        COMMENT: json.dumps({"row_id": CLIP.row_id}, separators=(",", ":")),
    }
    assert read_metadata(encoded(format, "none")) == {}
    for embed in ("id", "none"):
        content = encoded(format, embed)
        assert not any(text.encode(code) in content for text in ("red ball", "blurry") for code in CODES)


CODES = ("utf-8", "utf-16-le", "utf-16-be")


@pytest.mark.parametrize("prompt", PROMPTS)
def test_every_prompt_is_read_back_as_it_was(prompt: str) -> None:
    arguments = {"prompt": prompt, "negative_prompt": prompt, "height": 48, "width": 64}
    pixels = to_pixels(np.asarray(CLIP.frames)[:1])
    clip = replace(CLIP, request=Request(arguments=arguments, seed=3), pixels=pixels)
    cells = told_by(encode_clip(clip, Media(format="png")).content).cells
    assert (cells["prompt"], cells["negative_prompt"], cells["seed"]) == (prompt, prompt, 3)


def test_all_that_a_row_says_in_numbers_and_prompts_is_read_back() -> None:
    arguments = {
        **{"prompt": "a ball", "prompt_2": "a hill", "num_inference_steps": 4, "height": 96, "eta": 0.5},
        **{"sigmas": [1.0, 0.75, 1e-05], "use_resolution_binning": False},
        "guidance_scale": "interval(7.5, 0.1, 1e-05)",
        "image": {"uri": "a.png", "sha256": "0" * 64},
    }
    request = Request(
        arguments=arguments, seed=3, scheduler="unipc(flow_shift=5.0)", recipe="refine", fps=12.5
    )
    cells = told_by(encode_clip(replace(CLIP, request=request), Media()).content).cells
    values = {name: value for name, value in arguments.items() if name not in ("image", "sigmas")}
    asked = {"seed": 3, "scheduler": request.scheduler, "recipe": "refine", "fps": 12.5}
    assert cells == values | asked | {"sigmas": "[1.0, 0.75, 1e-05]"}


def remuxed(content: bytes, format: str) -> bytes:
    """Return the same packets in another container, as `ffmpeg -c copy` writes them, with its metadata."""
    out = io.BytesIO()
    with av.open(io.BytesIO(content)) as source, av.open(out, "w", format=format) as target:
        target.metadata.update(source.metadata)
        stream = target.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(source.streams.video[0]):
            if packet.dts is not None:
                packet.stream = stream
                target.mux(packet)
    return out.getvalue()


def as_jpeg(content: bytes) -> bytes:
    with Image.open(io.BytesIO(content)) as image:
        image.convert("RGB").save(out := io.BytesIO(), "JPEG", exif=image.getexif())
    return out.getvalue()


def as_png(content: bytes) -> bytes:
    """Return a png with what editors keep: its `parameters`."""
    tags = read_metadata(content)
    return encode(decode(content), media=Media(format="png"), fps=1, metadata={COMMENT: tags[COMMENT]})


def again(content: bytes) -> bytes:
    kept = {COMMENT: read_metadata(content)[COMMENT]}
    return encode(decode(content), media=Media(crf=40), fps=8, metadata=kept)


@pytest.mark.parametrize("embed", ["full", "id"])
def test_a_copy_is_traced_by_its_text(embed: Embed, tmp_path: Path) -> None:
    prompt = 'its file says {"row_id":"' + "f" * 32 + '"}'
    write_output(tmp_path / "out", [{"prompt": prompt, "seed": 1}])
    clip = clip_of(0, {"prompt": prompt}, seed=1)
    video, webm = (encode_clip(clip, Media(format=kind, embed=embed)).content for kind in ("mp4", "webm"))
    still = replace(clip, pixels=to_pixels(np.asarray(clip.frames)[:1]))
    png, webp = (encode_clip(still, Media(format=kind, embed=embed)).content for kind in ("png", "webp"))
    copies = {kind: remuxed(video, kind) for kind in ("mp4", "mov", "matroska")}
    copies |= {"webm": remuxed(webm, "matroska"), "again": again(video)}
    copies |= {"jpeg": as_jpeg(webp), "png": as_png(png)}
    for name, content in copies.items():
        (tmp_path / name).write_bytes(content)
        [found] = framefleet.trace(tmp_path / name, outputs=tmp_path / "out")
        assert (found.found_by, found.row_id) == ("tags", clip.row_id), name
