"""The task `denoiser`: videos and prompts in, the loss of the pipeline's own denoiser out.

What a denoiser is called with is what the pipeline's own `__call__` calls it with: `prepare` runs that up to
the first forward. Only how frames become latents (`latents.py`) and what is learned (`objective.py`) is ours.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from framefleet.pipeline.errors import TableError
from framefleet.pipeline.hooks.intercept import intercept
from framefleet.pipeline.model.families.family import TrainingInput
from framefleet.pipeline.model.families.registry import family_of
from framefleet.pipeline.model.options.offload import modules_of
from framefleet.pipeline.model.registry import named
from framefleet.pipeline.model.specs.model_index import DENOISERS
from framefleet.pipeline.model.specs.schedulers import steps_flow
from framefleet.pipeline.model.specs.signature import FRAME_PARAMETERS, INPUTS
from framefleet.pipeline.outputs.frames.frames import Frames
from framefleet.pipeline.recipes.siblings import call_parameters, fitted_arguments
from framefleet.pipeline.render.fused.calls import Call
from framefleet.pipeline.render.text_encoders import Memo
from framefleet.plugins.train.denoiser.bucket_call import BucketCall, Captured, capture
from framefleet.plugins.train.denoiser.latents import check_trainable, latents_of
from framefleet.plugins.train.denoiser.objective import Objective, objective_of
from framefleet.plugins.train.freezing import add_lora, trained_component
from framefleet.plugins.train.settings import TrainSettings
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
        call = self._call(arguments, row)
        empty = self._without_prompt(arguments, row)
        with torch.autocast(self.pipe.device.type, enabled=False):
            latents = latents_of(self.pipe, frames)
        if not latents.isfinite().all():
            raise TableError(
                f"row {row.index}: its latents are not finite",
                "set model.dtype.vae: fp32, or leave the row out",
            )
        bucket = torch.tensor([row.bucket.num_frames, row.bucket.height, row.bucket.width])
        return {"bucket": bucket, **shared.row(call, empty, latents, index=row.index)}

    def loss(self, batch: Sequence[Prepared], generator: torch.Generator) -> Tensor:
        num_frames, height, width = batch[0]["bucket"].tolist()
        shared, objective = self._bucket(Bucket(num_frames=num_frames, height=height, width=width))
        drawn = [self._draw(row, objective, generator) for row in batch]
        times, noise, dropped = zip(*drawn, strict=True)
        device = shared.call.leaves[0].device
        clean = torch.cat([row["latents"] for row in batch]).to(device)
        noised = objective.noised(clean, torch.cat(noise).to(device), torch.stack(times))
        held = shared.held(clean)
        sample = noised.sample if held is None else torch.where(held, clean, noised.sample)
        args, kwargs = shared.arguments(batch, dropped, sample, noised.timesteps)
        # Called, not its `forward`: gradient checkpointing, FSDP and casts hang on the call.
        predicted: Tensor = self._module(*args, **kwargs)[0]
        errors = (predicted.float() - noised.target.float()) ** 2
        return errors.mean() if held is None else errors[~held.expand_as(errors)].mean()

    def _draw(
        self, row: Prepared, objective: Objective, generator: torch.Generator
    ) -> tuple[Tensor, Tensor, bool]:
        """Return the row's time and noise, and whether its prompt is dropped."""
        time = objective.draw(generator)
        noise = torch.randn(row["latents"].shape, generator=generator)
        return time, noise, float(torch.rand((), generator=generator)) < self._settings.prompt_dropout

    def _bucket(self, bucket: Bucket) -> tuple[BucketCall, Objective]:
        if bucket not in self._buckets:
            black = np.zeros((bucket.num_frames, bucket.height, bucket.width, 3), dtype=np.uint8)
            arguments = row_arguments(self.pipe, {"prompt": ""}, frames=black, bucket=bucket)
            captured = self._capture(without_prompt(self.pipe, arguments), seed=0)
            self._buckets[bucket] = (
                BucketCall.of(
                    captured, self._module, is_fractional=bool(self._settings.fractional_timesteps)
                ),
                objective_of(captured.scheduler, drawing=self._settings.timesteps, share=self._share()),
            )
        return self._buckets[bucket]

    def _share(self) -> tuple[float, float]:
        """Return the noise levels that the denoiser is for: Wan 2.2 A14B has one for high, one for low."""
        boundary = self.pipe.config.get("boundary_ratio")
        if boundary is None:
            return 0.0, 1.0
        return (0.0, boundary) if self._name == "transformer_2" else (boundary, 1.0)

    def _without_prompt(self, arguments: Mapping[str, Any], row: TrainingRow) -> Call:
        """Return the call of a row whose prompt is dropped; without frames that of the row before may fit."""
        asked = without_prompt(self.pipe, arguments)
        if not INPUTS.keys().isdisjoint(asked):
            return self._call(asked, row)
        if self._unprompted is None or self._unprompted[0] != asked:
            self._unprompted = asked, self._call(asked, row)
        return self._unprompted[1]

    def _call(self, arguments: Mapping[str, Any], row: TrainingRow) -> Call:
        try:
            return self._capture(arguments, seed=row.seed).call
        except (ValueError, TypeError) as error:
            raise TableError(
                f"row {row.index}: {type(self.pipe).__name__} cannot be called with it: {error}",
                "correct the row, or leave it out",
            ) from error

    def _capture(self, arguments: Mapping[str, Any], *, seed: int) -> Captured:
        with intercept(modules_of(self.pipe, ("text_encoder",)), self._memo):
            return capture(self.pipe, arguments, denoisers=self._denoisers, seed=seed)


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
    """Return enough that all noise levels of a flow are among them, shifted as the pipeline shifts."""
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
