"""Modular pipelines as diffusers' documentation loads and calls them: what rows are held against."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from diffusers import ModularPipeline

from framefleet import Request
from framefleet.pipeline.outputs.frames import Frames, to_frames

_GUIDERS = {"guidance_scale": "guider", "guidance_scale_2": "guider_2"}


def plain(folder: Path, **loading: Any) -> ModularPipeline:
    pipe = ModularPipeline.from_pretrained(str(folder))
    pipe.load_components(**loading)
    return pipe


def plain_frames(pipe: ModularPipeline, row: Request) -> Frames:
    arguments = dict(row.arguments)
    for argument, guider in _GUIDERS.items():
        if hasattr(pipe, guider) and argument in arguments:
            scale = arguments.pop(argument)
            pipe.update_components(**{guider: getattr(pipe, guider).new(guidance_scale=scale)})
    output = "videos" if "num_frames" in arguments else "images"
    return to_frames(pipe(**arguments, generator=row.generator(), output_type="np", output=output))
