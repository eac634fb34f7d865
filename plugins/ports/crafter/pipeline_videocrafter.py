"""VideoCrafter1 and VideoCrafter2: clips from text, or from text and an image."""

from __future__ import annotations

from typing import Any

import torch
from diffusers import AutoencoderKL
from torch import Tensor
from transformers import CLIPTextModel, CLIPTokenizer

from framefleet.plugins.ports.call_types import Generators, StepCallback
from framefleet.plugins.ports.crafter.pipeline_base import (
    Condition,
    CrafterPipeline,
    ImageCrafterPipeline,
    Steps,
    batch_size_of,
)
from framefleet.plugins.ports.crafter.scheduler import VideoCrafterDDIMScheduler
from framefleet.plugins.ports.crafter.unet import VideoCrafterUNet3DModel


class VideoCrafterPipeline(CrafterPipeline):
    """Text to video: VideoCrafter1 (arXiv 2310.19512) and VideoCrafter2 (arXiv 2401.09047)."""

    def __init__(
        self,
        vae: AutoencoderKL,
        text_encoder: CLIPTextModel,
        tokenizer: CLIPTokenizer,
        unet: VideoCrafterUNet3DModel,
        scheduler: VideoCrafterDDIMScheduler,
    ) -> None:
        super().__init__(
            vae=vae, text_encoder=text_encoder, tokenizer=tokenizer, unet=unet, scheduler=scheduler
        )

    @torch.no_grad()
    def __call__(
        self,
        prompt: str | list[str] | None = None,
        negative_prompt: str | list[str] | None = None,
        height: int | None = None,
        width: int | None = None,
        num_frames: int = 16,
        num_inference_steps: int = 50,
        guidance_scale: float = 12.0,
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
        """Render one clip for each prompt.

        eta: share of the noise that is drawn anew at each step, from 0 to 1. fps: the rate whose motion the
        clip is to have, or one for each, where the model knows rates; None is the one of its config.
        """
        height, width = self.size_of(height, width)
        steps = Steps(
            num_inference_steps=num_inference_steps,
            eta=eta,
            fps=fps,
            generator=generator,
            callback=callback_on_step_end,
            callback_tensors=callback_on_step_end_tensor_inputs,
        )
        self.check_steps(steps, num_frames)
        self._guidance_scale = guidance_scale
        batch_size = batch_size_of(prompt, prompt_embeds)
        conditions = [Condition(text=self.encode_prompt(prompt, prompt_embeds, batch_size=batch_size))]
        if self.do_classifier_free_guidance:
            text = self.encode_negative(negative_prompt, negative_prompt_embeds, batch_size=batch_size)
            conditions.insert(0, Condition(text=text))
        noise = self.prepare_latents(batch_size, num_frames, height, width, generator, latents)
        clean = self.denoise(noise, conditions, lambda: [self.guidance_scale], steps)
        return self.decode(clean, output_type, return_dict)


class VideoCrafterImageToVideoPipeline(ImageCrafterPipeline):
    """Text and image to video: VideoCrafter1. The clip shows what the image shows, not the image itself."""

    @torch.no_grad()
    def __call__(
        self,
        image: Any,
        prompt: str | list[str] | None = None,
        negative_prompt: str | list[str] | None = None,
        height: int | None = None,
        width: int | None = None,
        num_frames: int = 16,
        num_inference_steps: int = 50,
        guidance_scale: float = 12.0,
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
        """Render one clip for each prompt and image; see VideoCrafterPipeline.

        image: PIL, an array or a tensor, or a list of one for each prompt; cropped to the aspect ratio.
        """
        height, width = self.size_of(height, width)
        steps = Steps(
            num_inference_steps=num_inference_steps,
            eta=eta,
            fps=fps,
            generator=generator,
            callback=callback_on_step_end,
            callback_tensors=callback_on_step_end_tensor_inputs,
        )
        self.check_steps(steps, num_frames)
        self._guidance_scale = guidance_scale
        batch_size = batch_size_of(prompt, prompt_embeds)
        pixels = self.pixels_of(image, height, width, batch_size=batch_size)
        text = self.encode_prompt(prompt, prompt_embeds, batch_size=batch_size)
        conditions = [Condition(text=text, image=self.image_tokens(pixels))]
        if self.do_classifier_free_guidance:
            text = self.encode_negative(negative_prompt, negative_prompt_embeds, batch_size=batch_size)
            conditions.insert(0, Condition(text=text, image=self.image_tokens(torch.zeros_like(pixels))))
        noise = self.prepare_latents(batch_size, num_frames, height, width, generator, latents)
        clean = self.denoise(noise, conditions, lambda: [self.guidance_scale], steps)
        return self.decode(clean, output_type, return_dict)
