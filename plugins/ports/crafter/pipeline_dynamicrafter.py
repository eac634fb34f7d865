"""DynamiCrafter: clips that begin, and may end, with a given image, from text."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from framefleet.plugins.ports.call_types import Generators, StepCallback
from framefleet.plugins.ports.crafter.pipeline_base import (
    Condition,
    ImageCrafterPipeline,
    Steps,
    batch_size_of,
)

# Of arXiv 2305.08891, for models whose last timestep is pure noise; others need none.
_RESCALE_AT_ZERO_SNR = 0.7


class DynamiCrafterPipeline(ImageCrafterPipeline):
    """Image to video, and video between two images: DynamiCrafter (arXiv 2310.12190)."""

    @torch.no_grad()
    def __call__(
        self,
        image: Any,
        prompt: str | list[str] | None = None,
        negative_prompt: str | list[str] | None = None,
        last_image: Any = None,
        height: int | None = None,
        width: int | None = None,
        num_frames: int | None = None,
        num_inference_steps: int = 50,
        guidance_scale: float = 7.5,
        image_guidance_scale: float | None = None,
        guidance_rescale: float | None = None,
        eta: float = 1.0,
        fps: int | list[int] | None = None,
        generator: Generators = None,
        latents: Tensor | None = None,
        prompt_embeds: Tensor | None = None,
        negative_prompt_embeds: Tensor | None = None,
        output_type: str = "pil",
        return_dict: bool = True,
        callback_on_step_end: StepCallback | None = None,
        callback_on_step_end_tensor_inputs: tuple[str, ...] = ("latents",),
    ) -> Any:
        """Render one clip for each prompt and image.

        image: the first frame. last_image: the last one; the same as `image` for a clip that loops.
        num_frames: None is what the model was trained with, 16; it renders no other number. fps: for the 256
        model the frame stride, 1 to 6, where more is more motion; for the others frames per second, where
        less is more.
        image_guidance_scale: of the image alone, besides that of the text; a third forward at every step.
        guidance_rescale: None is 0.7 where the scheduler ends in pure noise, and else 0.
        """
        height, width = self.size_of(height, width)
        num_frames = self.image_projector.config.num_frames if num_frames is None else num_frames
        if guidance_rescale is None:
            guidance_rescale = _RESCALE_AT_ZERO_SNR if self.scheduler.config.rescale_betas_zero_snr else 0.0
        steps = Steps(
            num_inference_steps=num_inference_steps,
            eta=eta,
            fps=fps,
            generator=generator,
            callback=callback_on_step_end,
            callback_tensors=callback_on_step_end_tensor_inputs,
            guidance_rescale=guidance_rescale,
        )
        self.check_steps(steps, num_frames)
        self._guidance_scale, self._image_guidance_scale = guidance_scale, image_guidance_scale
        batch_size = batch_size_of(prompt, prompt_embeds)
        first = self.pixels_of(image, height, width, batch_size=batch_size)
        text = self.encode_prompt(prompt, prompt_embeds, batch_size=batch_size)
        conditions = [Condition(text=text, image=self.image_tokens(first))]
        if self.do_classifier_free_guidance:
            text = self.encode_negative(negative_prompt, negative_prompt_embeds, batch_size=batch_size)
            # Guidance leads away from neither prompt nor image, and from the image where that has a scale.
            neither = Condition(text=text, image=self.image_tokens(torch.zeros_like(first)))
            if self._image_guidance_scale is not None:
                conditions.insert(0, Condition(text=text, image=conditions[0].image))
            conditions.insert(0, neither)
        extra_channels = self._given_frames(first, last_image, num_frames, generator)
        noise = self.prepare_latents(batch_size, num_frames, height, width, generator, latents)
        clean = self.denoise(noise, conditions, self._scales, steps, extra_channels=extra_channels)
        return self.decode(clean, output_type, return_dict)

    @property
    def do_classifier_free_guidance(self) -> bool:
        return self._guidance_scale > 1 or self._image_guidance_scale is not None

    def check_steps(self, steps: Steps, num_frames: int) -> None:
        super().check_steps(steps, num_frames)
        trained = self.image_projector.config.num_frames
        if num_frames != trained:
            raise ValueError(f"`num_frames` is {num_frames}: this model renders {trained}")

    def _scales(self) -> list[float]:
        image = self._image_guidance_scale
        return [self._guidance_scale] if image is None else [image, self._guidance_scale]

    def _given_frames(self, first: Tensor, last_image: Any, num_frames: int, generator: Generators) -> Tensor:
        """Return the image's latents for every frame; with a last image, for the two ends, and zeros between.

        Drawn before the noise of the clip, in the order of the originals.
        """
        start = self.image_latents(first, generator)[:, :, None]
        if last_image is None:
            return start.repeat(1, 1, num_frames, 1, 1)
        height, width = first.shape[-2:]
        last = self.pixels_of(last_image, height, width, batch_size=len(first), name="last_image")
        end = self.image_latents(last, generator)[:, :, None]
        between = start.new_zeros(*start.shape[:2], num_frames - 2, *start.shape[3:])
        return torch.cat([start, between, end], dim=2)
