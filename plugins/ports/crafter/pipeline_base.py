"""What the pipelines of VideoCrafter and DynamiCrafter share: prompts, latents, guided steps, decoding."""

from __future__ import annotations

import html
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import ftfy
import torch
from diffusers import AutoencoderKL, DiffusionPipeline
from diffusers.utils.torch_utils import randn_tensor
from diffusers.video_processor import VideoProcessor
from torch import Tensor
from torch.nn import functional
from transformers import CLIPTextModel, CLIPTokenizer, CLIPVisionModel

from framefleet.pipeline.model.specs.check import check_ranges
from framefleet.plugins.ports import clip_words
from framefleet.plugins.ports.call_types import ClipsOutput, Generators, StepCallback
from framefleet.plugins.ports.crafter.resampler import VideoCrafterImageProjector
from framefleet.plugins.ports.crafter.scheduler import VideoCrafterDDIMScheduler
from framefleet.plugins.ports.crafter.unet import VideoCrafterUNet3DModel


@dataclass(frozen=True, slots=True, kw_only=True)
class Condition:
    """What the denoiser is given. text: (B, 77, D); image: (B, N, D)."""

    text: Tensor
    image: Tensor | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Steps:
    """How a call takes its steps: arguments of `__call__` that the loop needs."""

    num_inference_steps: int
    eta: float
    fps: int | list[int] | None
    generator: Generators
    callback: StepCallback | None
    callback_tensors: Sequence[str]
    guidance_rescale: float = 0.0


class CrafterPipeline(DiffusionPipeline):
    """Base of the pipelines; not one itself."""

    model_cpu_offload_seq = "text_encoder->image_encoder->image_projector->unet->vae"
    _callback_tensor_inputs = ("latents",)
    vae: AutoencoderKL
    text_encoder: CLIPTextModel
    tokenizer: CLIPTokenizer
    unet: VideoCrafterUNet3DModel
    scheduler: VideoCrafterDDIMScheduler
    _guidance_scale: float
    _num_timesteps: int

    def __init__(self, **components: Any) -> None:
        super().__init__()
        self.register_modules(**components)
        self.vae_scale_factor = 2 ** (len(self.vae.config.block_out_channels) - 1) if self.vae else 8
        self.video_processor = VideoProcessor(vae_scale_factor=self.vae_scale_factor)

    @property
    def guidance_scale(self) -> float:
        return self._guidance_scale

    @property
    def do_classifier_free_guidance(self) -> bool:
        return self._guidance_scale > 1

    @property
    def num_timesteps(self) -> int:
        return self._num_timesteps

    def size_of(self, height: int | None, width: int | None) -> tuple[int, int]:
        """Return the size in pixels; what is not given is what the model was trained on."""
        trained = self.unet.config.sample_size or (0, 0)
        height, width = (
            latents * self.vae_scale_factor if pixels is None else pixels
            for pixels, latents in zip((height, width), trained, strict=True)
        )
        multiple = self.vae_scale_factor * 2 ** (len(self.unet.config.block_out_channels) - 1)
        for name, pixels in (("height", height), ("width", width)):
            if pixels <= 0 or pixels % multiple:
                raise ValueError(f"`{name}` is {pixels}: give a multiple of {multiple}")
        return height, width

    def check_steps(self, steps: Steps, num_frames: int) -> None:
        if num_frames < 1:
            raise ValueError(f"`num_frames` is {num_frames}: a clip has 1 frame or more")
        check_ranges({"eta": steps.eta, "guidance_rescale": steps.guidance_rescale})
        for rate in steps.fps if isinstance(steps.fps, list) else [steps.fps]:
            check_ranges({"fps": rate})
        if steps.fps is not None and self.unet.config.default_fps is None:
            raise ValueError("`fps` is given, but this model is not conditioned on it: leave it out")
        unknown = [name for name in steps.callback_tensors if name not in self._callback_tensor_inputs]
        if unknown:
            raise ValueError(
                f"`callback_on_step_end_tensor_inputs` has {unknown}: use {self._callback_tensor_inputs}"
            )

    def encode_prompt(
        self, prompt: str | list[str] | None, embeds: Tensor | None, *, batch_size: int, name: str = "prompt"
    ) -> Tensor:
        """Return `embeds`, or else the prompts' own (B, 77, D); one prompt counts for all rows."""
        if (prompt is None) == (embeds is None):
            raise ValueError(f"give either `{name}` or `{name}_embeds`")
        if embeds is None:
            prompts = [prompt] * batch_size if isinstance(prompt, str) else list(prompt or ())
            ids = prompt_ids(self.tokenizer, prompts)
            embeds = self.text_encoder(ids.to(self._execution_device)).last_hidden_state
        if embeds.shape[0] != batch_size:
            raise ValueError(f"`{name}` has a batch of {embeds.shape[0]}, the others of {batch_size}")
        return embeds.to(dtype=self.unet.dtype, device=self._execution_device)

    def encode_negative(
        self, prompt: str | list[str] | None, embeds: Tensor | None, *, batch_size: int
    ) -> Tensor:
        """Return what guidance leads away from; the empty prompt unless one is given."""
        avoided = "" if prompt is None and embeds is None else prompt
        return self.encode_prompt(avoided, embeds, batch_size=batch_size, name="negative_prompt")

    def prepare_latents(
        self, batch_size: int, num_frames: int, height: int, width: int, generator: Generators, latents: Any
    ) -> Tensor:
        """Return noise (B, 4, T, H/8, W/8), fp32 whatever the model's dtype, as the originals keep it."""
        factor = self.vae_scale_factor
        channels = self.vae.config.latent_channels
        shape = (batch_size, channels, num_frames, height // factor, width // factor)
        if latents is None:
            latents = randn_tensor(
                shape, generator=generator, device=self._execution_device, dtype=torch.float32
            )
        if tuple(latents.shape) != shape:
            raise ValueError(f"`latents` has shape {tuple(latents.shape)}, not {shape}")
        return latents.to(self._execution_device, torch.float32) * self.scheduler.init_noise_sigma

    def denoise(
        self,
        latents: Tensor,
        conditions: Sequence[Condition],
        scales: Callable[[], Sequence[float]],
        steps: Steps,
        *,
        extra_channels: Tensor | None = None,
    ) -> Tensor:
        """Return clean latents.

        conditions: from the least to the full one; scales: of each difference between neighbours, asked at
        every step. extra_channels: channels that stand next to the noise, (B, C, T, H/8, W/8).
        """
        self.scheduler.set_timesteps(steps.num_inference_steps, device=self._execution_device)
        self._num_timesteps = len(self.scheduler.timesteps)
        extra: dict[str, Any] = {"generator": steps.generator, "eta": steps.eta}
        rate = self.unet.config.default_fps if steps.fps is None else steps.fps
        rates = rate if isinstance(rate, list) else [rate] * len(latents)
        if len(rates) != len(latents):
            raise ValueError(f"`fps` is a list of {len(rates)}, the prompts are {len(latents)}")
        fps = None if rate is None else torch.tensor(rates, device=latents.device)
        with self.progress_bar(total=self._num_timesteps) as progress_bar:
            for i, t in enumerate(self.scheduler.timesteps):
                noisy = (
                    latents
                    if extra_channels is None
                    else torch.cat([latents, extra_channels.to(latents.dtype)], dim=1)
                )
                noisy = noisy.to(self.unet.dtype)
                parts = [
                    self.unet(
                        noisy,
                        t,
                        encoder_hidden_states=condition.text,
                        fps=fps,
                        encoder_hidden_states_image=condition.image,
                        return_dict=False,
                    )[0].float()
                    for condition in conditions
                ]
                guided = guide(parts, scales(), rescale=steps.guidance_rescale)
                latents = self.scheduler.step(guided, t, latents, **extra, return_dict=False)[0]
                if steps.callback is not None:
                    tensors = {name: latents for name in steps.callback_tensors}
                    latents = steps.callback(self, i, t, tensors).pop("latents", latents)
                progress_bar.update()
        return latents

    def decode(self, latents: Tensor, output_type: str, return_dict: bool) -> Any:
        """Return the output of `__call__`. Frames are decoded one by one, which bounds memory."""
        frames: Any = latents
        if output_type != "latent":
            scaled = (latents / self.vae.config.scaling_factor).to(self.vae.dtype)
            decoded = [
                torch.cat([self.vae.decode(frame[None], return_dict=False)[0] for frame in clip.unbind(1)])
                for clip in scaled
            ]  # each (T, 3, H, W)
            video = torch.stack(decoded).transpose(1, 2)
            frames = self.video_processor.postprocess_video(video, output_type=output_type)
        self.maybe_free_model_hooks()
        return ClipsOutput(frames=frames) if return_dict else (frames,)


def guide(parts: Sequence[Tensor], scales: Sequence[float], *, rescale: float = 0.0) -> Tensor:
    """Return the first part plus each further step between neighbours times its scale.

    rescale: share of the result that gets the last part's deviation (arXiv 2305.08891, equations 15, 16).
    """
    guided = parts[0]
    for scale, far, near in zip(scales, parts, parts[1:], strict=False):
        guided = guided + scale * (near - far)
    if rescale > 0 and len(parts) > 1:
        inner = list(range(1, guided.dim()))
        ratio = parts[-1].std(inner, keepdim=True) / guided.std(inner, keepdim=True)
        guided = rescale * (guided * ratio) + (1 - rescale) * guided
    return guided


def batch_size_of(prompt: str | list[str] | None, embeds: Tensor | None) -> int:
    if embeds is not None:
        return int(embeds.shape[0])
    return len(prompt) if isinstance(prompt, list) else 1


_ENDS = ("<start_of_text>", "<end_of_text>")  # open_clip's names; "<|endoftext|>" is plain text to it


def prompt_ids(tokenizer: CLIPTokenizer, prompts: list[str]) -> Tensor:
    """Return the ids that open_clip's tokenizer gives prompts, cleaned, split and cut as it does: (B, 77)."""
    cleaned = [clip_words.lowered(html.unescape(html.unescape(ftfy.fix_text(p)))) for p in prompts]
    return clip_words.token_ids(tokenizer, cleaned, ends=_ENDS, length=tokenizer.model_max_length)


_MEAN = (0.48145466, 0.4578275, 0.40821073)
_STD = (0.26862954, 0.26130258, 0.27577711)


class ImageCrafterPipeline(CrafterPipeline):
    """Base of the pipelines that take an image; not one itself."""

    image_encoder: CLIPVisionModel
    image_projector: VideoCrafterImageProjector

    def __init__(
        self,
        vae: AutoencoderKL,
        text_encoder: CLIPTextModel,
        tokenizer: CLIPTokenizer,
        image_encoder: CLIPVisionModel,
        image_projector: VideoCrafterImageProjector,
        unet: VideoCrafterUNet3DModel,
        scheduler: VideoCrafterDDIMScheduler,
    ) -> None:
        super().__init__(
            vae=vae,
            text_encoder=text_encoder,
            tokenizer=tokenizer,
            image_encoder=image_encoder,
            image_projector=image_projector,
            unet=unet,
            scheduler=scheduler,
        )

    def pixels_of(
        self, image: Any, height: int, width: int, *, batch_size: int, name: str = "image"
    ) -> Tensor:
        """Return (B, 3, H, W) in [-1, 1], fp32: resized to cover the frame, and cropped in the middle.

        Tensors and arrays, which diffusers crops not, are resized to the frame.
        """
        first = image[0] if isinstance(image, list) else image
        mode = "crop" if hasattr(first, "convert") else "default"  # a PIL image, or not
        pixels: Tensor = self.video_processor.preprocess(image, height, width, resize_mode=mode)
        if pixels.shape[0] == 1:
            pixels = pixels.expand(batch_size, -1, -1, -1)
        if pixels.shape[0] != batch_size:
            raise ValueError(f"`{name}` has a batch of {pixels.shape[0]}, the prompts are {batch_size}")
        return pixels.to(self._execution_device, torch.float32)

    def image_tokens(self, pixels: Tensor) -> Tensor:
        """(B, 3, H, W) in [-1, 1] -> (B, N, D)"""
        size = self.image_encoder.config.image_size
        seen = clip_pixels(pixels, size).to(self.image_encoder.dtype)
        encoded = self.image_encoder(seen)
        # One with projection goes with a projector of that, others with one of all tokens.
        embeds = encoded.image_embeds if "image_embeds" in encoded else encoded.last_hidden_state
        return self.image_projector(embeds.to(self.image_projector.dtype))

    def image_latents(self, pixels: Tensor, generator: Generators) -> Tensor:
        """(B, 3, H, W) -> (B, 4, H/8, W/8), sampled, as the originals do, each row with its own generator."""
        own = generator if isinstance(generator, list) else [generator] * len(pixels)
        sampled = [
            self.vae.encode(row[None].to(self.vae.dtype)).latent_dist.sample(generator=drawn)
            for row, drawn in zip(pixels, own, strict=True)
        ]
        return torch.cat(sampled) * self.vae.config.scaling_factor


def clip_pixels(image: Tensor, size: int) -> Tensor:
    """(B, 3, H, W) in [-1, 1] -> (B, 3, size, size), normalised; the aspect ratio is not kept."""
    resized = functional.interpolate(
        _blurred(image, size), size=(size, size), mode="bicubic", align_corners=True
    )
    mean, std = (
        torch.tensor(v, dtype=image.dtype, device=image.device)[:, None, None] for v in (_MEAN, _STD)
    )
    return ((resized + 1) / 2 - mean) / std


def _blurred(image: Tensor, size: int) -> Tensor:
    """Blur what would alias, both sides by how much each shrinks (kornia's `resize(antialias=True)`)."""
    shrinks = [length / size for length in image.shape[-2:]]
    if max(shrinks) <= 1:
        return image
    rows, columns = (_kernel(max((shrink - 1) / 2, 0.001), like=image) for shrink in shrinks)
    margins = (len(columns) // 2,) * 2 + (len(rows) // 2,) * 2
    padded = functional.pad(image, margins, mode="reflect")
    channels = image.shape[1]
    weight = (rows[:, None] * columns[None, :]).expand(channels, 1, -1, -1)
    return functional.conv2d(padded, weight, groups=channels)


def _kernel(sigma: float, *, like: Tensor) -> Tensor:
    length = int(max(4 * sigma, 3)) | 1  # odd
    at = torch.arange(length, dtype=like.dtype, device=like.device) - length // 2
    bell = torch.exp(-(at**2) / (2 * sigma**2))
    return bell / bell.sum()
