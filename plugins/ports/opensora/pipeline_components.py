"""What Open-Sora's pipeline is made of, and how prompts, noise and given frames become tensors."""

from __future__ import annotations

import re
from typing import Any

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

from framefleet.plugins.ports import clip_words
from framefleet.plugins.ports.call_types import Generators
from framefleet.plugins.ports.opensora.autoencoder_dc_video import AutoencoderDCVideo
from framefleet.plugins.ports.opensora.conditions import FrameCondition, Packing, given_frames, place

_ENDS = ("<|startoftext|>", "<|endoftext|>")
_RATE = re.compile(r"\d+ FPS\.$")


class OpenSoraComponents(DiffusionPipeline, FluxLoraLoaderMixin):
    """transformer: Flux, whose input tokens carry mask and given frames besides the noisy latents.

    vae: AutoencoderKLHunyuanVideo or AutoencoderDCVideo, tiled as by the authors; the first not over time.
    text_encoder: CLIP ViT-L/14. text_encoder_2: T5 v1.1 XXL.
    """

    model_cpu_offload_seq = "text_encoder->text_encoder_2->transformer->vae"

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
        self.packing = Packing(
            ratio=vae.temporal_compression_ratio, is_causal=not isinstance(vae, AutoencoderDCVideo)
        )
        self.video_processor = VideoProcessor(vae_scale_factor=self.vae_scale_factor_spatial)
        vae.enable_tiling()
        if self.packing.is_causal:
            vae.use_framewise_encoding = vae.use_framewise_decoding = False

    @property
    def size_multiple(self) -> int:
        multiple: int = self.vae_scale_factor_spatial * self.transformer.config.patch_size
        return multiple

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
        scaled: Tensor = latent.float() * self.vae.config.scaling_factor
        return scaled

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

    def prepare_reference(
        self,
        condition: FrameCondition,
        given: list[dict[str, Any]],
        latents: Tensor,
        height: int,
        width: int,
        generator: Generators = None,
    ) -> tuple[Tensor, Tensor]:
        """Return mask and reference of the latents' shape. given: `image`, `last_image`, `video` by row."""
        ends: tuple[list[Tensor], list[Tensor]] = ([], [])
        for row, inputs in enumerate(given if condition.num_given else []):
            own = generator[row] if isinstance(generator, list) else generator
            for end, frames in zip(ends, given_frames(condition, **inputs), strict=True):
                if frames:
                    end.append(self.encode_frames(frames, height, width, own))
        head, tail = (torch.cat(end) if end else None for end in ends)
        return place(head, tail, latents)


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
    return clip_words.lowered(" ".join(map(clip_words.plain_letters, parts)))
