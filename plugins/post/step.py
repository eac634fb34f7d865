"""The file step of the section `post`: writes a second file with larger or more frames."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import prod
from typing import Any, ClassVar, Self

import numpy as np
import pyarrow as pa

from framefleet.api.clips import Clip, FileStep, Frames, Media, StepInput
from framefleet.api.errors import JobError, RenderError
from framefleet.api.texts import canonical_json
from framefleet.pipeline.outputs.encode_clip import rate_of
from framefleet.pipeline.outputs.file_step import LeastFrames
from framefleet.pipeline.outputs.frames.frames import Pixels
from framefleet.pipeline.outputs.frames.result import Extras
from framefleet.pipeline.outputs.media.media_settings import VIDEOS
from framefleet.plugins.post.networks import MIN_SIDE, Interpolation, Upscaling, open_network
from framefleet.plugins.post.section import PostSection, UpscaleSection


@dataclass(frozen=True, slots=True, kw_only=True)
class PostStep(FileStep):
    operations: tuple[Upscaling | Interpolation, ...]

    changes_file: ClassVar[bool] = False  # it adds one
    columns: ClassVar[pa.Schema] = pa.schema([("post", pa.string())])  # JSON: how the second file was made

    @classmethod
    def open(cls, section: PostSection, *, folder: str | None) -> Self | None:
        operations = tuple(
            Upscaling.open(one) if isinstance(one, UpscaleSection) else Interpolation(times=one.interpolate)
            for one in section.root
        )
        return cls(operations=operations) if operations else None

    def check(self, media: Media) -> None:
        is_moving = any(isinstance(one, Interpolation) for one in self.operations)
        formats = (*VIDEOS, "webp", "gif") + (() if is_moving else ("png",))
        if media.format not in formats:
            raise JobError(
                f"post makes {', '.join(formats)}, but media.format is {media.format}",
                "leave post out, or set media.format to one of these",
            )
        too_fast = media.refusal(media.fps, times=self._times) if media.fps else None
        if too_fast:
            problem = f"post.interpolate multiplies media.fps by {self._times}"
            raise JobError(f"{problem}: {too_fast.reason}", too_fast.fix)

    @property
    def _times(self) -> int:
        return prod(one.times for one in self.operations if isinstance(one, Interpolation))

    @property
    def least_frames(self) -> LeastFrames | None:
        first = next((one for one in self.operations if isinstance(one, Interpolation)), None)
        if first is None:
            return None
        side = 0 if self.operations[0] is not first else MIN_SIDE  # it is upscaled before
        fix = f"render at least 2 frames of {MIN_SIDE}x{MIN_SIDE} pixels, or leave post.interpolate out"
        return LeastFrames(key="post.interpolate", value=first.times, side=side, fix=fix, times=self._times)

    def written(self, section: Any) -> Any:
        digests = [{"digest": one.digest} if isinstance(one, Upscaling) else {} for one in self.operations]
        return [{**one, **digest} for one, digest in zip(section, digests, strict=True)]

    @classmethod
    def decisive(cls, section: Any) -> Any:
        """Return what decides: weights may be moved. Each row of an output has a second file, or none."""
        entries = section if isinstance(section, list) else []
        return [(one.get("digest"), one.get("interpolate")) for one in entries if isinstance(one, dict)]

    def prepare(self) -> None:
        for one in self.operations:
            if isinstance(one, Upscaling):
                open_network(one, "cpu")

    def second_file(self, of: StepInput) -> Clip:
        clip, frames = of.clip, of.clip.frames
        if frames is None or frames.dtype != np.uint8 or frames.shape[-1] != 3:
            what = "sound alone" if frames is None else "HDR" if frames.dtype != np.uint8 else "alpha"
            raise RenderError(f"post takes clips of RGB frames, but this one has {what}", "leave post out")
        pictures: Frames = frames.astype(np.uint8, copy=False)
        fps, _ = rate_of(clip, of.media)
        device = str(clip.environment.get("device", "cpu"))
        for operation in self.operations:
            pictures, fps = operation(pictures, fps, device=device)
        of.values["post"] = canonical_json([one.facts for one in self.operations])
        request = replace(clip.request, fps=fps)
        return replace(clip, pixels=Pixels.of(pictures), native_fps=fps, request=request, extras=Extras())
