"""Open-Sora v2: from prompts, and from frames to begin or to end with, to clips."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, ClassVar

import ftfy
import numpy as np
import torch
from diffusers import (
    AutoencoderKLHunyuanVideo,
    DiffusionPipeline,
    FlowMatchEulerDiscreteScheduler,
    FluxTransformer2DModel,
)
from diffusers.loaders import FluxLoraLoaderMixin
from diffusers.utils.torch_utils import randn_tensor
from diffusers.video_processor import VideoProcessor
from PIL.Image import Image
from torch import Tensor
from transformers import CLIPTextModel, CLIPTokenizer, PreTrainedTokenizerBase, T5EncoderModel

from framefleet.pipeline.model.specs.check import check_ranges
from framefleet.plugins.ports import clip_words
from framefleet.plugins.ports.call_types import ClipsOutput, Generators, StepCallback
from framefleet.plugins.ports.opensora import conditions, denoise
from framefleet.plugins.ports.opensora.autoencoder_dc_video import AutoencoderDCVideo

_ENDS = ("<|startoftext|>", "<|endoftext|>")
_RATE = re.compile(r"\d+ FPS\.$")


class OpenSoraPipeline(DiffusionPipeline, FluxLoraLoaderMixin):
    """Text, image or video to video with Open-Sora v2 (arXiv 2503.09642).

    transformer: Flux, whose input tokens carry mask and given frames besides the noisy latents.
    vae: AutoencoderKLHunyuanVideo or AutoencoderDCVideo, tiled as by the authors; the first not over time.
    text_encoder: CLIP ViT-L/14. text_encoder_2: T5 v1.1 XXL.
    """

    model_cpu_offload_seq = "text_encoder->text_encoder_2->transformer->vae"
    _callback_tensor_inputs: ClassVar = ["latents"]

    def __init__(
        self,
        scheduler: FlowMatchEulerDiscreteScheduler,
        vae: AutoencoderKLHunyuanVideo | AutoencoderDCVideo,
        text_encoder: CLIPTextModel,
        tokenizer: CLIPTokenizer,
        text_encoder_2: T5EncoderModel,
        tokenizer_2: PreTrainedTokenizerBase,
        transformer: FluxTransformer2DModel,
    ) -> None:
        super().__init__()
        self.register_modules(
            vae=vae,
            text_encoder=text_encoder,
            text_encoder_2=text_encoder_2,
            tokenizer=tokenizer,
            tokenizer_2=tokenizer_2,
            transformer=transformer,
            scheduler=scheduler,
        )
        self.vae_scale_factor_spatial = vae.spatial_compression_ratio
        self.packing = conditions.Packing(
            ratio=vae.temporal_compression_ratio, is_causal=not isinstance(vae, AutoencoderDCVideo)
        )
        self.video_processor = VideoProcessor(vae_scale_factor=self.vae_scale_factor_spatial)
        vae.enable_tiling()
        if self.packing.is_causal:
            vae.use_framewise_encoding = vae.use_framewise_decoding = False

    @property
    def size_multiple(self) -> int:
        return self.vae_scale_factor_spatial * self.transformer.config.patch_size

    def encode_prompt(self, prompt: str | list[str], max_sequence_length: int = 512) -> tuple[Tensor, Tensor]:
        """Return T5's embeddings of all tokens, padding too, and CLIP's pooled ones; adds no suffixes."""
        prompts = [prompt] if isinstance(prompt, str) else prompt
        pooled = self.text_encoder(clip_ids(self.tokenizer, prompts).to(self.text_encoder.device))
        tokens = self.tokenizer_2(
            prompts,
            padding="max_length",
            max_length=max_sequence_length,
            truncation=True,
            return_tensors="pt",
        )
        embeds = self.text_encoder_2(tokens.input_ids.to(self.text_encoder_2.device))[0]
        device = self._execution_device
        return embeds.to(device), pooled.pooler_output.to(device)

    def encode_frames(self, frames: list[Image], height: int, width: int, generator: Any = None) -> Tensor:
        """Return latents (1, C, T', H', W') of frames, which are scaled and cropped to the size.

        HunyuanVideo's autoencoder gives a distribution, from which they are drawn.
        """
        pixels = self.video_processor.preprocess_video(frames, height, width, resize_mode="crop")
        encoded = self.vae.encode(pixels.to(self._execution_device, self.vae.dtype))
        latent = encoded.latent_dist.sample(generator) if hasattr(encoded, "latent_dist") else encoded.latent
        return latent.float() * self.vae.config.scaling_factor

    def prepare_latents(
        self,
        batch_size: int,
        num_frames: int,
        height: int,
        width: int,
        generator: Generators = None,
        latents: Tensor | None = None,
    ) -> Tensor:
        """Return the noise to start from, (B, C, T', H', W') in fp32."""
        ratio, frames = self.vae_scale_factor_spatial, self.packing.num_latent(num_frames)
        shape = (batch_size, self.transformer.config.out_channels, frames, height // ratio, width // ratio)
        if latents is not None and latents.shape != shape:
            raise ValueError(f"`latents` have to be of shape {shape} but are {tuple(latents.shape)}")
        if latents is None:
            latents = randn_tensor(shape, generator, self._execution_device, torch.float32)
        return latents.to(self._execution_device, torch.float32)

    @property
    def guidance_scale(self) -> float:
        return self._guidance_scale

    @property
    def num_timesteps(self) -> int:
        return self._num_timesteps

    @property
    def interrupt(self) -> bool:
        return self._interrupt

    @torch.no_grad()
    def __call__(
        self,
        prompt: str | list[str] | None = None,
        negative_prompt: str | list[str] = "",
        image: Image | list[Image] | None = None,
        last_image: Image | list[Image] | None = None,
        video: list[Image] | list[list[Image]] | None = None,
        condition_type: str | None = None,
        height: int | None = None,
        width: int | None = None,
        resolution: str | None = None,
        aspect_ratio: str | None = None,
        num_frames: int | None = None,
        num_inference_steps: int = 50,
        guidance_scale: float = 7.5,
        image_guidance_scale: float = 3.0,
        flow_shift: float | None = None,
        oscillate_text_guidance: bool = True,
        oscillate_image_guidance: bool = True,
        ramp_image_guidance: bool = True,
        frame_rate: int | None = 24,
        motion_score: int | None = 4,
        generator: Generators = None,
        latents: Tensor | None = None,
        prompt_embeds: Tensor | None = None,
        pooled_prompt_embeds: Tensor | None = None,
        negative_prompt_embeds: Tensor | None = None,
        negative_pooled_prompt_embeds: Tensor | None = None,
        output_type: str = "pil",
        return_dict: bool = True,
        callback_on_step_end: StepCallback | None = None,
        callback_on_step_end_tensor_inputs: list[str] | None = None,
        max_sequence_length: int = 512,
    ) -> ClipsOutput | tuple[Any]:
        """Render a clip for each prompt.

        image, last_image: what the clip begins and ends with. video: what it goes on from, or leads to. Each
            is one for all prompts, or a list with one for each.
        condition_type: t2v, i2v_head, i2v_tail, i2v_loop (an image alone stands at both ends), v2v_head,
            v2v_tail (33 frames of the video are given), v2v_head_easy, v2v_tail_easy (65); without it, what
            images and video mean.
        resolution, aspect_ratio: a named size, e.g. "768px" and "16:9", in place of height and width; where
            nothing is said, "256px" and "16:9".
        num_frames: 4k + 1, at most 129. With AutoencoderDCVideo 4k, at most 128, and with an image 3 less for
            each end: it is decoded to four equal frames, of which one stays. Latents have them all.
        guidance_scale, image_guidance_scale: towards the prompt, and towards the given frames; 1 is off.
        flow_shift: how long to stay at high noise; without it, longer for larger and longer clips.
        oscillate_text_guidance, oscillate_image_guidance: none at every second step after the tenth.
        ramp_image_guidance: with images, weaker at the first frames and the last steps.
        frame_rate, motion_score: given to the model at the end of the prompt; None leaves them out.
        """
        height, width = self._size(height, width, resolution, aspect_ratio)
        condition = conditions.condition_of(condition_type, image, last_image, video, packing=self.packing)
        num_frames = condition.max_frames if num_frames is None else num_frames
        callback_tensors = callback_on_step_end_tensor_inputs
        callback_tensors = ["latents"] if callback_tensors is None else callback_tensors
        self.check_inputs(height, width, num_frames, condition, callback_tensors)
        check_ranges(
            {
                "num_inference_steps": num_inference_steps,
                "flow_shift": flow_shift,
                "frame_rate": frame_rate,
                "motion_score": motion_score,
            }
        )
        guidance = denoise.TwoScales(
            text=guidance_scale,
            image=image_guidance_scale if condition.num_given else 1.0,
            text_oscillates=oscillate_text_guidance,
            image_oscillates=oscillate_image_guidance,
            image_ramps=ramp_image_guidance and not condition.is_video,
            num_steps=num_inference_steps,
        )
        self._guidance_scale, self._interrupt = guidance_scale, False

        prompts = [prompt] if isinstance(prompt, str) else prompt or []
        suffixed = [with_suffixes(p, frame_rate=frame_rate, motion_score=motion_score) for p in prompts]
        text = self._text(suffixed, prompt_embeds, pooled_prompt_embeds, max_sequence_length)
        num_prompts, negative = len(text.embeds), None
        if guidance.is_on:
            avoided = [negative_prompt] * num_prompts if isinstance(negative_prompt, str) else negative_prompt
            embeds = (negative_prompt_embeds, negative_pooled_prompt_embeds)
            negative = self._text(avoided, *embeds, max_sequence_length)

        rendered = num_frames + sum(condition.num_dropped)
        latents = self.prepare_latents(len(text.embeds), rendered, height, width, generator, latents)
        inputs = conditions.given_to_rows(image, last_image, video, num_prompts=num_prompts)
        ends: tuple[list[Tensor], list[Tensor]] = ([], [])
        for row, given in enumerate(inputs if condition.num_given else []):
            own = generator[row] if isinstance(generator, list) else generator
            for end, taken in zip(ends, conditions.given_frames(condition, **given), strict=True):
                if taken:
                    end.append(self.encode_frames(taken, height, width, own))
        head, tail = (torch.cat(end) if end else None for end in ends)
        mask, reference = conditions.place(head, tail, latents)
        denoiser = denoise.Denoiser(self.transformer, text, negative, (mask, reference), guidance)
        timesteps = self._set_timesteps(num_inference_steps, latents, flow_shift)
        with self.progress_bar(total=len(timesteps)) as progress_bar:
            for step, t in enumerate(timesteps):
                if self._interrupt:
                    continue
                velocity = denoiser.velocity(step, latents, t / self.scheduler.config.num_train_timesteps)
                latents = self.scheduler.step(velocity, t, latents, return_dict=False)[0]
                if callback_on_step_end is not None:
                    tensors = {"latents": latents} if callback_tensors else {}
                    latents = callback_on_step_end(self, step, t, tensors).get("latents", latents)
                progress_bar.update()
        if not condition.is_video:
            latents = torch.where(mask.bool(), reference, latents)
        frames: Any = latents
        if output_type != "latent":
            scaled = (latents / self.vae.config.scaling_factor).to(self.vae.dtype)
            clips = self.vae.decode(scaled, return_dict=False)[0]  # (B, 3, T, H, W)
            first, last = condition.num_dropped
            shown = clips[:, :, first : clips.shape[2] - last]
            frames = self.video_processor.postprocess_video(shown, output_type=output_type)
        self.maybe_free_model_hooks()
        return ClipsOutput(frames=frames) if return_dict else (frames,)

    def fitted(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """Return the arguments of a call with the frames that are left of `num_frames` with its images."""
        frames = arguments.get("num_frames")
        if frames is None:
            return dict(arguments)
        names = ("condition_type", "image", "last_image", "video")
        condition = conditions.condition_of(*map(arguments.get, names), packing=self.packing)
        return {**arguments, "num_frames": condition.fitted(frames)}

    def check_inputs(
        self,
        height: int,
        width: int,
        num_frames: int,
        condition: conditions.FrameCondition,
        callback_tensors: list[str],
    ) -> None:
        if min(height, width) <= 0 or height % self.size_multiple or width % self.size_multiple:
            raise ValueError(
                f"`height` and `width` have to be multiples of {self.size_multiple} "
                f"but are {height} and {width}"
            )
        if broken := condition.broken_rule(num_frames):
            suffix = f" for `condition_type` {condition.name!r}" if condition.num_given else ""
            raise ValueError(f"`num_frames` has to be {broken[0]}{suffix} but is {num_frames}: {broken[1]}")
        if condition.num_given and not denoise.takes_reference(self.transformer.config):
            raise ValueError("this transformer takes no frames to begin or to end with")
        if unknown := set(callback_tensors) - set(self._callback_tensor_inputs):
            raise ValueError(f"`callback_on_step_end_tensor_inputs` has no {', '.join(sorted(unknown))}")

    def _size(
        self, height: int | None, width: int | None, resolution: str | None, aspect_ratio: str | None
    ) -> tuple[int, int]:
        if (height is None) != (width is None):
            raise ValueError(f"give both `height` and `width`, or neither: they are {height} and {width}")
        if height is None or width is None or resolution or aspect_ratio:
            return conditions.named_size(resolution, aspect_ratio, multiple=self.size_multiple)
        return height, width

    def _text(
        self, prompts: list[str], embeds: Tensor | None, pooled: Tensor | None, max_sequence_length: int
    ) -> denoise.Text:
        if embeds is not None and pooled is not None:
            return denoise.Text(embeds, pooled)
        if not prompts or embeds is not None or pooled is not None:
            raise ValueError("give `prompt`, or both `prompt_embeds` and `pooled_prompt_embeds`")
        return denoise.Text(*self.encode_prompt(prompts, max_sequence_length))

    def _set_timesteps(self, num_inference_steps: int, latents: Tensor, flow_shift: float | None) -> Tensor:
        _, _, num_latent_frames, height, width = latents.shape
        sigmas = denoise.shifted_sigmas(
            num_inference_steps,
            tokens_per_frame=height * width // self.transformer.config.patch_size**2,
            num_latent_frames=num_latent_frames,
            flow_shift=flow_shift,
        )
        levels = np.array(sigmas[:-1])  # UniPC takes no list
        self.scheduler.set_timesteps(num_inference_steps, device=latents.device, sigmas=levels)
        timesteps: Tensor = self.scheduler.timesteps
        self._num_timesteps = len(timesteps)
        return timesteps


def with_suffixes(prompt: str, *, frame_rate: int | None, motion_score: int | None) -> str:
    """Return "raining, sea. 24 FPS. 4 motion score.". None leaves that part out.

    A prompt that ends with a frame rate of its own keeps it.
    """
    text = prompt.strip()
    text = text if text.endswith(".") else f"{text}."
    if frame_rate is not None and not _RATE.search(text):
        text = f"{text} {frame_rate} FPS."
    return text if motion_score is None else f"{text} {motion_score} motion score."


def clip_ids(tokenizer: CLIPTokenizer, prompts: list[str]) -> Tensor:
    """Return (B, 77), as transformers 4 does for the authors. T5's tokenizer cleans by itself."""
    length = min(tokenizer.model_max_length, 77)
    return clip_words.token_ids(tokenizer, [_cleaned(p) for p in prompts], ends=_ENDS, length=length)


def _cleaned(prompt: str) -> str:
    """The ends are taken out of a prompt first: what stands next to them is cleaned by itself."""
    parts = re.split(f"({'|'.join(map(re.escape, _ENDS))})", prompt)
    return clip_words.lowered(" ".join(map(ftfy.fix_text, parts)))
