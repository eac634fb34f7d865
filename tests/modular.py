"""Modular pipelines as diffusers' documentation loads and calls them: what rows are held against."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from diffusers import ModularPipeline
from diffusers.modular_pipelines import PipelineState

from framefleet import Request
from framefleet.pipeline.outputs.frames.frames import Pictures, to_pictures

# By argument: of which guider it is, and what this calls it.
_SCALES = {
    "guidance_scale": ("guider", "guidance_scale"),
    "guidance_rescale": ("guider", "guidance_rescale"),
    "guidance_scale_2": ("guider_2", "guidance_scale"),
}


def plain(folder: Path, **loading: Any) -> ModularPipeline:
    pipe = ModularPipeline.from_pretrained(str(folder))
    pipe.load_components(**loading)
    if getattr(pipe, "requires_safety_checker", False):
        pipe.enable_safety_checker()
    return pipe


def plain_frames(pipe: ModularPipeline, row: Request) -> Pictures:
    return frames_of(plain_output(pipe, row))


def frames_of(output: PipelineState) -> Pictures:
    videos = output.get("videos")
    return to_pictures(output.get("images") if videos is None else videos, are_images=videos is None)


def plain_output(pipe: ModularPipeline, row: Request) -> PipelineState:
    """Return all that the blocks leave behind, sound too."""
    arguments = dict(row.arguments)
    for argument, (guider, scale) in _SCALES.items():
        if hasattr(pipe, guider) and argument in arguments:
            changed = getattr(pipe, guider).new(enabled=True, **{scale: arguments.pop(argument)})
            pipe.update_components(**{guider: changed})
    return pipe(**arguments, generator=row.generator(), output_type="np")
