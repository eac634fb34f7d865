"""The task `denoiser`: computes the loss of the pipeline's own denoiser on videos and prompts.

The pipeline's own `__call__` gives the denoiser's arguments: `prepare` runs it up to the first forward. Only
the latents of frames and the target (`objective.py`) are ours.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from framefleet.api.clips import Frames
from framefleet.api.errors import TableError
from framefleet.api.families import TrainingInput
from framefleet.api.models import FRAME_PARAMETERS
from framefleet.pipeline.hooks.intercept import intercept
from framefleet.pipeline.model.families.registry import family_of
from framefleet.pipeline.model.options.offload import modules_of
from framefleet.pipeline.model.registry import object_at
from framefleet.pipeline.model.specs.model_index import DENOISERS
from framefleet.pipeline.model.specs.schedulers import steps_flow
from framefleet.pipeline.model.specs.signature import INPUTS
from framefleet.pipeline.recipes.second_model import call_parameters, fitted_arguments
from framefleet.pipeline.render.fused.calls import Call
from framefleet.pipeline.render.text_encoders import Memo
from framefleet.plugins.train.denoiser.bucket_call import BucketCall, capture
from framefleet.plugins.train.denoiser.objective import Objective, check_trainable, latents_of, objective_of
from framefleet.plugins.train.freezing import add_lora, trained_component
from framefleet.plugins.train.job import TrainSettings
from framefleet.plugins.train.task import Bucket, Prepared, TrainingRow


class DenoiserTask:
    """Trains the denoiser of a loaded pipeline; see `Task`."""

    keeps_prepared = True

    def __init__(self, pipe: Any, settings: TrainSettings) -> None:
        check_trainable(type(pipe).__name__)
        self.pipe = pipe
        self._settings = settings
        self._denoisers = modules_of(pipe, DENOISERS)
        self._name = trained_component(settings, self._denoisers)
        self._module = self._denoisers[self._name]
        self._memo = Memo()
        self._buckets: dict[Bucket, tuple[BucketCall, Objective]] = {}
        self._unprompted: tuple[Mapping[str, Any], Call] | None = None  # arguments, and what they came to
        for part in modules_of(pipe).values():
            part.requires_grad_(False).eval()
        if settings.lora:
            add_lora(pipe, self.trained, settings.lora, seed=settings.seed)
        else:
            self._module.requires_grad_(True)

    @property
    def trained(self) -> Mapping[str, nn.Module]:
        return {self._name: self._module}

    @torch.no_grad()
    def prepare(self, row: TrainingRow, frames: Frames | None) -> Prepared:
        if frames is None:
            raise TableError(f"row {row.index}: it has no video", "a denoiser is trained on videos")
        shared, _ = self._bucket(row.bucket)
        arguments = row_arguments(self.pipe, row.arguments, frames=frames, bucket=row.bucket, index=row.index)
        call, promptless = self._call(arguments, row), without_prompt(self.pipe, arguments)
        if not INPUTS.keys().isdisjoint(promptless):
            empty = self._call(promptless, row)
        else:  # without frames, that of the row before may fit
            if self._unprompted is None or self._unprompted[0] != promptless:
                self._unprompted = promptless, self._call(promptless, row)
            empty = self._unprompted[1]
        with torch.autocast(self.pipe.device.type, enabled=False):
            latents = latents_of(self.pipe, frames)
        if not latents.isfinite().all():
            raise TableError(
                f"row {row.index}: its latents are not finite",
                "set model.dtype.vae: fp32, or remove the row",
            )
        bucket = torch.tensor([row.bucket.num_frames, row.bucket.height, row.bucket.width])
        return {"bucket": bucket, **shared.row(call, empty, latents, index=row.index)}

    def loss(self, batch: Sequence[Prepared], generator: torch.Generator) -> Tensor:
        num_frames, height, width = batch[0]["bucket"].tolist()
        shared, objective = self._bucket(Bucket(num_frames=num_frames, height=height, width=width))
        times, noise, dropped = [], [], []
        for row in batch:  # in this order: each draw takes the generator further
            times.append(objective.draw(generator))
            noise.append(torch.randn(row["latents"].shape, generator=generator))
            dropped.append(float(torch.rand((), generator=generator)) < self._settings.prompt_dropout)
        device = shared.call.leaves[0].device
        clean = torch.cat([row["latents"] for row in batch]).to(device)
        noised = objective.noised(clean, torch.cat(noise).to(device), torch.stack(times))
        mask = shared.clean_mask(clean)
        sample = noised.sample if mask is None else torch.where(mask, clean, noised.sample)
        args, kwargs = shared.arguments(batch, dropped, sample, noised.timesteps)
        # Called, not its `forward`: gradient checkpointing, FSDP and casts hang on the call.
        predicted: Tensor = self._module(*args, **kwargs)[0]
        errors = (predicted.float() - noised.target.float()) ** 2
        return errors.mean() if mask is None else errors[~mask.expand_as(errors)].mean()

    def _bucket(self, bucket: Bucket) -> tuple[BucketCall, Objective]:
        if bucket not in self._buckets:
            black = np.zeros((bucket.num_frames, bucket.height, bucket.width, 3), dtype=np.uint8)
            arguments = row_arguments(self.pipe, {"prompt": ""}, frames=black, bucket=bucket)
            first, scheduler = self._capture(without_prompt(self.pipe, arguments), seed=0)
            is_fractional = self._settings.fractional_timesteps
            call = BucketCall(first, scheduler, self._module, is_fractional=is_fractional)
            share = 0.0, 1.0
            # Wan 2.2 A14B has one denoiser for high noise, one for low.
            if (boundary := self.pipe.config.get("boundary_ratio")) is not None:
                share = (0.0, boundary) if self._name == "transformer_2" else (boundary, 1.0)
            objective = objective_of(scheduler, drawing=self._settings.timesteps, share=share)
            self._buckets[bucket] = call, objective
        return self._buckets[bucket]

    def _call(self, arguments: Mapping[str, Any], row: TrainingRow) -> Call:
        try:
            return self._capture(arguments, seed=row.seed)[0]
        except (ValueError, TypeError) as error:
            raise TableError(
                f"row {row.index}: {type(self.pipe).__name__} cannot be called with it: {error}",
                "correct or remove the row",
            ) from error

    def _capture(self, arguments: Mapping[str, Any], *, seed: int) -> tuple[Call, Any]:
        with intercept(modules_of(self.pipe, ("text_encoder",)), self._memo):
            return capture(self.pipe, arguments, denoisers=self._denoisers, seed=seed)


def row_arguments(
    pipe: Any, arguments: Mapping[str, Any], *, frames: Frames, bucket: Bucket, index: int | None = None
) -> dict[str, Any]:
    """Return the arguments of a call without guidance.

    arguments: the row's own. index: of the row, for errors. What a clip starts from is taken from the row's
    video: `image` is its first frame.
    """
    parameters = call_parameters(type(pipe).__name__)
    sizes = {"height": bucket.height, "width": bucket.width}
    sizes |= dict.fromkeys(FRAME_PARAMETERS, bucket.num_frames)
    # Arguments of guidance, which training has none of, and frames, which the video gives.
    own = {
        name: value
        for name, value in arguments.items()
        if value is not None
        and not ("guidance_scale" in name or name.startswith("negative_prompt") or name in INPUTS)
    }
    if unknown := [name for name in own if name not in parameters]:
        raise TableError(
            f"row {index}: {type(pipe).__name__} has no argument {unknown[0]!r}",
            f"leave it out; it has {', '.join(parameters)}",
        )
    training = _training(pipe)
    if training and training.inputs:
        own |= object_at(training.inputs)(arguments, frames)
    elif "image" in parameters:
        own["image"] = Image.fromarray(frames[0])
    call = own | {name: value for name, value in sizes.items() if name in parameters}
    call = fitted_arguments(pipe, call)
    # Enough that all noise levels of a flow are among them, shifted as the pipeline shifts.
    is_flow = steps_flow(type(pipe.scheduler).__name__, pipe.scheduler.config)
    call |= {
        "num_inference_steps": int(pipe.scheduler.config.num_train_timesteps) if is_flow else 2,
        "output_type": "latent",
    }
    # Where the scale is an input of the denoiser, it has the pipeline's own.
    transformer, unet = (getattr(pipe, name, None) for name in ("transformer", "unet"))
    embeds = transformer is not None and getattr(transformer.config, "guidance_embeds", False)
    embeds = embeds or (unet is not None and getattr(unet.config, "time_cond_proj_dim", None))
    return call if embeds else call | {"guidance_scale": 1.0}


def without_prompt(pipe: Any, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments of the same call as a row sees it whose prompt is dropped."""
    empty = {name: "" for name in arguments if name in ("prompt", "prompt_2", "prompt_3")}
    training = _training(pipe)
    return {**arguments, **empty, **(training.unprompted if training else {})}


def _training(pipe: Any) -> TrainingInput | None:
    name = type(pipe).__name__
    return family_of(name).training.get(name)
