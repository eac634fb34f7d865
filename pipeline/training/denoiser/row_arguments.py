"""A row and its frames in, out the arguments of the pipeline's call that shows its denoiser the row."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from PIL import Image

from framefleet.pipeline.errors import TableError
from framefleet.pipeline.model.specs.geometry import FRAME_PARAMETERS
from framefleet.pipeline.model.specs.schedulers import steps_flow
from framefleet.pipeline.model.specs.signature import INPUTS
from framefleet.pipeline.models.opensora.conditions import CONDITIONS
from framefleet.pipeline.outputs.frames import Frames
from framefleet.pipeline.recipes.siblings import call_parameters, fitted_arguments
from framefleet.pipeline.training.task import Bucket

_GUIDED = {"guidance_scale": 2.0}
# What else makes the call that guidance leads away from, beside an empty prompt.
_UNPROMPTED: Mapping[str, Mapping[str, Any]] = {
    "OpenSoraPipeline": {"frame_rate": None, "motion_score": None},  # a negative prompt is told of neither
    # Their first call under guidance is that one: for SDXL may be zeros, for the others no image.
    "StableDiffusionXLPipeline": _GUIDED,
    "VideoCrafterImageToVideoPipeline": _GUIDED,
    "DynamiCrafterPipeline": _GUIDED,
}


def row_arguments(
    pipe: Any, arguments: Mapping[str, Any], *, frames: Frames, bucket: Bucket, index: int | None = None
) -> dict[str, Any]:
    """Return the arguments of a call without guidance.

    arguments: the row's own. index: of the row, for errors. What a clip starts from is taken from the row's
    video: `image` is its first frame.
    """
    known = call_parameters(type(pipe).__name__)
    sizes = {"height": bucket.height, "width": bucket.width}
    sizes |= dict.fromkeys(FRAME_PARAMETERS, bucket.num_frames)
    own = {name: value for name, value in arguments.items() if value is not None and not _is_ignored(name)}
    if unknown := [name for name in own if name not in known]:
        raise TableError(
            f"row {index}: {type(pipe).__name__} has no argument {unknown[0]!r}",
            f"leave it out; it has {', '.join(known)}",
        )
    given = own | _seen(pipe, arguments, frames)
    given |= {name: value for name, value in sizes.items() if name in known}
    given = fitted_arguments(pipe, given)
    given |= {"num_inference_steps": _num_steps(pipe.scheduler), "output_type": "latent"}
    return given | ({} if _is_guidance_embedded(pipe) else {"guidance_scale": 1.0})


def without_prompt(pipe: Any, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments of the same call as a row sees it whose prompt is dropped."""
    empty = {name: "" for name in arguments if name in ("prompt", "prompt_2", "prompt_3")}
    return {**arguments, **empty, **_UNPROMPTED.get(type(pipe).__name__, {})}


def _is_ignored(name: str) -> bool:
    """Whether an argument is of guidance, which training has none of, or a frame, which the video gives."""
    return "guidance_scale" in name or name.startswith("negative_prompt") or name in INPUTS


def _num_steps(scheduler: Any) -> int:
    """Return so many that all noise levels of a flow are among them, shifted as the pipeline shifts."""
    is_flow = steps_flow(type(scheduler).__name__, scheduler.config)
    return int(scheduler.config.num_train_timesteps) if is_flow else 2


def _seen(pipe: Any, own: Mapping[str, Any], frames: Frames) -> dict[str, Any]:
    """Return the frames that the pipeline is given."""
    name, known = type(pipe).__name__, call_parameters(type(pipe).__name__)
    clip = [Image.fromarray(frame) for frame in (frames[0], frames[-1])]
    if name == "OpenSoraPipeline":  # from text, images or a video, as the row says
        head, tail, is_video = CONDITIONS.get(own.get("condition_type", "t2v"), (0, 0, False))
        if is_video:
            return {"video": [Image.fromarray(frame) for frame in frames]}
        return ({"image": clip[0]} if head else {}) | ({"last_image": clip[1]} if tail else {})
    return {"image": clip[0]} if "image" in known else {}


def _is_guidance_embedded(pipe: Any) -> bool:
    """Whether the scale is an input of the denoiser, which then is to have the pipeline's own."""
    transformer, unet = (getattr(pipe, name, None) for name in ("transformer", "unet"))
    embeds = transformer is not None and getattr(transformer.config, "guidance_embeds", False)
    return bool(embeds or (unet is not None and getattr(unet.config, "time_cond_proj_dim", None)))
