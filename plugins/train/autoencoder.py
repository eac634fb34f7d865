"""Train an autoencoder on videos. The loss compares its output with the frames it was given.

The loss is L1 + L2. Pixels near something that differs from its frame's background count more: in a mean over
a plain scene, an object would hardly count. There are no adversarial or perceptual losses.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from diffusers.models.autoencoders.autoencoder_kl_wan import unpatchify
from torch import Tensor, nn
from torch.nn import functional

from framefleet.api.clips import Frames
from framefleet.api.errors import ModelError
from framefleet.plugins.train.task import Prepared, TrainingRow

# Autoencoders that take pictures, so that a clip is a batch of them; the others take clips.
OF_PICTURES = ("AutoencoderKL", "AutoencoderKLTemporalDecoder", "AutoencoderTiny", "AutoencoderDC")
# Their `decode` ends with a clamp to [-1, 1], and pixels beyond give no gradient.
CLAMPING = ("AutoencoderKLWan", "AutoencoderKLQwenImage")
# Their `decode` needs the number of frames.
COUNTING = ("AutoencoderKLTemporalDecoder",)
OBJECT_WEIGHT = 8.0
# Of the frame's shorter side. Without pixels around and inside of them, objects grow fat: rings are filled.
NEAR = 1 / 16
# Of [-1, 1]: six of 255 levels, above the noise of H.264.
BACKGROUND_MARGIN = 0.05
# Small: it only keeps the latents from growing without bound.
KL_WEIGHT = 1e-4


class AutoencoderTask:
    """Videos to themselves, through the pipeline's `vae`."""

    keeps_prepared = False  # frames are smaller in the files than as pixels, and are decoded as fast

    def __init__(self, pipe: Any) -> None:
        vae = getattr(pipe, "vae", None)
        if not isinstance(vae, nn.Module):
            raise ModelError(
                f"{type(pipe).__name__} has no autoencoder", "train another part, or use another model"
            )
        self._vae: Any = vae
        self._takes_pictures = type(vae).__name__ in OF_PICTURES

    @property
    def trained(self) -> Mapping[str, nn.Module]:
        return {"vae": self._vae}

    def prepare(self, row: TrainingRow, frames: Frames | None) -> Prepared:
        assert frames is not None
        return {"frames": torch.from_numpy(frames)}

    def loss(self, batch: Sequence[Prepared], generator: torch.Generator) -> Tensor:
        frames = torch.stack([prepared["frames"] for prepared in batch])  # (B, T, H, W, 3)
        video = self._video(frames)  # (B, 3, T, H, W)
        mean, logvar = self._encode(video)
        noise = torch.randn(mean.shape, generator=generator).to(mean.device)
        decoded = self._decode(mean + (0.5 * logvar).exp() * noise, num_frames=video.shape[2])
        if decoded.shape != video.shape:
            raise ModelError(
                f"{type(self._vae).__name__} makes {tuple(decoded.shape[2:])} of {tuple(video.shape[2:])} "
                "(frames, height, width)",
                "set train.sizes to sizes that it returns whole",
            )
        error = decoded - video
        kl = 0.5 * (mean.square() + logvar.exp() - 1 - logvar).mean()
        return (_weights(video) * (error.abs() + error.square())).mean() + KL_WEIGHT * kl

    def finish(self, rows: Iterable[Prepared]) -> None:
        """Note in the config how the latents of these rows are spread, as pipelines normalise them.

        Where the encoder was not trained nothing changes: denoisers know its latents as they are.
        """
        if not any(weight.requires_grad for weight in self._vae.encoder.parameters()):
            return
        count, total, squares = 0, torch.zeros(()), torch.zeros(())
        with torch.no_grad():
            for prepared in rows:
                mean, _ = self._encode(self._video(prepared["frames"][None]))
                latents = mean.double().cpu().transpose(0, 1).flatten(1)  # (channels, all else)
                count += latents.shape[1]
                total, squares = total + latents.sum(1), squares + latents.square().sum(1)
        if count:
            mean = total / count
            # Mean and std go where the autoencoder's pipelines look for them.
            std = (squares / count - mean.square()).clamp_min(1e-12).sqrt()
            buffers = dict(self._vae.named_buffers())
            if "latents_mean" in buffers:  # saved with the weights
                buffers["latents_mean"].copy_(mean)
                buffers["latents_std"].copy_(std)
            elif getattr(self._vae.config, "latents_mean", None) is not None:
                self._vae.register_to_config(latents_mean=mean.tolist(), latents_std=std.tolist())
            elif getattr(self._vae.config, "scaling_factor", None) is not None:  # one number for all channels
                has_shift = getattr(self._vae.config, "shift_factor", None) is not None
                middle = mean.mean()
                shift = middle if has_shift else torch.zeros(())
                spread = (std.square().mean() + (mean - middle).square().mean()).sqrt()
                own = {"shift_factor": shift.item()} if has_shift else {}
                self._vae.register_to_config(scaling_factor=1 / spread.item(), **own)

    def _video(self, frames: Tensor) -> Tensor:
        device = next(self._vae.parameters()).device
        return frames.to(device).permute(0, 4, 1, 2, 3).float() / 127.5 - 1

    def _encode(self, video: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean and log-variance of the latents: (B, C, T', H', W'), of pictures (B * T, C, H', W')."""
        encoded = self._vae.encode(video.transpose(1, 2).flatten(0, 1) if self._takes_pictures else video)
        if not hasattr(encoded, "latent_dist"):  # one that knows no distribution
            latents: Tensor = (encoded.latent if hasattr(encoded, "latent") else encoded.latents).float()
            return latents, torch.full_like(latents, -30.0)  # diffusers' own lowest
        return encoded.latent_dist.mean.float(), encoded.latent_dist.logvar.float()

    def _decode(self, latents: Tensor, *, num_frames: int) -> Tensor:
        """Return (B, 3, T, H, W), not clamped, in fp32."""
        name = type(self._vae).__name__
        if name in CLAMPING:
            chunks: list[Tensor] = []
            with self._vae.decoder.register_forward_hook(lambda *call: chunks.append(call[-1])):
                self._vae.decode(latents)
            decoded = torch.cat(chunks, 2)
            patch = getattr(self._vae.config, "patch_size", None)
            return (decoded if patch is None else unpatchify(decoded, patch)).float()
        own: dict[str, Any] = {"num_frames": num_frames} if name in COUNTING else {}
        if getattr(self._vae.config, "timestep_conditioning", False):  # of latents without noise
            own["temb"] = torch.zeros(len(latents), device=latents.device)
        sample: Tensor = self._vae.decode(latents, **own).sample.float()
        if self._takes_pictures:
            sample = sample.reshape(-1, num_frames, *sample.shape[1:]).transpose(1, 2)
        return sample


def _weights(video: Tensor) -> Tensor:
    """Return how much each pixel counts, (B, 1, T, H, W)."""
    background = video.flatten(3).median(dim=3).values[..., None, None]
    differs = (video - background).abs().amax(1, keepdim=True) > BACKGROUND_MARGIN
    near, reach = differs.float(), max(1, int(min(video.shape[3:]) * NEAR))
    side = 2 * reach + 1
    for window in ((1, side, 1), (1, 1, side)):  # one after the other: the same in a third of the time
        near = functional.max_pool3d(near, window, stride=1, padding=[size // 2 for size in window])
    return 1 + (OBJECT_WEIGHT - 1) * near
