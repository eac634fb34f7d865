"""What is trained: rows in, one loss out. Loop, checkpoints and cluster know no more of a model than this.

An autoencoder learns from videos: frames in, the error of what comes back out. The error is L1 + L2, more for
pixels near what differs from its frame's background: in a mean over a plain scene the object would hardly
count. Not covered: adversarial and perceptual losses.

A text encoder learns from pairs that mean the same: the mean of its outputs is to tell which belong together.

InfoNCE (van den Oord et al. 2018, https://arxiv.org/abs/1807.03748), both ways as in CLIP: every other row of
the batch is a negative, unless one of its texts is the same, and so is every row's `contrast`. That is a text
which differs in what other rows rarely differ in: with no "blue ball on red" to tell it from, the mean over
"a red ball on blue" need not know which of them is blue.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from diffusers.models.autoencoders.autoencoder_kl_wan import unpatchify
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.rnn import pad_sequence

from framefleet.pipeline.errors import ModelError, shape_text
from framefleet.pipeline.guards.json_text import canonical_json
from framefleet.pipeline.outputs.frames.frames import Frames

Prepared = dict[str, Tensor]  # what a row's loss needs; a safetensors file can hold it


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Bucket:
    """What all rows of a batch have alike: the shape of their videos, and conditions, as JSON."""

    num_frames: int
    height: int
    width: int
    conditions: str = ""

    def __str__(self) -> str:
        conditions = f" with {self.conditions}" if self.conditions else ""
        return f"{shape_text(self.num_frames, self.height, self.width)}{conditions}"


NO_FRAMES = Bucket(num_frames=0, height=0, width=0)  # of rows of a task that needs no video


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingRow:
    """A row that passed its checks.

    index: in the table. video: path or URL, None where the task needs none; sha256: of its bytes.
    arguments: of the pipeline's `__call__`: the prompt, and what else of it the row gives (fps, ...).
    repeats: how often an epoch has it.
    """

    index: int
    video: str | None
    sha256: str | None
    arguments: Mapping[str, Any]
    bucket: Bucket
    repeats: int = 1

    @property
    def seed(self) -> int:
        """Of what its pipeline draws for it: by its content, so that rows before it may come and go."""
        content = canonical_json([self.sha256, dict(self.arguments)]).encode("utf-8", "surrogatepass")
        return int.from_bytes(hashlib.sha256(content).digest()[:8], "big") >> 1


class TrainingTask(Protocol):
    """A way to train parts of one loaded pipeline."""

    @property
    def trained(self) -> Mapping[str, nn.Module]:
        """The components that change, by their names in the pipeline."""

    @property
    def keeps_prepared(self) -> bool:
        """Whether what `prepare` returns is worth keeping, for all epochs."""

    def prepare(self, row: TrainingRow, frames: Frames | None) -> Prepared:
        """Return all that can be computed once. frames: uint8 RGB (T, H, W, 3) of the row's bucket.

        Runs without gradients, before `loss` changes any weight that it uses.
        """

    def loss(self, batch: Sequence[Prepared], generator: torch.Generator) -> Tensor:
        """Return the mean loss of rows of one bucket, 0-d fp32, with gradients.

        All randomness comes from `generator` (CPU): equal batch, weights and generator, equal loss.
        """


@runtime_checkable
class Finishes(Protocol):
    """A task that has more to do when its weights are final, before the model is written."""

    def finish(self, rows: Iterable[Prepared]) -> None:
        """rows: some of those that were trained on; the more, the more exact what is measured over them."""


# Autoencoders that take pictures, so that a clip is a batch of them; the others take clips.
OF_PICTURES = ("AutoencoderKL", "AutoencoderKLTemporalDecoder", "AutoencoderTiny", "AutoencoderDC")
# Their `decode` ends with a clamp to [-1, 1], and pixels beyond give no gradient.
CLAMPING = ("AutoencoderKLWan", "AutoencoderKLQwenImage")
# Their `decode` has to be given how many frames there are.
COUNTING = ("AutoencoderKLTemporalDecoder",)
OBJECT_WEIGHT = 8.0
# Of the frame's shorter side. Without what is around and inside of them, objects grow fat: rings are filled.
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
                f"{type(pipe).__name__} has no autoencoder", "train another part, or give another model"
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
                "set train.sizes to what it gives back whole",
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


TEMPERATURE = 0.07  # CLIP's first
_MAX_TOKENS = 512  # tokenizers of bytes know no limit of their own; pipelines give their encoders as many


class TextEncoderTask:
    """`prompt` next to `paraphrase`, and far from `contrast` where there is one; see `Task`."""

    keeps_prepared = False  # ids are made faster than read

    def __init__(self, pipe: Any) -> None:
        self._encoder: Any = getattr(pipe, "text_encoder", None)
        self._tokenizer: Any = getattr(pipe, "tokenizer", None)
        if not isinstance(self._encoder, nn.Module) or self._tokenizer is None:
            raise ModelError(
                f"{type(pipe).__name__} has no text encoder", "train another part, or give another model"
            )

    @property
    def trained(self) -> Mapping[str, nn.Module]:
        return {"text_encoder": self._encoder}

    def prepare(self, row: TrainingRow, frames: Frames | None) -> Prepared:
        """Return the token ids of the row's texts by their columns, (n) each, without padding."""
        limit = min(self._tokenizer.model_max_length, _MAX_TOKENS)
        return {
            name: torch.tensor(self._tokenizer(text, truncation=True, max_length=limit).input_ids)
            for name, text in row.arguments.items()
        }

    def loss(self, batch: Sequence[Prepared], generator: torch.Generator) -> Tensor:
        texts = [row[name] for name in ("prompt", "paraphrase") for row in batch]
        contrasts = [row["contrast"] for row in batch if "contrast" in row]
        sizes = [len(batch), len(batch), len(contrasts)]
        encoded = self._encode([*texts, *contrasts])  # one forward: they pad alike
        prompts, paraphrases, others = torch.split(encoded, sizes)
        numbers: dict[tuple[int, ...], int] = {}  # of texts, equal for equal ones
        numbered = [numbers.setdefault(tuple(ids.tolist()), len(numbers)) for ids in (*texts, *contrasts)]
        ids = torch.split(torch.tensor(numbered), sizes)
        pair = torch.stack(ids[:2])  # (2, B)
        # Which texts are no negatives of a row, (B, B + C): its own, and those next to them.
        alike = (pair[:, None, :, None] == pair[None, :, None, :]).any(0).any(0).fill_diagonal_(False)
        excluded = torch.cat([alike, (pair[..., None] == ids[2]).any(0)], dim=1).to(encoded.device)
        own = torch.arange(len(batch), device=encoded.device)

        def contrast_loss(texts: Tensor, pairs: Tensor) -> Tensor:
            likeness = texts @ torch.cat([pairs, others]).T / TEMPERATURE  # (B, B + C)
            return functional.cross_entropy(likeness.masked_fill(excluded, -torch.inf), own)

        # In fp32: the embeddings to distinguish are nearly alike.
        with torch.autocast(encoded.device.type, enabled=False):
            return (contrast_loss(prompts, paraphrases) + contrast_loss(paraphrases, prompts)) / 2

    def _encode(self, texts: Sequence[Tensor]) -> Tensor:
        """Return unit vectors (B, D), fp32: the mean over the outputs of each text's own tokens."""
        device = next(self._encoder.parameters()).device
        lengths = torch.tensor([len(ids) for ids in texts])
        padding = self._tokenizer.pad_token_id or 0
        ids = pad_sequence(list(texts), batch_first=True, padding_value=padding).to(device)
        mask = (torch.arange(ids.shape[1]) < lengths[:, None]).to(device)  # (B, N)
        outputs = self._encoder(input_ids=ids, attention_mask=mask.long())[0].float()  # (B, N, D)
        masked = outputs * mask[..., None]
        return functional.normalize(masked.sum(1) / mask.sum(1, keepdim=True), dim=-1)
