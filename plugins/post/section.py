"""The section `post` of a job file. Imports nothing heavy, as every job file is read with it."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field

from framefleet.api.sections import Key, ListSection, Section


class UpscaleSection(Section):
    """Larger frames, by a network that the library spandrel knows: ESRGAN, SPAN, SwinIR, DAT, ..."""

    upscale: Annotated[str, Field(min_length=1)]
    """File of its weights, on this machine and every worker's: .safetensors, or a pickle."""
    allow_pickle: bool = False
    """Load a pickle of tensors, such as .pth."""


class InterpolateSection(Section):
    """More frames per second, by FFmpeg's motion-compensated filter `minterpolate`."""

    interpolate: int = Field(ge=2, le=8)
    """Factor for the frames per second, from 2 to 8."""


class PostSection(ListSection[list[UpscaleSection | InterpolateSection]]):
    """What makes a second file of each clip, one after another: {upscale: WEIGHTS}, {interpolate: 2}."""

    root: list[UpscaleSection | InterpolateSection] = Field(default_factory=list)
    paths: ClassVar[tuple[Key, ...]] = (("*", "upscale"),)

    @property
    def for_choice(self) -> PostSection:
        return PostSection([])
