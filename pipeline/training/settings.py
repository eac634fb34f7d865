"""What a job says below `train:`: text in, one checked `TrainSettings` out. Imports no torch."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from framefleet.pipeline.guards.strict_model import Strict
from framefleet.pipeline.model.specs.dtypes import DTypeName

TrainedPart = Literal["denoiser", "autoencoder", "text_encoder"]
_Size = Annotated[list[Annotated[int, Field(ge=1)]], Field(min_length=3, max_length=3)]


class LoraSettings(Strict):
    """A LoRA instead of the weights themselves."""

    name: str = Field(default="lora", pattern=r"^[A-Za-z0-9_-]+$", description="Of the file that is written.")
    rank: int = Field(default=16, ge=1)
    alpha: float | None = Field(default=None, gt=0, description="Unset: the rank, so that the scale is 1.")
    targets: list[str] = Field(
        default=["to_q", "to_k", "to_v", "to_out.0"], min_length=1, description="Ends of the layers' names."
    )


class TrainSettings(Strict):
    """How weights are trained."""

    part: TrainedPart = Field(
        default="denoiser",
        description="denoiser: videos that follow prompts. autoencoder: videos to themselves. "
        "text_encoder: prompts next to their paraphrases, and far from their contrasts.",
    )
    steps: int = Field(ge=1, description="Changes of the weights.")
    batch_size: int = Field(default=1, ge=1, description="Rows in one forward of one worker.")
    accumulation: int = Field(default=1, ge=1, description="Forwards of a worker for one step.")
    learning_rate: float = Field(default=1e-4, gt=0)
    schedule: Literal["constant", "linear", "cosine"] = Field(
        default="constant", description="Of the learning rate, after the warm-up; linear and cosine end at 0."
    )
    warmup_steps: int = Field(default=0, ge=0)
    betas: Annotated[list[float], Field(min_length=2, max_length=2)] = Field(default=[0.9, 0.999])
    weight_decay: float = Field(default=0.0, ge=0)
    max_grad_norm: float | None = Field(default=1.0, gt=0)
    ema: float | None = Field(
        default=None, gt=0, lt=1, description="Decay of the average of the weights that is saved instead."
    )
    precision: DTypeName = Field(
        default="fp32", description="Of forwards; the weights that are trained stay fp32."
    )
    save_dtype: DTypeName = Field(
        default="fp32", description="Of the weights that are written at the end; checkpoints hold fp32."
    )
    gradient_checkpointing: bool = False
    only: list[str] = Field(
        default_factory=list, description="Patterns (*) of names of weights: only these are trained."
    )
    freeze: list[str] = Field(
        default_factory=list, description="Patterns (*) of names of weights that are not trained."
    )
    lora: LoraSettings | None = None
    prompt_dropout: float = Field(
        default=0.1, ge=0, le=1, description="Share of rows that see an empty prompt, for guidance."
    )
    timesteps: Literal["uniform", "logit_normal"] = Field(
        default="uniform", description="How flow models draw noise levels; others are uniform."
    )
    fractional_timesteps: bool | None = Field(
        default=None,
        description="Show the denoiser of a flow model timesteps that are never rounded, also where its "
        "pipeline rounds them down to whole numbers, as Wan's does. Unset: as the pipeline shows them; a "
        "training that is continued keeps what it began with.",
    )
    sizes: list[_Size] = Field(
        default_factory=list,
        description="Buckets, as [num_frames, height, width]; a video goes to the nearest that it fills. "
        "Unset: the model's native size.",
    )
    seed: int = Field(default=0, ge=0, lt=2**31)
    strategy: Literal["ddp", "fsdp"] = "ddp"
    prepared: str | None = Field(
        default=None,
        description="A folder or URL where latents and embeddings are kept, for several trainings "
        "of the same videos. Unset: the output.",
    )
    checkpoint_every: int = Field(default=500, ge=1, description="Steps.")
    keep_checkpoints: int = Field(default=2, ge=1)
    sample_every: int | None = Field(default=None, ge=1, description="Steps.")
    samples: list[dict[str, Any]] = Field(
        default_factory=list, description="Rows to render at these steps, as {prompt: ..., seed: ...}."
    )
