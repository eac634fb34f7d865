"""The task `denoiser`: videos and prompts in, the loss of the pipeline's own denoiser out.

What a denoiser is called with is what the pipeline's own `__call__` calls it with: `prepare` runs that up to
the first forward. Only how frames become latents (`latents.py`) and what is learned (`objective.py`) is ours.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from framefleet.pipeline.errors import TableError
from framefleet.pipeline.hooks.intercept import intercept
from framefleet.pipeline.model.options.offload import modules_of
from framefleet.pipeline.model.specs.model_index import DENOISERS
from framefleet.pipeline.model.specs.signature import INPUTS
from framefleet.pipeline.outputs.frames.frames import Frames
from framefleet.pipeline.render.encoders.memo import Memo
from framefleet.pipeline.render.fused.calls import Call
from framefleet.pipeline.training.denoiser.bucket_call import BucketCall
from framefleet.pipeline.training.denoiser.capture import Captured, capture
from framefleet.pipeline.training.denoiser.latents import check_trainable, latents_of
from framefleet.pipeline.training.denoiser.objective import Objective, objective_of
from framefleet.pipeline.training.denoiser.row_arguments import row_arguments, without_prompt
from framefleet.pipeline.training.lora import add_lora
from framefleet.pipeline.training.settings import TrainSettings
from framefleet.pipeline.training.task import Bucket, Prepared, TrainingRow
from framefleet.pipeline.training.tasks import trained_component


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
                BucketCall.of(captured, self._module),
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
