"""A row and its frames in, out the arguments of the pipeline's call that shows its denoiser the row."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from PIL import Image

from framefleet.pipeline.errors import TableError
from framefleet.pipeline.model.families.family import TrainingInput
from framefleet.pipeline.model.families.known import family_of
from framefleet.pipeline.model.registry import named
from framefleet.pipeline.model.specs.geometry import FRAME_PARAMETERS
from framefleet.pipeline.model.specs.schedulers import steps_flow
from framefleet.pipeline.model.specs.signature import INPUTS
from framefleet.pipeline.outputs.frames.frames import Frames
from framefleet.pipeline.recipes.siblings import call_parameters, fitted_arguments
from framefleet.pipeline.training.task import Bucket


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
    training = _training(pipe)
    return {**arguments, **empty, **(training.unprompted if training else {})}


def _training(pipe: Any) -> TrainingInput | None:
    name = type(pipe).__name__
    return family_of(name).training.get(name)


def _is_ignored(name: str) -> bool:
    """Whether an argument is of guidance, which training has none of, or a frame, which the video gives."""
    return "guidance_scale" in name or name.startswith("negative_prompt") or name in INPUTS


def _num_steps(scheduler: Any) -> int:
    """Return so many that all noise levels of a flow are among them, shifted as the pipeline shifts."""
    is_flow = steps_flow(type(scheduler).__name__, scheduler.config)
    return int(scheduler.config.num_train_timesteps) if is_flow else 2


def _seen(pipe: Any, own: Mapping[str, Any], frames: Frames) -> dict[str, Any]:
    """Return the frames that the pipeline is given."""
    training = _training(pipe)
    if training and training.inputs:
        found: dict[str, Any] = named(training.inputs)(own, frames)
        return found
    takes_image = "image" in call_parameters(type(pipe).__name__)
    return {"image": Image.fromarray(frames[0])} if takes_image else {}


def _is_guidance_embedded(pipe: Any) -> bool:
    """Whether the scale is an input of the denoiser, which then is to have the pipeline's own."""
    transformer, unet = (getattr(pipe, name, None) for name in ("transformer", "unet"))
    embeds = transformer is not None and getattr(transformer.config, "guidance_embeds", False)
    return bool(embeds or (unet is not None and getattr(unet.config, "time_cond_proj_dim", None)))
